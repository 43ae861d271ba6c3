"""The public interface as a user would type it: checked by ``mypy --strict``, never run."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, BinaryIO, assert_type

import aiohttp
from attrs import evolve

import mlmessages
from mlmessages import (
    Drain,
    FileTokenStore,
    Limits,
    MessagesClient,
    MessagesError,
    OAuthToken,
    Retry,
    Routes,
    StaticToken,
    TokenSource,
    TokenStore,
    errors,
    models,
)


class Vault:
    """A token source of one's own: nothing to inherit."""

    async def token(self) -> str:
        """The current token."""
        return "token"

    async def rejected(self, token: str) -> None:
        """It was refused."""


def constructing(session: aiohttp.ClientSession) -> None:
    """Every way to make a client."""
    MessagesClient("token", seller_id=1)
    MessagesClient(StaticToken("token"), seller_id="1", api="domestic")
    MessagesClient(Vault(), seller_id=1, api=Routes.DOMESTIC, base_url="https://api.mercadolibre.com")
    MessagesClient("token", seller_id=1, api=evolve(Routes.MARKETPLACE, pack="/marketplace/messages/packs/{pack}"))
    MessagesClient("token", seller_id=1, limits=Limits(), retry=Retry(), timeout=5, session=session)
    MessagesClient("token", seller_id=1, limits=None, retry=None, session=None)
    Limits(reads=500, writes=500, period=60.0, concurrency=32, per_second=None)
    Limits(500, 500, 60, 32, 100)
    Retry(attempts=6, base=0.5, cap=60.0, deadline=300.0)
    source: TokenSource = Vault()  # it fits the protocol
    MessagesClient(source, seller_id=1)
    assert_type(Routes.MARKETPLACE.unread, str)
    assert_type(mlmessages.__version__, str)


async def authorising() -> None:
    """Tokens that renew themselves, and where they are kept."""
    store: TokenStore = FileTokenStore("seller.json")
    source: TokenSource = OAuthToken(1, "secret", store)
    MessagesClient(source, seller_id=1)
    OAuthToken("1", "secret", store=FileTokenStore(Path("seller.json")), base_url="https://api.mercadolibre.com")
    assert_type(await OAuthToken("1", "secret", store).refresh(), models.Token)
    loaded = await store.load()
    assert_type(loaded, models.Token | None)
    await store.save(models.Token("access", "refresh", datetime.now(UTC), issued_at=None, user_id=5))
    async with store.lock():
        pass
    if loaded is not None:
        assert_type((loaded.access_token, loaded.refresh_token, loaded.user_id), tuple[str, str | None, str | None])
        assert_type((loaded.expires_at, loaded.issued_at), tuple[datetime, datetime | None])


def misused(client: MessagesClient) -> None:
    """What a type checker refuses: each of these comments would be an error of its own if it were not needed."""
    MessagesClient("token")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    MessagesClient("token", 1)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    MessagesClient("token", seller_id=1, api="local")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    MessagesClient(5, seller_id=1)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    client.messages(1, 50)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    client.page(1, mark_as_read="false")  # type: ignore[arg-type, unused-coroutine]  # pyright: ignore[reportArgumentType, reportUnusedCoroutine]
    client.unread("both")  # type: ignore[arg-type, unused-coroutine]  # pyright: ignore[reportArgumentType, reportUnusedCoroutine]


async def reading(client: MessagesClient) -> None:
    """One request at a time."""
    async with client as entered:
        assert_type(entered, MessagesClient)
    listing = await client.unread()
    assert_type(listing, models.UnreadListing)
    await client.unread("buyer", user_id=5)
    await client.unread(role="seller", user_id="5")
    assert_type(listing.user_id, str | None)
    assert_type(listing.packs, tuple[models.UnreadPack, ...])
    assert_type(listing.capped, bool)
    assert_type(
        (listing.packs[0].pack_id, listing.packs[0].count, listing.packs[0].resource), tuple[str, int, str | None]
    )
    assert_type(await client.unread_count("1"), int)
    page = await client.page(1, limit=50, offset=0, mark_as_read=False)
    assert_type(page, models.MessagePage)
    assert_type(page.paging.total, int | None)
    assert_type(page.conversation, models.ConversationStatus | None)
    assert_type(page.messages, tuple[models.Message, ...])
    assert_type(page.seller_max_message_length, int | None)
    assert_type(await client.mark_read("1"), models.Conversation)
    assert_type(await client.message_by_id("abc"), models.Message)


async def walking(client: MessagesClient) -> None:
    """Generators, which can be closed."""
    pages = client.pages(1, limit=50, mark_as_read=True)
    assert_type(pages, AsyncGenerator[models.MessagePage, None])
    async for page in pages:
        assert_type(page, models.MessagePage)
    await pages.aclose()
    messages = client.messages("1", limit=50, mark_as_read=False)
    assert_type(messages, AsyncGenerator[models.Message, None])
    async for message in messages:
        assert_type(message, models.Message)


async def draining(client: MessagesClient) -> None:
    """Past the cap."""
    async with client.drain(concurrency=8, limit=50, settle_time=120.0) as drain:
        assert_type(drain, Drain)
        async for conversation in drain:
            assert_type(conversation, models.Conversation)
            assert_type(conversation.status, models.ConversationStatus | None)
            assert_type(conversation.messages, tuple[models.Message, ...])
            assert_type(conversation.unread, tuple[models.Message, ...])
            assert_type(conversation.marked, bool)
            assert_type((conversation.pack_id, conversation.resource), tuple[str, str | None])
    report = drain.report
    assert_type(report, models.DrainReport)
    assert_type(
        (report.conversations, report.messages, report.listings, report.requests, report.waiting),
        tuple[int, int, int, int, int],
    )
    assert_type(report.set_aside, tuple[models.PackFailure, ...])
    assert_type(report.set_aside[0].error, MessagesError)
    await client.drain().aclose()


async def writing(client: MessagesClient, opened: BinaryIO) -> None:
    """Replies, files and the action guide."""
    assert_type(await client.send(1, "Hi"), models.Message)
    file = await client.upload("a.pdf", site_id="MLM")
    assert_type(file, str)
    await client.upload(Path("a.pdf"), filename="b.pdf", site_id="MLM")
    await client.upload(b"x", filename="b.pdf", site_id="MLM")
    await client.upload(opened, site_id="MLM")
    await client.send("1", "Hi", to=2, attachments=[file, models.Attachment("a.pdf")])
    await client.upload("a.pdf")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    assert_type(await client.download(file, "a.pdf"), Path)
    await client.download(models.Attachment("a.pdf"), Path("a"), site_id="MLM", allow_threat=True)
    reasons = await client.contact_reasons(1)
    assert_type(reasons, models.Reasons)
    assert_type((reasons.pack_id, reasons.plain_send), tuple[str, bool])
    assert_type(reasons.usable, tuple[models.Reason, ...])
    assert_type(reasons.option("OTHER"), models.Reason | None)
    option = reasons.options[0]
    assert_type((option.id, option.cap_available, option.char_limit), tuple[str, int | None, int | None])
    assert_type(option.templates[0].variables[0].id, str)
    assert_type(await client.start_conversation(1, "OTHER", text="Hi"), models.Message)
    await client.start_conversation(1, option.id, template_id="T", variables={"a": 12, "b": "c"})


def looking(message: models.Message, status: models.ConversationStatus) -> None:
    """Every field has a type."""
    assert_type(message.id, str)
    assert_type(message.created, datetime | None)
    assert_type(message.received, datetime | None)
    assert_type(message.available, datetime | None)
    assert_type(message.notified, datetime | None)
    assert_type(message.read, datetime | None)
    for text in (
        message.site_id,
        message.client_id,
        message.sender_id,
        message.sender_name,
        message.sender_email,
        message.recipient_id,
        message.status,
        message.subject,
        message.text,
        message.text_translated,
        message.pack_id,
    ):
        assert_type(text, str | None)
    assert_type(message.moderation, models.Moderation | None)
    assert_type(message.attachments, tuple[models.Attachment, ...])
    assert_type(message.resources, tuple[models.Resource, ...])
    assert_type(message.raw["id"], Any)
    assert_type(message.problems, tuple[str, ...])
    assert_type(message.is_from(1) or message.is_from("1"), bool)
    assert_type(message.attachments[0].size, int | None)
    assert_type(message.attachments[0].potential_security_threat, bool | None)
    assert_type(status.blocked, bool)
    assert_type(status.can_reply, bool)
    assert_type(status.blocked_reason, str | None)
    assert_type(status.handled_by_agent, bool)
    assert_type(status.claim_ids, tuple[str, ...])


def read_only(message: models.Message, page: models.MessagePage, listing: models.UnreadListing) -> None:
    """Assignment to a model is refused, by mypy and by pyright: an unused `ignore` here is an error of theirs."""
    message.text = "x"  # type: ignore[misc]  # pyright: ignore[reportAttributeAccessIssue]
    message.problems = ()  # type: ignore[misc]  # pyright: ignore[reportAttributeAccessIssue]
    page.messages = ()  # type: ignore[misc]  # pyright: ignore[reportAttributeAccessIssue]
    page.paging.total = 1  # type: ignore[misc]  # pyright: ignore[reportAttributeAccessIssue]
    listing.packs[0].count = 1  # type: ignore[misc]  # pyright: ignore[reportAttributeAccessIssue]
    assert_type(evolve(message, text="x"), models.Message)
    assert_type(message.rejected, bool)
    assert_type(message.refused_files, tuple[tuple[str, str], ...])
    assert_type(listing.problems, tuple[str, ...])
    assert_type(listing.answered_at, datetime | None)
    match message:
        case models.Message(id=id_, text=str()):
            assert_type(id_, str)
        case _:
            pass


async def failing(client: MessagesClient) -> None:
    """What can be caught, and what it knows."""
    try:
        await client.unread()
    except errors.RateLimited as error:
        assert_type(error.retry_after, float | None)
    except errors.APIError as error:
        assert_type((error.status, error.code, error.message), tuple[int, str | None, str | None])
        assert_type((error.request_id, error.hint), tuple[str | None, str | None])
    except errors.DecodeError as error:
        assert_type(error.problems, tuple[str, ...])
    except errors.DrainStalled as error:
        assert_type(error.set_aside, tuple[models.PackFailure, ...])
    except (errors.NotSent, errors.AnswerLost, errors.ReauthorizationRequired, errors.StillListed, errors.JournalError):
        raise
    except MessagesError as error:
        assert_type(error.hint, str | None)
