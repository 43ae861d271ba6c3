"""Send messages: a POST is executed at most once, and what became of it is found out by reading the conversation.

No API call here has an idempotency key. So the conversation is read before (without marking) and, when the outcome of
the POST cannot be known, again after: a message of the seller that was not there before, with the same text, is ours.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import aclosing, asynccontextmanager
from itertools import takewhile
from typing import Final
from weakref import WeakValueDictionary

from attrs import define, evolve, field

from ..api.arguments import check_attachment_ids, check_id, check_latin, check_name, check_text, describe
from ..api.calls import Call
from ..api.endpoints import Endpoints
from ..api.outcomes import Outcome, outcome
from ..api.paging import ascending, newest_first
from ..api.redacted import RedactedText
from ..errors import AnswerLost, APIError, BadRequest, DecodeError, Forbidden, MessagesError, NotFound
from ..http.pipeline import Pipeline
from ..models import Attachment, ConversationStatus, Message, MessagePage, Reasons
from .reader import Reader

_log: Final = logging.getLogger("mlmessages")

_LIMIT: Final = 50
_SHORTEST_CAP: Final = 350  # where the server says nothing else [documented: messages, reasons]
_ECHO: Final = 8  # letters and digits of a message, in what a server says: less is a coincidence
_SHORTEST_ECHO: Final = 4  # of a message that is no longer

# Whom to write to where Mercado Libre's agent speaks for the buyer and has not written yet [documented: agents].
_AGENTS: Final = {
    "MLC": "3020819166",
    "MCO": "3037204123",
    "MLM": "3037204279",
    "MLA": "3037674934",
    "MLB": "3037675074",
}
_OTHER_AGENT: Final = "3037204685"  # of MLU "and others"

# The action guide says so of packs that are not its business, and means: use plain messages.
_PLAIN: Final = ("excepted_case", "use_message_api")


@define
class _Thread:
    """What a conversation showed before a message was sent.

    `known`: the ids that were there; None: it could not be read. `longest`: how many characters a reply may have.
    """

    status: ConversationStatus | None = None
    messages: tuple[Message, ...] = ()
    longest: int | None = None
    known: set[str] | None = field(factory=set)


class Writer:
    """Writes for one seller. Messages to one conversation go out one after the other."""

    def __init__(self, pipeline: Pipeline, endpoints: Endpoints, reader: Reader) -> None:
        self._pipeline = pipeline
        self._endpoints = endpoints
        self._reader = reader
        # One at a time: else two messages with the same text, both of unknown outcome, would adopt the same one.
        self._turns: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    # -- a reply --

    async def send(
        self,
        pack_id: int | str,
        text: str,
        to: int | str | None = None,
        attachments: Iterable[str | Attachment] = (),
    ) -> Message:
        """Send a reply; see `MessagesClient.send`."""
        pack = check_id("pack_id", pack_id)
        text = self._writable(text)
        recipient = None if to is None else check_id("to", to)
        files = _files(attachments)
        if not text.strip() and not (files and self._endpoints.domestic):
            raise ValueError("there is no text")  # "Text is required" [documented: messages] of Global Selling
        async with self._turn(pack):
            thread = await self._before(pack, addressed=recipient is not None)
            if thread.status is not None and thread.status.blocked:
                raise _blocked(thread.status)
            return await self._send(pack, thread, text, recipient, files)

    async def _send(
        self, pack: str, thread: _Thread, text: RedactedText, recipient: str | None, files: list[str]
    ) -> Message:
        longest = thread.longest
        if longest is None and self._endpoints.domestic:
            longest = _SHORTEST_CAP
        _check_length(text, longest)
        if self._endpoints.domestic:
            recipient = recipient or self._recipient(thread)
        elif recipient is not None:
            self._check_party(thread, recipient)

        def ours(message: Message) -> bool:
            shown = {file.filename for file in message.attachments}
            return _same(message.text, text) and shown == set(files)

        return await self._deliver(self._endpoints.send(pack, text, recipient, files), pack, thread, [text], ours)

    def _writable(self, text: str) -> RedactedText:
        checked = check_text("text", text)
        return check_latin("text", checked) if self._endpoints.domestic else checked

    def _recipient(self, thread: _Thread) -> str:
        """Return the user who wrote last on the other side, or else the agent who speaks for the buyer.

        A message to the buyer of a conversation that an agent handles is taken by the server and not delivered
        [observed: integrators].
        """
        for message in newest_first(thread.messages):
            if message.sender_id is not None and not message.is_from(self._reader.seller_id):
                return message.sender_id
        if thread.status is not None and thread.status.handled_by_agent:
            site = next((message.site_id for message in thread.messages if message.site_id), None)
            if site is not None:
                return _AGENTS.get(site, _OTHER_AGENT)
        raise BadRequest(
            400,
            "no_recipient",
            "the other side has not written in this conversation, so a reply has no recipient; nothing was sent",
            hint="Name the buyer with `to`, or start the conversation with `start_conversation`.",
        )

    def _check_party(self, thread: _Thread, recipient: str) -> None:
        """Raise `ValueError` if the conversation is with others: on these paths the server addresses a message."""
        seller = self._reader.seller_id
        parties = {m.recipient_id if m.is_from(seller) else m.sender_id for m in thread.messages} - {None}
        if parties and recipient not in parties:
            raise ValueError("`to` is not of this conversation, and on these paths the server addresses the message")

    # -- the action guide --

    async def contact_reasons(self, pack_id: int | str) -> Reasons:
        """Return the action guide of a pack; see `MessagesClient.contact_reasons`."""
        pack = check_id("pack_id", pack_id)
        try:
            found = await self._pipeline.execute(self._endpoints.reasons(pack))
        except (BadRequest, Forbidden) as error:
            if not _says_plain(error):
                raise
            return Reasons(pack, plain_send=True)
        if all(option.cap_available is not None for option in found.options):
            return found
        try:
            caps = await self._pipeline.execute(self._endpoints.caps(pack))
        except (APIError, DecodeError):  # where the marketplace family has it is not documented
            return found
        options = [
            option if option.cap_available is not None else evolve(option, cap_available=caps.get(option.id))
            for option in found.options
        ]
        return evolve(found, options=tuple(options))

    async def start(
        self,
        pack_id: int | str,
        option_id: str,
        text: str | None = None,
        template_id: str | None = None,
        variables: Mapping[str, str | float] | None = None,
    ) -> Message:
        """Start a conversation; see `MessagesClient.start_conversation`."""
        pack = check_id("pack_id", pack_id)
        body: dict[str, object] = {"option_id": check_name("option_id", option_id)}
        if (text is None) is (template_id is None):
            raise ValueError("an option takes either a text or a template_id")
        if variables is not None and not isinstance(variables, Mapping):
            raise ValueError("variables must be a mapping of names to values")
        if variables and template_id is None:
            raise ValueError("variables are those of a template: template_id is missing")
        filled: list[dict[str, object]] = [
            {"id": check_name("the id of a variable", name), "value": _variable(value)}
            for name, value in (variables or {}).items()
        ]
        if text is None:
            body["template_id"] = check_name("template_id", template_id)
            if filled:
                body["vars"] = filled
        else:
            text = body["text"] = self._writable(text)
            if not text.strip():
                raise ValueError("there is no text")
        async with self._turn(pack):
            return await self._start(pack, option_id, text, body, filled)

    async def _start(
        self,
        pack: str,
        option_id: str,
        text: RedactedText | None,
        body: dict[str, object],
        variables: list[dict[str, object]],
    ) -> Message:
        if text is not None and len(text) > _SHORTEST_CAP:  # a shorter one fits into every option
            option = (await self.contact_reasons(pack)).option(option_id)
            if option is not None:
                _check_length(text, option.char_limit or _SHORTEST_CAP)
        thread = await self._before(pack, addressed=True)
        written = [
            value for value in (text, *(variable["value"] for variable in variables)) if isinstance(value, RedactedText)
        ]

        def ours(message: Message) -> bool:
            data = message.raw.get("data")
            option = data.get("option_id") if isinstance(data, dict) else None
            if text is None:  # what a template says is not known here
                return option == option_id
            return option in (None, option_id) and _same(message.text, text)

        try:
            return await self._deliver(self._endpoints.option(pack, body), pack, thread, written, ours)
        except (BadRequest, Forbidden) as error:
            if text is None or not _says_plain(error):
                raise
        # "It is requested to use the messaging resource": not a failure, and nothing was sent.
        if self._endpoints.domestic:  # for the recipient, who may have written further back
            thread = await self._before(pack, addressed=False)
        return await self._send(pack, thread, text, None, [])

    # -- both --

    @asynccontextmanager
    async def _turn(self, pack: str) -> AsyncIterator[None]:
        turn = self._turns.setdefault(pack, asyncio.Lock())
        async with turn:
            yield

    async def _before(self, pack: str, *, addressed: bool) -> _Thread:
        """Read the newest part of a conversation, as far as is needed to know whom to write to.

        `addressed`: that is known already. Then a conversation that cannot be read is no obstacle: on some servers that
        is one without messages [observed: integrators].
        """
        thread = _Thread()
        seeks = self._endpoints.domestic and not addressed

        def enough(page: MessagePage) -> bool:
            if ascending(page.messages):
                return False  # the newest are on the last page
            if not seeks or (thread.status is not None and thread.status.handled_by_agent):
                return True
            return any(not message.is_from(self._reader.seller_id) for message in page.messages)

        try:
            await self._read(pack, thread, enough)
        except (Forbidden, NotFound):
            if not addressed:
                raise
            thread.known = None
        return thread

    async def _read(self, pack: str, thread: _Thread, enough: Callable[[MessagePage], bool]) -> None:
        async with aclosing(self._reader.pages(pack, _LIMIT)) as pages:
            async for page in pages:
                thread.status = thread.status or page.conversation
                thread.longest = thread.longest or page.seller_max_message_length
                thread.messages += page.messages
                assert thread.known is not None
                thread.known.update(message.id for message in page.messages)
                if enough(page):
                    return

    async def _deliver(
        self,
        call: Call[Message],
        pack: str,
        thread: _Thread,
        written: list[RedactedText],
        ours: Callable[[Message], bool],
    ) -> Message:
        """Send `call` once, and return the message that came of it.

        `written`: what no error may quote. `ours`: whether a message can be what was sent.
        """
        lost: MessagesError
        try:
            return _told(await self._pipeline.execute(call), pack)
        except (AnswerLost, DecodeError) as error:
            lost = error
        except APIError as error:
            lost = _without_words(error, written)
        if isinstance(lost, APIError) and (outcome(lost) is not Outcome.UNKNOWN or _is_refusal(lost)):
            raise lost
        if (found := await self._find_sent(pack, thread, ours)) is not None:
            _log.info("a message in pack %s had no usable answer, and was found in the conversation", pack)
            return _told(found, pack)
        if isinstance(lost, DecodeError):
            raise DecodeError(f"the message was sent, but what was answered cannot be read: {lost}", lost.problems)
        why = f"the server answered {lost}" if isinstance(lost, APIError) else str(lost)
        unknown = AnswerLost(f"the message may or may not have been sent: {why}")
        unknown.hint = "Look at the conversation before you send it again: it is not there yet, but may still come."
        raise unknown

    async def _find_sent(self, pack: str, thread: _Thread, ours: Callable[[Message], bool]) -> Message | None:
        """Return the message that was sent, if the conversation shows it now."""
        known = thread.known
        if known is None:
            return None
        # At once, and once more: it can be visible a little late. The default policy's third delay is 2 s.
        for pause in (0.0, self._pipeline.retry.delay(3)):
            await asyncio.sleep(pause)
            now = _Thread()
            try:
                await self._read(
                    pack, now, lambda page: not ascending(page.messages) and any(m.id in known for m in page.messages)
                )
            except MessagesError:
                continue
            # Above all that was there before: an older one may become visible, and is not ours.
            fresh = takewhile(lambda message: message.id not in known, newest_first(now.messages))
            found = [message for message in fresh if message.is_from(self._reader.seller_id) and ours(message)]
            if found:
                return found[-1]
        return None


def _files(attachments: Iterable[str | Attachment]) -> list[str]:
    if isinstance(attachments, Attachment):
        raise ValueError("attachments must be a list, not one attachment")
    if isinstance(attachments, (str, bytes)) or not isinstance(attachments, Iterable):
        return check_attachment_ids(attachments)  # which says what is wrong
    return check_attachment_ids([a.filename if isinstance(a, Attachment) else a for a in attachments])


def _variable(value: object) -> object:
    if isinstance(value, str):
        return check_text("a variable's value", value)
    if isinstance(value, (int, float)) and not isinstance(value, bool) and value - value == 0:
        return value
    raise ValueError("a variable's value must be a string or a finite number")


def _check_length(text: RedactedText, longest: int | None) -> None:
    if longest is not None and len(text) > longest:
        raise ValueError(f"text has {len(text)} characters (Unicode code points); here a message has at most {longest}")


def _blocked(status: ConversationStatus) -> Forbidden:
    hint = "Nothing was sent."
    if status.substatus is not None and "initiated_by_seller_limited" in status.substatus:
        hint += " See `contact_reasons` and `start_conversation`."
    return Forbidden(
        403, _word(status.substatus), f"the conversation is blocked: {_word(status.blocked_reason)}", hint=hint
    )


def _word(said: str | None) -> str | None:
    """Return a word of the server's if it can stand in a line of the log; an unknown one may be anything."""
    return said if said is None or (said.isprintable() and len(said) <= 100) else describe(said)


def _is_refusal(error: APIError) -> bool:
    """Return True for the one 5xx that is documented as a refusal: a promised delivery in the past."""
    return "delivery date is before" in (error.message or "")


def _says_plain(error: APIError) -> bool:
    return any(word in (error.code or "") or word in (error.message or "") for word in _PLAIN)


def _same(shown: str | None, sent: str) -> bool:
    """Return True if the server shows what was sent: it may trim it, and end its lines in its own way."""
    return (shown or "").replace("\r\n", "\n").strip() == sent.replace("\r\n", "\n").strip()


def _without_words(error: APIError, written: list[RedactedText]) -> APIError:
    """Return `error`, without the server's words where they quote the message or a part of it."""
    said = _letters(f"{error.code} {error.message}")
    if not any(_quotes(said, RedactedText(_letters(text))) for text in written):
        return error
    return type(error)(
        error.status,
        None,
        "what the server said quotes the message",
        request_id=error.request_id,
        hint=error.hint,
        retry_after=error.retry_after,
    )


def _letters(text: str) -> str:
    """Return the letters and digits of `text`: blanks, punctuation and case are what an echo changes."""
    return "".join(filter(str.isalnum, text)).lower()


def _quotes(said: str, text: RedactedText) -> bool:
    length = min(_ECHO, len(text))
    return length >= _SHORTEST_ECHO and any(said[i : i + length] in text for i in range(len(said) - length + 1))


def _told(message: Message, pack: str) -> Message:
    """Return `message`, and log what of it the other side does not get: a 2xx does not mean that it was delivered."""
    if message.refused_files:
        _log.warning(
            "message %s in pack %s was sent without %d of its files: %s",
            _word(message.id),
            pack,
            len(message.refused_files),
            ", ".join(f"{_word(name)} ({_word(reason)})" for name, reason in message.refused_files),
        )
    moderation = message.moderation
    if message.rejected:
        _log.warning(
            "message %s in pack %s was not delivered: status %s, moderation %s, reason %s",
            _word(message.id),
            pack,
            _word(message.status),
            _word(moderation.status if moderation else None),
            _word(moderation.reason if moderation else None),
        )
    return message
