"""K24: no frame up any traceback shows a token, a code or a client secret, however its locals are shortened."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import attrs
import pytest
from click.testing import CliRunner

from cases import case
from edges.sockets import PACK, Answer, Wire, answering, client_at, saying, server, within
from mlmessages import FileTokenStore, Fleet, Inbox, Limits, MessagesClient, OAuthToken, Retry, StaticToken, failpoints
from mlmessages.asgi import NotificationApp
from mlmessages.auth import grants, token_endpoint
from mlmessages.cli.app import cli
from mlmessages.errors import MessagesError
from mlmessages.http.transport import Transport
from mlmessages.models import Token
from mlmessages.testing import Sandbox, serve_in_thread
from mlmessages.web import NotificationRoutes
from shown import assert_hidden
from tokens.conftest import MemoryStore

# As long as real ones.
ACCESS = "APP_USR-7120934857612340-112613-3f9a0c7be4d85162a7c09d1e2b3f4a5c-1700100200-QwErTyUiOp"
REFRESH = "TG-6747a1b2c3d4e5f60718293a-1700100200-ZxCvBnMaSdFgHjKlQwErTyUiOpZxCvBnMaSdFgHj"
CLIENT_SECRET = "sEcReT9f8e7d6c5b4a39281706f5e4d3c2b1a0ZyXwVuTsRqPoNmLkJiHgFeDcBa98765432"
SECRETS = (ACCESS, REFRESH, CLIENT_SECRET)
GRANT = f'{{"access_token": "{ACCESS[::-1]}", "refresh_token": "{REFRESH[::-1]}", "expires_in": 21600}}'.encode()
NEW = (ACCESS[::-1], REFRESH[::-1])
UNTIL = b"refresh_token="


class Stop(Exception):
    """What no code of ours expects."""


def token(hours: float) -> Token:
    end = datetime.now(UTC) + timedelta(hours=hours)
    return Token(ACCESS, REFRESH, end, end - timedelta(hours=6), "1", None, end - timedelta(days=9))


def stop_at(place: str, times: int = 1) -> Callable[[str], None]:
    left = [times]

    def hook(name: str) -> None:
        if name == place:
            left[0] -= 1
            if left[0] == 0:
                raise Stop

    return hook


@pytest.fixture
def file(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path / "seller.json"
    failpoints.hook = None


PLACES = [
    *(("refresh noted", 1), ("refresh answered", 1), ("refresh saved", 1)),
    *((f"file {step}", times) for step in ("created", "written", "synced", "replaced") for times in (1, 2)),
]


@case("K24")
@pytest.mark.parametrize(("place", "times"), PLACES)
@within(20)
async def test_an_error_at_any_step_of_a_refresh_shows_nothing(file: Path, place: str, times: int) -> None:
    """Of the library's own code or of the system: frames of client, pipeline, oauth, store and files."""
    store = FileTokenStore(file)
    await store.save(token(-1))
    async with server(answering(GRANT), until=UNTIL) as wire:
        source = OAuthToken(1, CLIENT_SECRET, store, wire.base_url)
        options: dict[str, Any] = {"retry": Retry(attempts=1), "limits": Limits(per_second=None), "timeout": 0.5}
        async with client_at(wire.base_url, auth=source, **options) as client:
            failpoints.hook = stop_at(place, times)
            try:
                await client.unread()
            except Exception as error:
                assert_hidden(error, *SECRETS, *NEW)
            failpoints.hook = None


@case("K24")
@pytest.mark.parametrize("answer", [answering(b'{"error": "invalid_grant"}', "400 Bad"), saying(b""), answering(b"x")])
@within(20)
async def test_what_the_endpoint_answers_shows_nothing(answer: Answer) -> None:
    """A refusal, nothing, or what is no JSON; with the access token expired and with one that is still good."""
    for hours in (-1, 1):
        async with server(answer, until=UNTIL) as wire:
            source = OAuthToken(1, CLIENT_SECRET, MemoryStore(token(hours)), wire.base_url)
            options: dict[str, Any] = {"retry": Retry(attempts=1), "limits": Limits(per_second=None)}
            async with client_at(wire.base_url, auth=source, **options) as client:
                with pytest.raises(MessagesError) as refused:
                    await (client.unread() if hours < 0 else source.refresh())
                assert_hidden(refused.value, *SECRETS)


class FailingStore(MemoryStore):
    """A user's store that raises what it likes."""

    async def save(self, token: Token) -> None:
        raise Stop


@case("K24")
@within(20)
async def test_a_store_of_the_users_that_fails_shows_nothing_of_ours() -> None:
    async with server(answering(GRANT), until=UNTIL) as wire:
        source = OAuthToken(1, CLIENT_SECRET, FailingStore(token(-1)), wire.base_url)
        async with client_at(wire.base_url, auth=source) as client:
            with pytest.raises(Stop) as failed:
                await client.unread()
            assert_hidden(failed.value, *SECRETS)


async def hanging(wire_arrived: asyncio.Event) -> Answer:
    async def answer(_: Wire, __: Any) -> None:
        wire_arrived.set()
        await asyncio.Event().wait()

    return answer


@case("K24")
@within(20)
async def test_a_request_that_is_cancelled_shows_nothing() -> None:
    """Frames of aiohttp and yarl too: a GET with its header, and a POST with its form, while the server is silent."""
    arrived = asyncio.Event()
    async with server(await hanging(arrived)) as wire, client_at(wire.base_url, auth=ACCESS) as client:
        asking = asyncio.ensure_future(client.page(PACK))
        await arrived.wait()
        asking.cancel()
        with pytest.raises(asyncio.CancelledError) as cancelled:
            await asking
        assert_hidden(cancelled.value, *SECRETS)
    arrived.clear()
    async with server(await hanging(arrived), until=UNTIL) as wire:
        transport = Transport(wire.base_url, None, 8)
        await transport.open()
        form = grants.refresh_form("1", CLIENT_SECRET, REFRESH)
        posting = asyncio.ensure_future(token_endpoint.request_grant(transport, form))
        await arrived.wait()
        posting.cancel()
        with pytest.raises(asyncio.CancelledError) as cancelled:
            await posting
        await transport.close()
        assert_hidden(cancelled.value, *SECRETS)


@case("K24")
@pytest.mark.parametrize(
    "misuse",
    [
        lambda: StaticToken(ACCESS + " "),
        lambda: MessagesClient(ACCESS + "\n", seller_id=1),
        lambda: MessagesClient(ACCESS, seller_id="x"),
        lambda: MessagesClient(ACCESS, seller_id=1, base_url="ftp://x"),
        lambda: OAuthToken(1, CLIENT_SECRET + " ", MemoryStore(None)),
        lambda: OAuthToken("", CLIENT_SECRET, MemoryStore(None)),
        lambda: OAuthToken(1, CLIENT_SECRET, None),  # type: ignore[arg-type]
        lambda: NotificationRoutes(
            Inbox(MessagesClient("t", seller_id=1), "x"), secret=CLIENT_SECRET, application_id="x"
        ),
        lambda: NotificationApp(
            Inbox(MessagesClient("t", seller_id=1), "x"), secret=CLIENT_SECRET + " ", application_id=1
        ),
        lambda: Fleet(None, 1, CLIENT_SECRET),  # type: ignore[arg-type]
    ],
    ids=range(10),
)
def test_misuse_shows_nothing(misuse: Callable[[], object]) -> None:
    """`ValueError`, and the argument is hidden before anything is raised."""
    with pytest.raises(ValueError) as refused:
        misuse()
    assert_hidden(refused.value, *SECRETS)


@case("K24")
def test_a_token_file_that_is_none_shows_nothing(file: Path) -> None:
    """Of a newer version, say: its tokens are in no frame."""
    asyncio.run(FileTokenStore(file).save(token(1)))
    file.write_bytes(file.read_bytes().replace(b'"version": 1', b'"version": 9'))
    with pytest.raises(MessagesError) as refused:
        asyncio.run(FileTokenStore(file).load())
    assert_hidden(refused.value, *SECRETS)


@case("K24")
@pytest.mark.parametrize("place", ["file created", "file replaced"])
@pytest.mark.parametrize("args", [("auth", "exchange"), ("auth", "refresh"), ("unread",)], ids=" ".join)
def test_an_error_in_a_command_shows_nothing(file: Path, args: tuple[str, ...], place: str) -> None:
    """From the command down to the file: environment, standard input, pending consent, form."""
    sandbox = Sandbox(packs=0, clock=time.monotonic)
    sandbox.oauth.client_secret = CLIENT_SECRET
    with serve_in_thread(sandbox) as served:
        env = {
            "MLMESSAGES_BASE_URL": served.base_url,
            "MLMESSAGES_SELLER_ID": served.seller_id,
            "MLMESSAGES_TOKEN_FILE": str(file),
            "MLMESSAGES_CLIENT_ID": sandbox.oauth.client_id,
            "MLMESSAGES_CLIENT_SECRET": CLIENT_SECRET,
            "MLMESSAGES_REDIRECT_URI": "https://seller.example/callback",
        }
        stopped = 0
        for times in (1, 2, 3):
            sandbox.oauth.refresh_token = REFRESH
            asyncio.run(FileTokenStore(file).save(attrs.evolve(token(-1), user_id=served.seller_id)))
            url = CliRunner().invoke(cli, ["auth", "url"], env=env)
            pasted = sandbox.oauth.consent(url.stdout.strip())
            failpoints.hook = stop_at(place, times)
            result = CliRunner().invoke(cli, list(args), input=pasted + "\n", env=env)
            failpoints.hook = None
            if result.exception is not None:
                stopped += isinstance(result.exception, Stop)
                assert_hidden(result.exception, *SECRETS, pasted.partition("code=")[2])
        assert stopped


def test_the_canaries_sing() -> None:
    """The check finds a secret that a frame holds as a plain text, shortened too, and in an attrs object."""

    @attrs.define
    class Holder:
        text: str

    namespace: dict[str, Any] = {"Holder": Holder, "Stop": Stop}
    code = "def plain(text):\n raise Stop\ndef held(text):\n holder = Holder(text)\n del text\n raise Stop\n"
    exec(compile(code, "elsewhere.py", "exec"), namespace)
    for name in ("plain", "held"):
        try:
            namespace[name](ACCESS)
        except Stop as error:
            with pytest.raises(AssertionError, match="APP_USR"):
                assert_hidden(error, ACCESS)
