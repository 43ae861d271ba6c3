"""Decoding a page of 50 messages: this library, hand-written code that makes the same objects, and others.

    python benchmarks/decode.py [--no-orjson]

All read the same bytes, and every field of every message. "by hand" makes the same frozen objects and trusts the
server: it checks no type. cattrs out of the box and pydantic make objects that mirror the wire, with fewer conversions;
pydantic is measured where it is installed. Medians, and the lowest tenth, of the CPU of rounds by turns; and how much
memory one message holds that is kept when its page is gone.
"""

from __future__ import annotations

import argparse
import gc
import json
import statistics
import sys
import time
import tracemalloc
from collections.abc import Callable
from datetime import datetime
from typing import Any

from page import PACK, page


def by_hand(loads: Callable[[bytes], Any]) -> Callable[[bytes], object]:
    """What one writes for this API and these models, without checks: null is None, dates are aware, ids are texts."""
    from mlmessages.models import Attachment, ConversationStatus, Message, MessagePage, Moderation, Paging, Resource

    def moment(value: str | None) -> datetime | None:
        return datetime.fromisoformat(value) if value is not None else None

    def text_id(value: int | str | None) -> str | None:
        return str(value) if value is not None else None

    def attachment(raw: dict[str, Any]) -> Attachment:
        return Attachment(
            raw["filename"],
            raw["original_filename"],
            raw["type"],
            raw["size"],
            raw["potential_security_threat"],
            moment(raw["creation_date"]),
        )

    def moderation(raw: dict[str, Any]) -> Moderation:
        reason = raw["reason"]
        return Moderation(
            raw["status"].lower(),
            reason.lower() if reason and reason != "none" else None,
            raw.get("by"),
            raw["source"].lower(),
            moment(raw["moderation_date"]),
        )

    def message(raw: dict[str, Any]) -> Message:
        sender, recipient, date = raw["from"], raw["to"], raw["message_date"]
        return Message(
            raw["id"],
            raw["site_id"],
            text_id(raw["client_id"]),
            text_id(sender["user_id"]),
            sender.get("name"),
            sender.get("email"),
            text_id(recipient["user_id"]),
            raw["status"].lower(),
            raw["subject"],
            raw["text"],
            raw.get("text_translated"),
            moment(date["created"]),
            moment(date["received"]),
            moment(date["available"]),
            moment(date["notified"]),
            moment(date["read"]),
            moderation(raw["message_moderation"]) if raw["message_moderation"] else None,
            tuple([attachment(a) for a in raw["message_attachments"] or ()]),
            tuple([Resource(text_id(r["id"]), r["name"]) for r in raw["message_resources"] or ()]),
            str(PACK),
            raw,
        )

    def decode(body: bytes) -> MessagePage:
        raw = loads(body)
        paging, status = raw["paging"], raw["conversation_status"]
        claims = status.get("claim_ids") or ()
        return MessagePage(
            str(PACK),
            Paging(paging["limit"], paging["offset"], paging["total"]),
            ConversationStatus(
                status.get("path"),
                status["status"].lower(),
                status["substatus"],
                moment(status["status_date"]),
                status["status_update_allowed"],
                tuple([str(claim) for claim in claims]),
                text_id(status["shipping_id"]),
            ),
            tuple([message(m) for m in raw["messages"]]),
            raw.get("seller_max_message_length"),
        )

    return decode


def wire_classes(decorate: Callable[[type], type]) -> type:
    """Classes that mirror the wire, name by name (``from`` renamed), as `wire_models` does for pydantic."""

    def of(class_name: str, /, **annotations: Any) -> type:
        defaults = dict.fromkeys(annotations)
        return decorate(type(class_name, (), {"__annotations__": annotations, "__module__": __name__, **defaults}))

    user = of("WireUser", user_id=int | None, name=str | None, email=str | None)
    dates = of("WireDates", **dict.fromkeys(("received", "available", "notified", "created", "read"), datetime | None))
    moderation = of(
        "WireModeration", status=str | None, reason=str | None, source=str | None, moderation_date=datetime | None
    )
    attachment = of(
        "WireAttachment",
        filename=str | None,
        original_filename=str | None,
        type=str | None,
        size=int | None,
        potential_security_threat=bool | None,
        creation_date=datetime | None,
    )
    resource = of("WireResource", id=str | None, name=str | None)
    message = of(
        "WireMessage",
        id=str | None,
        site_id=str | None,
        client_id=int | None,
        from_=user | None,
        to=user | None,
        status=str | None,
        subject=str | None,
        text=str | None,
        text_translated=str | None,
        message_date=dates | None,
        message_moderation=moderation | None,
        message_attachments=list[attachment] | None,  # type: ignore[valid-type]
        message_resources=list[resource] | None,  # type: ignore[valid-type]
        conversation_first_message=bool | None,
    )
    paging = of("WirePaging", limit=int | None, offset=int | None, total=int | None)
    status = of(
        "WireStatus",
        path=str | None,
        status=str | None,
        substatus=str | None,
        status_date=datetime | None,
        status_update_allowed=bool | None,
        claim_ids=list[int] | None,
        shipping_id=int | None,
    )
    return of(
        "WirePage",
        paging=paging | None,
        conversation_status=status | None,
        messages=list[message] | None,  # type: ignore[valid-type]
        seller_max_message_length=int | None,
    )


def with_cattrs(loads: Callable[[bytes], Any]) -> Callable[[bytes], object]:
    """cattrs as it comes, with the one hook for datetimes without which it cannot read any."""
    import attrs
    import cattrs
    from cattrs.gen import make_dict_structure_fn, override

    converter = cattrs.Converter()
    converter.register_structure_hook(datetime, lambda value, _: datetime.fromisoformat(value))

    def decorate(cls: type) -> type:
        made = attrs.define(cls)
        if "from_" in cls.__annotations__:
            hook = make_dict_structure_fn(made, converter, from_=override(rename="from"))
            converter.register_structure_hook(made, hook)
        return made

    root = wire_classes(decorate)
    return lambda body: converter.structure(loads(body), root)


def with_pydantic(loads: Callable[[bytes], Any], *, own_parser: bool) -> Callable[[bytes], object]:
    """pydantic v2: from the JSON value of the same loader, or from the bytes, which it parses itself in Rust."""
    from wire_models import Page

    return Page.model_validate_json if own_parser else lambda body: Page.model_validate(loads(body))


def kept(decode: Callable[[bytes], Any], body: bytes) -> int:
    """Bytes that one message holds when the page that it came with is gone."""
    gc.collect()
    tracemalloc.start()
    message = decode(body).messages[25]
    gc.collect()
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert message is not None
    return held


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--no-orjson", action="store_true", help="as if the extra `speed` were not installed")
    parser.add_argument("--rounds", type=int, default=100)
    options = parser.parse_args()
    if options.no_orjson:
        sys.modules["orjson"] = None  # type: ignore[assignment]  # importing it fails from here on
        loads, loader = json.loads, "json.loads"
    else:
        import orjson

        loads, loader = orjson.loads, "orjson.loads"

    from mlmessages.api import decoding
    from mlmessages.models import MessagePage

    def decoded(body: bytes) -> MessagePage:
        return decoding.message_page(body, str(PACK))

    body = page(50)
    hand = by_hand(loads)
    sides: dict[str, Callable[[bytes], object]] = {
        f"{loader}, then by hand": hand,
        "mlmessages": decoded,
        f"{loader} alone": loads,
        f"{loader}, then cattrs out of the box": with_cattrs(loads),
    }
    if loads is not json.loads:
        sides["json.loads alone"] = json.loads
    try:
        sides[f"{loader}, then pydantic"] = with_pydantic(loads, own_parser=False)
        sides["pydantic from the bytes"] = with_pydantic(loads, own_parser=True)
    except ImportError:
        print("(pydantic is not installed)")

    made = decoded(body)
    assert made == hand(body)
    # Messages are equal by id: every field, to be sure that both make the same.
    assert [repr(m) + repr((m.text, m.text_translated, m.sender_name, m.raw)) for m in made.messages] == [
        repr(m) + repr((m.text, m.text_translated, m.sender_name, m.raw))
        for m in hand(body).messages  # type: ignore[attr-defined]
    ]

    taken: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(options.rounds):
        for name, decode in sides.items():
            begun = time.process_time()
            for _ in range(10):
                decode(body)
            taken[name].append((time.process_time() - begun) / 10 * 1e6)
    rival = sorted(taken[f"{loader}, then by hand"])
    tenth = options.rounds // 10
    print(f"a page of 50 messages, {len(body):,} bytes\n")
    print("| | median, µs | of by hand | lowest tenth, µs | of by hand |\n|---|---|---|---|---|")
    for name, times in taken.items():
        times.sort()
        median, low = statistics.median(times), times[tenth]
        of_median, of_low = median / statistics.median(rival), low / rival[tenth]
        print(f"| {name} | {median:.0f} | {of_median:.2f} | {low:.0f} | {of_low:.2f} |")
    print(f"\none message that is kept holds {kept(decoded, body):,} bytes")


if __name__ == "__main__":
    main()
