"""The errors: their tree, what they carry, and what they never show."""

from __future__ import annotations

import copy
import inspect
import pickle
from typing import Any

import pytest

from mlmessages import errors
from mlmessages.api.decoding import message_page
from mlmessages.errors import (
    AnswerLost,
    APIError,
    AuthError,
    BadRequest,
    Conflict,
    DecodeError,
    DrainStalled,
    Forbidden,
    JournalError,
    LeaseLost,
    MessagesError,
    NotFound,
    NotSent,
    PackFailure,
    RateLimited,
    ReauthorizationRequired,
    ServerError,
    StillListed,
    TransportError,
    Unauthorized,
)

TREE: dict[type[Exception], type[Exception]] = {
    MessagesError: Exception,
    TransportError: MessagesError,
    NotSent: TransportError,
    AnswerLost: TransportError,
    APIError: MessagesError,
    BadRequest: APIError,
    Unauthorized: APIError,
    Forbidden: APIError,
    NotFound: APIError,
    Conflict: APIError,
    RateLimited: APIError,
    ServerError: APIError,
    DecodeError: MessagesError,
    AuthError: MessagesError,
    ReauthorizationRequired: AuthError,
    DrainStalled: MessagesError,
    StillListed: MessagesError,
    JournalError: MessagesError,
    LeaseLost: JournalError,
}

REFUSED = Forbidden(403, "forbidden", "Not yours", request_id="req-1", hint="Ask for your own.", retry_after=1.5)
EXAMPLES: list[MessagesError] = [
    MessagesError("words"),
    TransportError("words"),
    NotSent("no address"),
    AnswerLost("no answer in time"),
    REFUSED,
    *(cls(400 + n) for n, cls in enumerate((APIError, BadRequest, Unauthorized, NotFound, Conflict, ServerError))),
    RateLimited(429, "local_rate_limited", retry_after=7.0),
    DecodeError("an answer cannot be read", ("messages: expected an array, found null",)),
    AuthError("no token"),
    ReauthorizationRequired("authorise it again"),
    DrainStalled((PackFailure("1", REFUSED), PackFailure("2", NotFound(404)))),
    StillListed("pack 1"),
    JournalError("disk full"),
    LeaseLost("another process has the seller"),
]


def test_the_tree_is_the_documented_one() -> None:
    """The classes of `mlmessages.errors` are those of the interface, each under its parent, and no others."""
    classes = {cls for _, cls in inspect.getmembers(errors, inspect.isclass) if cls.__module__ == errors.__name__}
    defined = {cls for cls in classes if issubclass(cls, BaseException)}
    assert defined == set(TREE)
    assert {cls: cls.__bases__ for cls in TREE} == {cls: (parent,) for cls, parent in TREE.items()}


def test_the_docstring_draws_the_whole_tree() -> None:
    """The tree that a reader sees at the top of the module names every class."""
    assert errors.__doc__ is not None
    assert all(cls.__name__ in errors.__doc__ for cls in TREE)


def test_every_error_says_what_it_means() -> None:
    """Every class has a docstring of its own."""
    assert all(cls.__dict__.get("__doc__") for cls in TREE)


def state(error: BaseException) -> tuple[Any, ...]:
    """All that an error is, in a form that compares by value."""
    fields = {name: value for name, value in vars(error).items() if name != "set_aside"}
    aside = [(failure.pack_id, state(failure.error)) for failure in getattr(error, "set_aside", ())]
    return type(error), error.args, str(error), fields, aside


@pytest.mark.parametrize("error", EXAMPLES, ids=lambda error: type(error).__name__)
def test_an_error_survives_a_round_trip(error: MessagesError) -> None:
    """An error comes through pickle (another process) and copy with its type, words and attributes."""
    for again in (pickle.loads(pickle.dumps(error)), copy.deepcopy(error), copy.copy(error)):
        assert again is not error
        assert state(again) == state(error)


def test_there_is_an_example_of_each_class() -> None:
    """The round trip is tried with every class."""
    assert {type(example) for example in EXAMPLES} == set(TREE)


def test_the_attributes_of_a_refusal() -> None:
    """An `APIError` has status, code, message, request id, hint and retry_after, and reads as one sentence."""
    assert (REFUSED.status, REFUSED.code, REFUSED.message) == (403, "forbidden", "Not yours")
    assert (REFUSED.request_id, REFUSED.hint, REFUSED.retry_after) == ("req-1", "Ask for your own.", 1.5)
    assert str(REFUSED) == "403 forbidden: Not yours. Ask for your own."
    bare = APIError(418)
    assert (bare.code, bare.message, bare.request_id, bare.hint, bare.retry_after) == (None,) * 5
    assert str(bare) == "418 no reason given"
    assert str(RateLimited(429, "local_rate_limited", "local_rate_limited")) == "429 local_rate_limited"


def test_hints_where_there_are_any() -> None:
    """Every error has a `hint`, which is None where there is nothing to say."""
    assert all(example.hint is None or len(example.hint) > 10 for example in EXAMPLES)
    assert MessagesError("words").hint is None


def test_a_stalled_drain_says_which_packs_and_asks_what_may_be_wrong() -> None:
    """`DrainStalled` counts the packs, keeps them, and asks for the seller id and the permission."""
    error = DrainStalled((PackFailure("1", REFUSED),))
    assert error.set_aside == (PackFailure("1", REFUSED),)
    assert str(error).startswith("1 pack")
    assert error.hint is not None
    assert "seller's id" in error.hint
    assert "permission" in error.hint


def test_a_decode_error_shows_the_first_problems_and_keeps_all() -> None:
    """A page that is wrong in a hundred places makes a line, not a page."""
    error = DecodeError("an answer cannot be read", tuple(f"place{i}: wrong" for i in range(100)))
    assert len(error.problems) == 100
    assert str(error).count("wrong") == 5


@pytest.mark.parametrize("where", ["text", "subject", "results"])
def test_no_error_shows_what_a_buyer_wrote(where: str) -> None:
    """An answer that cannot be read is explained without a word of it, in str, repr, args and problems."""
    with pytest.raises(DecodeError) as caught:
        message_page(b'{"messages": [{"%s": "canary"}], "canary": 1}' % where.encode(), "1")
    failure = PackFailure("1", caught.value)
    assert (
        "canary"
        not in f"{failure} {failure!r} {caught.value} {caught.value!r} {caught.value.args} {caught.value.problems}"
    )
