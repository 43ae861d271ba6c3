"""From a refusal to its error: class, status, code, message, request id, hint and Retry-After."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cases import case
from core.shapes import PAYLOADS, anything, body, dump, payload
from mlmessages import errors
from mlmessages.api.calls import Effect, Response
from mlmessages.api.outcomes import Outcome, cured_by_new_token, outcome, repeatable
from mlmessages.api.refusals import check
from mlmessages.errors import (
    APIError,
    BadRequest,
    Conflict,
    Forbidden,
    NotFound,
    RateLimited,
    ServerError,
    Unauthorized,
)


def refusal(status: int, text: bytes = b"", headers: dict[str, str] | None = None, received: float = 0.0) -> APIError:
    """The error that an answer is."""
    with pytest.raises(APIError) as caught:
        check(Response(status, text, headers or {}, received=received))
    return caught.value


# -- the documented bodies ---------------------------------------------------------------------------------------------

PERMISSION = "lacks the permission for pre and post-sale communication"
# payload: class, code, message (None: as in the body), what the hint says (None: no hint)
BODIES: dict[str, tuple[type[APIError], str | None, str | None, str | None]] = {
    "error_400_action_guide_excepted": (BadRequest, "blocked_by_excepted_case", None, "use `send`"),
    "error_400_agent_not_in_pack": (BadRequest, "bad_request", None, "leave `to` out"),
    "error_400_charset": (BadRequest, "bad_request", None, "ISO-8859-1"),
    "error_400_message_id_empty": (BadRequest, "bad_request", None, "Pass a message's id"),
    "error_400_message_id_unknown": (BadRequest, "bad_request", None, "No message has this id"),
    "error_400_multiple_orders": (BadRequest, "bad_request", None, "one order's at a time"),
    "error_400_no_token_marketplace": (BadRequest, "bad_request", None, "No token reached the server"),
    "error_400_too_long": (BadRequest, "bad_request", None, "Shorten the text"),
    "error_401_unauthorized_scopes": (
        Unauthorized,
        "unauthorized_scopes",
        None,
        "neither a new token nor the seller can mend",
    ),
    "error_401_invalid_token": (Unauthorized, "not_found", None, "get a new one"),
    "error_403_access_denied": (Forbidden, "access_denied", None, "several causes are documented"),
    "error_403_action_guide_cap": (Forbidden, "bad_request", None, "used this option up"),
    "error_403_invalid_scopes": (Forbidden, "forbidden", "Invalid scopes", PERMISSION),
    "error_403_model6_marketplace": (Forbidden, "forbidden", None, "Model 6"),
    "error_403_pack_not_yours": (Forbidden, "forbidden", None, "not this seller's"),
    "error_403_send_blocked_docs": (Forbidden, "forbidden", None, "blocked_reason"),
    "error_403_user": (Forbidden, "forbidden", None, "`user_id` must be the user that the token belongs to"),
    "error_404_message_storage": (NotFound, "not_found", None, "ask again in a few seconds"),
    "error_404_order": (NotFound, "not_found", None, "No sale has this id"),
    "error_404_resource": (NotFound, "not_found", None, "`Routes`"),
    "error_422_attachment_key": (APIError, "unprocessable_entity", None, "upload the file again"),
    "error_429_action_guide": (RateLimited, "too_many_request", None, "`Limits`"),
    "error_429_minimal": (RateLimited, "local_rate_limited", None, "`Limits`"),
    "error_500_attachment_error_null": (ServerError, None, None, "gone for good"),
    "error_500_delivery_promise": (ServerError, None, None, "in the past"),
}


@pytest.mark.parametrize("name", BODIES)
def test_every_documented_error_body(name: str, parser: str) -> None:
    """Every sample of an error becomes its class, with status, code, message, request id and what to do."""
    cls, code, message, hint = BODIES[name]
    status = int(name.split("_")[1])
    error = refusal(status, body(name), {"x-request-id": "req-1"})
    assert type(error) is cls
    assert (error.status, error.code, error.request_id) == (status, code, "req-1")
    assert error.message == (message or payload(name)["message"])
    assert (error.hint is None) == (hint is None)
    assert (hint or "") in (error.hint or "")
    assert str(error).startswith(f"{status} ")


def test_no_documented_error_body_was_forgotten() -> None:
    """Each `payloads/error_*.json` has its row in the table."""
    assert {path.stem for path in PAYLOADS.glob("error_*.json")} == set(BODIES)


@pytest.mark.parametrize(
    ("row", "status", "message", "cls", "hint"),
    [
        ("empty id", 400, "Messages id empty or invalid", BadRequest, "as a notification or a page names it"),
        ("unknown id", 400, "The specified message id: abc1 does not exist", BadRequest, "not a pack's"),
        ("several orders", 400, "Not allowed messages from multiple orders", BadRequest, "several orders"),
        ("user", 403, "Can not identify the user.", Forbidden, "user_id"),
        ("storage", 404, "The message with id: abc1 could not be retrieved from storage", NotFound, "can be late"),
        ("order", 404, "Order do not exists", NotFound, "No sale has this id"),
    ],
)
@pytest.mark.parametrize("envelope", ["classic", "status_code", "bare", "text"])
def test_each_of_the_six_errors_of_pending_messages(
    row: str, status: int, message: str, cls: type[APIError], hint: str, envelope: str
) -> None:
    """Each row of the page's table of errors has its class, message and hint, whatever envelope the server puts it in."""
    text = {
        "classic": dump({"message": message, "error": "bad_request", "status": status, "cause": []}),
        "status_code": dump({"message": message, "code": "bad_request", "status_code": status}),
        "bare": dump({"message": message}),
        "text": message.encode(),
    }[envelope]
    error = refusal(status, text)
    assert (type(error), error.status, error.message) == (cls, status, message)
    assert error.code == (None if envelope in ("bare", "text") else "bad_request")
    assert error.hint is not None
    assert hint in error.hint
    assert str(error).endswith(error.hint)


@pytest.mark.parametrize(
    "said",
    [
        {
            "status": 403,
            "code": "PA_UNAUTHORIZED_RESULT_FROM_POLICIES",
            "blocked_by": "PolicyAgent",
            "message": "At least one policy returned UNAUTHORIZED.",
        },
        {"blocked_by": "PolicyAgent", "message": "denied", "status": 403},
        {"code": "policy_agent", "message": "denied"},
        {"status": 403, "error": "Invalid scopes", "code": "FORBIDDEN"},
        {"message": "Invalid scopes"},
    ],
    ids=str,
)
def test_a_missing_permission_is_recognised_in_each_spelling(said: dict[str, Any]) -> None:
    """A 403 for a permission that the application lacks says which one to switch on."""
    error = refusal(403, dump(said))
    assert error.hint is not None
    assert PERMISSION in error.hint


@case("K26", "L5")
@pytest.mark.parametrize(
    "said",
    [
        {"status": 403, "error": "access_denied", "message": "access to the requested resource is forbidden"},
        {"code": "ACCESS_DENIED", "message": "no"},
        {"message": "access_denied"},
    ],
    ids=str,
)
def test_no_cause_of_access_denied_is_named_as_certain(said: dict[str, Any]) -> None:
    """Five causes are named, each as one that may be; which one it is nothing in the answer tells."""
    hint = refusal(403, dump(said)).hint or ""
    assert hint.count(" may ") == 5
    assert all(word in hint for word in ("another user's", "permission", "IP address", "blocked", "suspended"))


@case("K26", "L5")
def test_a_blocked_application_is_told_from_a_token_that_has_expired() -> None:
    """401 `unauthorized_scopes` is of the application: no refresh helps, as it does for every other 401."""
    blocked, expired = (
        refusal(401, body("error_401_unauthorized_scopes")),
        refusal(401, body("error_401_invalid_token")),
    )
    assert isinstance(blocked, Unauthorized)
    assert isinstance(expired, Unauthorized)
    assert (cured_by_new_token(blocked), cured_by_new_token(expired)) == (False, True)
    assert "blocked the application" in (blocked.hint or "")
    assert "get a new one" in (expired.hint or "")
    for said in (
        {"message": "unauthorized_scopes"},
        {"code": "UNAUTHORIZED_SCOPES", "message": "no access"},
        {"error": "unauthorized", "message": "unauthorized_scopes"},
    ):
        spelled = refusal(401, dump(said))
        assert isinstance(spelled, Unauthorized)
        assert not cured_by_new_token(spelled)
        assert spelled.hint == blocked.hint
    for bare in (Unauthorized(401), Unauthorized(401, "unauthorized"), Unauthorized(401, None, "invalid access token")):
        assert cured_by_new_token(bare)


@case("L5")
def test_a_403_of_the_network_in_front_is_not_called_a_missing_permission() -> None:
    """An HTML page with the status 403 may come from a CDN or a proxy; with another status it has no such hint."""
    page = b"<!DOCTYPE html><html><head><title>403 Forbidden</title></head></html>"
    blocked = refusal(403, page)
    assert "the network in front of Mercado Libre's API" in (blocked.hint or "")
    assert " may " in (blocked.hint or "")
    assert PERMISSION not in str(blocked)
    assert refusal(400, page).hint is None
    assert refusal(502, page).hint is None


def test_the_policy_agent_is_named_in_the_message() -> None:
    """Who blocked it is part of the message."""
    error = refusal(403, dump({"code": "PA_X", "blocked_by": "PolicyAgent", "message": "At least one policy."}))
    assert (error.code, error.message) == ("pa_x", "At least one policy. (blocked by PolicyAgent)")


def test_a_pack_of_somebody_else_is_not_called_a_missing_permission() -> None:
    """A 403 on one pack, or without a known reason, does not tell the user to change the application."""
    for said in ({"message": "User access token invalid for resource 1", "error": "forbidden"}, {"message": "no"}, {}):
        assert PERMISSION not in (refusal(403, dump(said)).hint or "")


# -- the shapes of a refusal -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("said", "code", "message"),
    [
        ({"message": "m m", "error": None, "cause": None}, None, "m m"),
        ({"message": "m.", "error": "Forbidden"}, "forbidden", "m."),
        ({"message": "M m", "error": "bad_request", "cause": "blocked_by_buyer"}, "blocked_by_buyer", "M m"),
        ({"message": "M m", "error": "e_e", "cause": ["blocked_by_buyer"]}, "blocked_by_buyer", "M m"),
        ({"message": "M m", "error": "e_e", "cause": [{"code": "blocked_by_time"}]}, "blocked_by_time", "M m"),
        ({"message": "M m", "cause": [{"code": "block_by_x_y", "description": "d"}]}, "block_by_x_y", "M m"),
        ({"message": "M m", "cause": [{"code": 7}, 5, None, {}]}, None, "M m"),
        ({"message": "M m", "code": "not_found"}, "not_found", "M m"),
        ({"message": "blocked_by_claim", "code": "forbidden"}, "blocked_by_claim", "blocked_by_claim"),
        ({"error_description": "Words here", "error": "invalid_grant"}, "invalid_grant", "Words here"),
        ({"error": "invalid_scopes"}, "invalid_scopes", "invalid_scopes"),
        ({"cause": "blocked_by_refund"}, "blocked_by_refund", "blocked_by_refund"),
        ({"message": {"a": 1}, "error": ["x"], "code": 5}, None, None),
        ({"message": ""}, None, None),
        ({"message": "\x00\x1b"}, None, None),
        ({}, None, None),
        ([], None, None),
        (None, None, None),
        (7, None, None),
        ("local_rate_limited", "local_rate_limited", "local_rate_limited"),
        ("Some words.", None, "Some words."),
    ],
    ids=lambda value: json.dumps(value)[:60],
)
def test_the_code_and_the_words_wherever_they_stand(
    said: Any, code: str | None, message: str | None, parser: str
) -> None:
    """The code is found in `error`, `code`, `cause` or `message`, lower-cased, a block first; the words likewise."""
    error = refusal(409, dump(said))
    assert (type(error), error.code, error.message) == (Conflict, code, message)


@pytest.mark.parametrize(
    ("text", "code", "message"),
    [
        (b"", None, None),
        (b"   ", None, None),
        (b"<html><h1>502 Bad Gateway</h1></html>", None, "an HTML page instead of an answer"),
        (b"\n<!DOCTYPE html>\n", None, "an HTML page instead of an answer"),
        (b"local_rate_limited", "local_rate_limited", "local_rate_limited"),
        (b"upstream connect error", None, "upstream connect error"),
        (b"\xff\xfe broken", None, "\ufffd\ufffd broken"),
        (b'{"message": "cut o', None, '{"message": "cut o'),
        (b'{"message": NaN}', None, '{"message": NaN}'),
    ],
)
def test_a_refusal_that_is_no_json(text: bytes, code: str | None, message: str | None, parser: str) -> None:
    """An empty body, HTML and plain text are errors of the status' class like any other."""
    for status in (400, 429, 502):
        error = refusal(status, text)
        assert (error.status, error.code, error.message) == (status, code, message)
        assert str(error).startswith(f"{status} {message or 'no reason given'}")


@pytest.mark.parametrize(
    ("status", "cls"),
    [
        (100, APIError),
        (301, APIError),
        (302, APIError),
        (307, APIError),
        (400, BadRequest),
        (401, Unauthorized),
        (402, APIError),
        (403, Forbidden),
        (404, NotFound),
        (409, Conflict),
        (410, APIError),
        (422, APIError),
        (429, RateLimited),
        (451, APIError),
        (500, ServerError),
        (502, ServerError),
        (503, ServerError),
        (504, ServerError),
        (520, ServerError),
        (599, ServerError),
    ],
)
def test_the_status_decides_the_class(status: int, cls: type[APIError]) -> None:
    """The HTTP status decides, also where the body's own status says otherwise."""
    for said in (
        {"message": "m m", "status": 200},
        {"message": "m m", "status_code": 404, "results": [], "messages": []},
    ):
        error = refusal(status, dump(said))
        assert type(error) is cls
        assert error.status == status


@pytest.mark.parametrize("status", [200, 201, 204, 206])
def test_an_answer_is_no_refusal(status: int) -> None:
    """A 2xx is not refused, whatever its body says."""
    check(Response(status, dump({"message": "Forbidden", "status": 403})))


def test_a_redirect_is_never_followed_and_its_target_not_shown() -> None:
    """A 3xx is an error that says so, and repeats nothing of where it leads."""
    error = refusal(302, b'{"message": "https://elsewhere.example"}', {"location": "https://elsewhere.example/x"})
    assert (error.code, error.message, error.hint) == (None, "a redirect, which is never followed", None)
    assert "elsewhere" not in str(error)


def test_a_message_is_one_short_line_that_moves_no_cursor() -> None:
    """Control characters, bidi marks and length are taken out of what the server says, before it reaches a log."""
    nasty = "a\x1b[2Jb\r\nc\x00\x9bd\u202ee\u2066f\u200bg\u2028h\ufeffi\u061cj\u200dk\U000e0041l"
    error = refusal(400, dump({"message": nasty}), {"x-request-id": "r\n1\x1b"})
    assert error.message == "a [2Jb c d e f g h i j k l"
    assert error.request_id == "r 1"
    long = refusal(400, dump({"message": "words " * 100_000, "error": "e" * 100_000, "code": "E_" * 50_000 + "E"}))
    assert long.code is None
    assert len(str(long)) < 400


@given(anything, st.sampled_from([300, 400, 401, 403, 404, 429, 500]))
def test_a_refusal_of_any_shape_is_an_api_error(value: Any, status: int) -> None:
    """Whatever JSON a refusal holds, in any of the known keys: an `APIError` of that status, printable and short."""
    keys = ("message", "error", "code", "cause", "error_description", "blocked_by")
    for said in (value, dict.fromkeys(keys, value), {"cause": [value, {"code": value}]}):
        error = refusal(status, dump(said))
        assert error.status == status
        assert len(str(error)) < 1_000
        assert "\n" not in str(error)


@given(st.binary(max_size=60))
def test_a_refusal_of_any_bytes_is_an_api_error(text: bytes) -> None:
    """Whatever bytes a refusal holds: an `APIError`."""
    assert refusal(503, text).status == 503


# -- Retry-After -------------------------------------------------------------------------------------------------------

RECEIVED = 1_700_000_000.0  # Tue, 14 Nov 2023 22:13:20 GMT


RETRY_AFTER: list[tuple[str, str | None, float | None]] = [
    ("7", None, 7.0),
    ("0", None, 0.0),
    (" 7 ", None, 7.0),
    ("0.5", None, 0.5),
    ("1000000000", None, 1e9),
    ("1e9", None, 1e9),
    ("-5", None, None),
    ("nan", None, None),
    ("inf", None, None),
    ("1e999", None, None),
    ("", None, None),
    ("soon", None, None),
    ("7 seconds", None, None),
    ("7, 7", None, None),
    ("Tue, 14 Nov 2023 22:14:20 GMT", None, 60.0),
    ("Tuesday, 14-Nov-23 22:14:20 GMT", None, 60.0),
    ("Tue Nov 14 22:14:20 2023", None, 60.0),
    ("Tue, 14 Nov 2023 22:14:20 -0000", None, 60.0),
    ("Tue, 14 Nov 2023 22:12:20 GMT", None, None),
    ("Tue, 14 Nov 2023 22:14:20 GMT", "Tue, 14 Nov 2023 22:14:13 GMT", 7.0),
    ("Tue, 14 Nov 2023 22:14:20 GMT", "Tue, 14 Nov 2023 22:15:20 GMT", None),
    ("Tue, 14 Nov 2023 22:14:20 GMT", "nonsense", 60.0),
    ("Tue, 32 Nov 2023 22:14:20 GMT", None, None),
    ("Tue, 14 Nov 99999 22:14:20 GMT", None, None),
    ("Mon, 01 Jan 0001 00:00:00 GMT", None, None),
    ("Mon, 01 Jan 0001 00:00:00 +2359", None, None),
    ("Fri, 31 Dec 9999 23:59:59 -2359", None, None),
    ("Fri, 31 Dec 9999 23:59:59 GMT", "Mon, 01 Jan 0001 00:00:00 GMT", 252_423_993_599.0),
    ("Tue, 14 Nov 2023 22:14:20 GMT", "Tue, 14 Nov 99999 22:14:13 GMT", 60.0),
    ("Tue, 14 Nov 2023 22:14:20 +999999", None, None),
    ("0", "Fri, 99 Xyz -1 99:99:99", 0.0),
    ("9" * 5_000, None, None),
]


@case("N6")
@pytest.mark.usefixtures("far_from_utc")
def test_retry_after() -> None:
    """Retry-After is read as seconds or as a date of any of HTTP's three forms; what makes no sense is None."""
    for value, date, expected in RETRY_AFTER:
        headers = {"retry-after": value} | ({} if date is None else {"date": date})
        for status in (429, 503):
            assert refusal(status, b"", headers, RECEIVED).retry_after == expected, (value, date)


def test_no_retry_after_is_none() -> None:
    """Without the header nothing is made up."""
    assert refusal(429).retry_after is None


@given(
    st.text(max_size=40)
    | st.from_regex(r"[A-Z][a-z]{2}, [0-9]{1,3} [A-Z][a-z]{2} [0-9]{1,6} [0-9:]{0,9} [-+A-Z0-9]{0,6}", fullmatch=True)
)
def test_any_retry_after_is_seconds_or_none(value: str) -> None:
    """Whatever stands in the header: a number of seconds that can be slept, or None."""
    seconds = refusal(429, b"", {"retry-after": value, "date": value[::-1]}).retry_after
    assert seconds is None or 0 <= seconds < float("inf")


# -- what a refusal means for the request ------------------------------------------------------------------------------

OUTCOMES = [
    (None, Outcome.EXECUTED),
    (errors.DecodeError("unreadable"), Outcome.EXECUTED),
    (errors.NotSent("no address"), Outcome.NOT_EXECUTED),
    (errors.AnswerLost("no answer"), Outcome.UNKNOWN),
    *(
        (cls(status), Outcome.NOT_EXECUTED)
        for cls, status in [(BadRequest, 400), (Unauthorized, 401), (Forbidden, 403)]
    ),
    *((cls(status), Outcome.NOT_EXECUTED) for cls, status in [(NotFound, 404), (Conflict, 409), (RateLimited, 429)]),
    (APIError(302), Outcome.NOT_EXECUTED),
    (APIError(451), Outcome.NOT_EXECUTED),
    (ServerError(500), Outcome.UNKNOWN),
    (ServerError(503), Outcome.UNKNOWN),
    (errors.AuthError("no token"), Outcome.NOT_EXECUTED),
]


@pytest.mark.parametrize(("error", "expected"), OUTCOMES, ids=repr)
def test_the_outcome_of_an_attempt(error: Exception | None, expected: Outcome) -> None:
    """An attempt was executed, was not, or it cannot be known: every error has its class."""
    assert outcome(error) is expected


@pytest.mark.parametrize(("error", "_"), OUTCOMES[1:], ids=repr)
@pytest.mark.parametrize("effect", Effect)
def test_only_what_is_safe_is_repeated(error: Exception, _: Outcome, effect: Effect) -> None:
    """All that was not executed for a passing reason may be sent again; unknown or unreadable, plain reads alone."""
    passing = isinstance(error, (errors.NotSent, RateLimited))
    unknown = isinstance(error, (errors.AnswerLost, ServerError, errors.DecodeError))
    assert repeatable(effect, error) is (passing or (unknown and effect is Effect.READ))
