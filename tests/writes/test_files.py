"""`client.upload` and `client.download`: limits, names, errors, and what is left on the disk."""

from __future__ import annotations

import asyncio
import io
import os
import re
import stat
import time
from pathlib import Path
from typing import Any, BinaryIO

import pytest

from cases import case
from mlmessages import MessagesClient
from mlmessages.errors import (
    AnswerLost,
    APIError,
    BadRequest,
    DecodeError,
    RateLimited,
    ServerError,
    Unauthorized,
)
from mlmessages.models import Attachment
from mlmessages.testing import (
    DROP,
    EXECUTE,
    HANG,
    ContentType,
    Gzip,
    Hold,
    Redirect,
    Reply,
    Sandbox,
    Truncate,
    on,
)
from worlds import client_of, on_virtual_clock
from writes.shapes import FIRST, SELLER, executed, payload, posts

FAMILIES = pytest.mark.parametrize("api", ["marketplace", "domestic"])
PREFIX = {"marketplace": "/marketplace", "domestic": ""}
PDF = b"%PDF-1.7\r\n--not a boundary--\r\n\x00\xff" * 999
MOST = 25 * 1024 * 1024
FILE = f"{SELLER}_11111111-2222-3333-4444-555555555555.pdf"


# -- up ----------------------------------------------------------------------------------------------------------------


@FAMILIES
@on_virtual_clock
async def test_an_upload_is_a_form_with_one_file(api: str, tmp_path: Path) -> None:
    """The field `file`, its name and type, with a length, to the family's path; the id comes back and can be sent."""
    path = tmp_path / "invoice.PDF"
    path.write_bytes(PDF)
    sandbox = Sandbox(1)
    async with client_of(sandbox, api=api) as client:
        file = await client.upload(path, site_id="MLM")
        sent = await client.send(FIRST, "Hi", attachments=[file])
        [shown] = (await client.page(FIRST)).messages[0].attachments
    upload = posts(sandbox)[0]
    assert upload.path == f"{PREFIX[api]}/messages/attachments"
    assert dict(upload.query) == {"site_id": "MLM", **({"tag": "post_sale"} if api == "domestic" else {})}
    assert sandbox.content_of(file) == PDF
    assert (shown.filename, shown.original_filename, shown.type, shown.size) == (
        *(file, "invoice.PDF", "application/pdf"),
        len(PDF),
    )
    assert sent.id in sandbox.message_ids()


@on_virtual_clock
async def test_the_documented_answer_of_an_upload() -> None:
    """Its id is returned."""
    sandbox = Sandbox(1, rules=[on("upload").do(Reply(201, payload("attachment_upload_response")))])
    async with client_of(sandbox) as client:
        file = await client.upload(PDF, filename="a.jpg", site_id="MLM")
    assert file == payload("attachment_upload_response")["id"]


@pytest.mark.parametrize("kind", ["path", "text", "bytes", "open", "memory", "empty"])
@on_virtual_clock
async def test_a_file_is_a_path_bytes_or_a_binary_file(kind: str, tmp_path: Path) -> None:
    """A file that is open is read from where it stands, and stays open; it can be read to its end in one go."""
    path = tmp_path / "a.pdf"
    path.write_bytes(PDF)
    sandbox = Sandbox(1)
    with path.open("rb") as opened:
        opened.seek(10)
        files: dict[str, tuple[Any, bytes]] = {
            "path": (path, PDF),
            "text": (str(path), PDF),
            "bytes": (PDF, PDF),
            "open": (opened, PDF[10:]),
            "memory": (io.BytesIO(PDF), PDF),
            "empty": (b"", b""),
        }
        file, content = files[kind]
        async with client_of(sandbox) as client:
            uploaded = await client.upload(file, filename="a.pdf", site_id="MLM")
        assert sandbox.content_of(uploaded) == content
        assert not opened.closed


@pytest.mark.parametrize(
    "name",
    ["a.pdf", 'a "quoted".pdf', "ñandú 中.pdf", "a; filename=x.pdf", "a%22b.txt", "x" * 196 + ".png", ".pdf.pdf"],
    ids=ascii,
)
@on_virtual_clock
async def test_names_arrive_as_they_are(name: str) -> None:
    """Quotes, semicolons and other scripts in a name do nothing to the form."""
    sandbox = Sandbox(1)
    async with client_of(sandbox, api="domestic") as client:
        file = await client.upload(PDF, filename=name, site_id="MLM")
        await client.send(FIRST, "Hi", attachments=[file])
        [shown] = (await client.page(FIRST)).messages[0].attachments
    assert shown.original_filename == name.replace("%22", '"')
    assert sandbox.content_of(file) == PDF


class HalfAFile:
    """It cannot say whether it can seek."""

    def read(self, _: int = -1) -> bytes:
        return b""

    seek = tell = read


WRONG: dict[str, dict[str, Any]] = {
    "no name": {"filename": None},
    "an empty name": {"filename": ""},
    "a path": {"filename": "a/b.pdf"},
    "a path of Windows": {"filename": "a\\b.pdf"},
    "dots": {"filename": ".."},
    "a line break": {"filename": "a\r\nb.pdf"},
    "NUL": {"filename": "a\0.pdf"},
    "right to left": {"filename": "a\u202efdp.exe.pdf"},
    "half a character": {"filename": "\ud800.pdf"},
    "201 characters": {"filename": "x" * 197 + ".pdf"},
    "no text for a name": {"filename": 5},
    "CBT": {"site_id": "CBT"},
    "no site": {"site_id": ""},
    "none": {"site_id": None},
    "lower case": {"site_id": "mlm"},
    "more than a site": {"site_id": "MLM&x=1"},
    "a line end": {"site_id": "MLM\n"},
    "text": {"file": io.StringIO("x"), "filename": "a.txt"},
    "a number": {"file": 5, "filename": "a.txt"},
    "half a file": {"file": HalfAFile(), "filename": "a.txt"},
    "25 MB and one byte": {"file": bytes(MOST + 1)},
}


@pytest.mark.parametrize("wrong", WRONG.values(), ids=WRONG)
@FAMILIES
@on_virtual_clock
async def test_wrong_uploads_are_refused_before_anything_is_sent(api: str, wrong: dict[str, Any]) -> None:
    """The documented limits and what would break a form: a `ValueError`."""
    sandbox = Sandbox(1)
    async with client_of(sandbox, api=api) as client:
        with pytest.raises(ValueError):
            await client.upload(**{"file": PDF, "filename": "a.pdf", "site_id": "MLM", **wrong})
    assert sandbox.log == []


@pytest.mark.parametrize(
    ("name", "domestic", "content_type"),
    [
        ("a.jpg", True, "image/jpeg"),
        ("a.JPEG", True, "image/jpeg"),
        ("a.png", True, "image/png"),
        ("a.pdf", True, "application/pdf"),
        ("a.txt", True, "text/plain"),
        ("a.heic", False, "image/heic"),
        ("a.xml", False, "application/xml"),
        ("a.xls", False, "application/vnd.ms-excel"),
        ("a.zip", False, "application/octet-stream"),
        ("a", False, "application/octet-stream"),
    ],
)
@on_virtual_clock
async def test_the_types_of_each_family(name: str, domestic: bool, content_type: str) -> None:
    """Domestic sites document four types, and others are refused before anything is sent; Global Selling has more."""
    sandbox = Sandbox(1)
    async with client_of(sandbox) as client:
        file = await client.upload(PDF, filename=name, site_id="MLB")
        await client.send(FIRST, "Hi", attachments=[file])
        assert (await client.page(FIRST)).messages[0].attachments[0].type == content_type
    async with client_of(sandbox, api="domestic") as client:
        if domestic:
            await client.upload(PDF, filename=name, site_id="MLB")
        else:
            with pytest.raises(ValueError, match=r"\.jpg.*\.png.*\.pdf.*\.txt.*check_type=False"):
                await client.upload(PDF, filename=name, site_id="MLB")


@case("N7")
@pytest.mark.parametrize("name", ["a.xml", "a.heic", "a.jfif", "a.pdf"])
@on_virtual_clock
async def test_a_type_that_is_not_documented_can_be_sent_all_the_same(name: str) -> None:
    """`check_type=False` leaves it to the server of a domestic site."""
    sandbox = Sandbox(1, rules=[on("upload").do(Reply(201, {"id": "700100200_7d3f"}))])
    async with client_of(sandbox, api="domestic") as client:
        assert await client.upload(PDF, filename=name, site_id="MLB", check_type=False) == "700100200_7d3f"
        with pytest.raises(ValueError, match="check_type must be True or False"):
            await client.upload(PDF, filename=name, site_id="MLB", check_type=None)  # type: ignore[arg-type]
    assert len(posts(sandbox)) == 1


@on_virtual_clock
async def test_what_is_no_regular_file_is_refused(tmp_path: Path) -> None:
    """A missing file is a `FileNotFoundError`; a directory, or a pipe without a writer, a `ValueError` at once."""
    sandbox = Sandbox(1)
    async with client_of(sandbox) as client:
        with pytest.raises(FileNotFoundError):
            await client.upload(tmp_path / "a.pdf", site_id="MLM")
        with pytest.raises(ValueError, match="regular"):
            await client.upload(tmp_path, filename="a.pdf", site_id="MLM")
        if hasattr(os, "mkfifo"):
            os.mkfifo(tmp_path / "pipe.pdf")
            with pytest.raises(ValueError, match="regular"):
                await client.upload(tmp_path / "pipe.pdf", site_id="MLM")
    assert sandbox.log == []


@pytest.mark.parametrize("status", [401, 429])
@on_virtual_clock
async def test_an_upload_that_was_refused_for_the_moment_is_sent_whole_again(status: int) -> None:
    """From its first byte."""
    sandbox = Sandbox(1, rules=[on("upload", nth=1).do(Reply(status))])

    class Vault:
        async def token(self) -> str:
            return sandbox.token

        async def rejected(self, token: str) -> None:
            sandbox.rotate_token("APP_USR-new")

    async with client_of(sandbox, auth=Vault()) as client:
        file = await client.upload(io.BytesIO(PDF), filename="a.pdf", site_id="MLM")
    assert sandbox.content_of(file) == PDF
    assert (len(posts(sandbox)), executed(sandbox)) == (2, 1)


@pytest.mark.parametrize("ending", [DROP, HANG, Reply(503)], ids=repr)
@on_virtual_clock
async def test_an_upload_of_unknown_outcome_is_not_repeated(ending: Any) -> None:
    """One POST; where nothing was answered the error says that it may be uploaded again."""
    sandbox = Sandbox(1, rules=[on("upload").do(EXECUTE, ending)])
    async with client_of(sandbox) as client:
        with pytest.raises((AnswerLost, ServerError)) as lost:
            await client.upload(PDF, filename="a.pdf", site_id="MLM")
    assert len(posts(sandbox)) == 1
    assert isinstance(lost.value, ServerError) or "48 hours" in (lost.value.hint or "")


@pytest.mark.parametrize("body", [b"", b"[]", {"id": None}, {"id": "../x"}, {"id": 5}, {"file": "a"}], ids=repr)
@on_virtual_clock
async def test_an_answer_without_an_id_is_told(body: object) -> None:
    """`DecodeError`: an id that is none is not handed on."""
    sandbox = Sandbox(1, rules=[on("upload").do(Reply(201, body))])
    async with client_of(sandbox) as client:
        with pytest.raises(DecodeError):
            await client.upload(PDF, filename="a.pdf", site_id="MLM")


class Shrinking(io.BytesIO):
    """A file that another program makes shorter while it is read."""

    def read(self, size: int | None = -1, /) -> bytes:
        self.truncate(5)
        return super().read(size)


class Failing(io.BytesIO):
    """A file on a disk that fails."""

    def read(self, size: int | None = -1, /) -> bytes:
        raise OSError(5, "Input/output error")


@pytest.mark.parametrize(("file", "words"), [(Shrinking(PDF), "shorter"), (Failing(PDF), "Input/output")], ids=type)
async def test_a_file_that_fails_while_it_is_read(file: BinaryIO, words: str) -> None:
    """The file's own error, not one about the network; the server gets half a form."""
    sandbox = Sandbox(1)
    async with sandbox.serve() as server, asyncio.timeout(10):
        async with MessagesClient(server.token, seller_id=server.seller_id, base_url=server.base_url) as client:
            with pytest.raises(OSError, match=words):
                await client.upload(file, filename="a.pdf", site_id="MLM")
    assert executed(sandbox) == 0


@on_virtual_clock
async def test_an_upload_that_is_never_sent_is_deleted() -> None:
    """After 48 hours its id is refused (422), and the error says what to do."""
    sandbox = Sandbox(1)
    async with client_of(sandbox) as client:
        file = await client.upload(PDF, filename="a.pdf", site_id="MLM")
        await asyncio.sleep(48 * 3600 + 1)
        with pytest.raises(APIError) as refused:
            await client.send(FIRST, "Hi", attachments=[file])
    assert refused.value.status == 422
    assert "upload the file again" in (refused.value.hint or "")


# -- down --------------------------------------------------------------------------------------------------------------


def with_file(content: bytes = PDF, **options: Any) -> tuple[Sandbox, str]:
    sandbox = Sandbox(1, **options)
    return sandbox, sandbox.add_file(content)


@FAMILIES
@on_virtual_clock
async def test_a_download_is_the_file(api: str, tmp_path: Path) -> None:
    """By the attachment of a message, to the name that the caller gives; its owner alone can read it, and nothing else
    is left in the directory.
    """
    sandbox, file = with_file()
    shown = {"filename": file, "original_filename": "../../evil", "potential_security_threat": False}
    sandbox.send(FIRST, "Look", message_attachments=[shown])
    async with client_of(sandbox, api=api) as client:
        message = (await client.page(FIRST)).messages[0]
        saved = await client.download(message.attachments[0], tmp_path / "saved.pdf", site_id=message.site_id)
    assert saved == tmp_path / "saved.pdf"
    assert list(tmp_path.iterdir()) == [saved]
    assert saved.read_bytes() == PDF
    if os.name == "posix":
        assert stat.S_IMODE(saved.stat().st_mode) == 0o600
    entry = sandbox.log[-1]
    assert entry.path == f"{PREFIX[api]}/messages/attachments/{file}"
    assert dict(entry.query) == {"tag": "post_sale", "site_id": "MLM"}


@pytest.mark.parametrize("content", [b"", b"x", bytes(10**6)], ids=["nothing", "one byte", "1 MB"])
@on_virtual_clock
async def test_a_file_of_any_size(content: bytes, tmp_path: Path) -> None:
    """By its id; `destination` may be a string."""
    sandbox, file = with_file(content)
    async with client_of(sandbox) as client:
        saved = await client.download(file, str(tmp_path / "a"), site_id="MLM")
    assert saved.read_bytes() == content


@on_virtual_clock
async def test_without_a_site_it_is_not_sent_with_one() -> None:
    """A domestic site may do without; Global Selling's refusal names the parameter, and what to pass."""
    sandbox, file = with_file()
    async with client_of(sandbox) as client:
        with pytest.raises(BadRequest, match="site_id") as refused:
            await client.download(file, Path("never"))
    assert "a message's `site_id`" in (refused.value.hint or "")
    assert "site_id" not in sandbox.log[0].query
    assert not Path("never").exists()


@pytest.mark.parametrize("kind", ["file", "directory", "dangling link", "link"])
@on_virtual_clock
async def test_what_exists_is_not_touched(kind: str, tmp_path: Path) -> None:
    """`FileExistsError` before anything is sent; a link is not followed, wherever it leads."""
    target, other = tmp_path / "target", tmp_path / "other"
    other.write_text("precious")
    if kind == "file":
        target.write_text("precious")
    elif kind == "directory":
        target.mkdir()
    else:
        target.symlink_to(other if kind == "link" else tmp_path / "nowhere")
    before = sorted(tmp_path.iterdir())
    sandbox, file = with_file()
    async with client_of(sandbox) as client:
        with pytest.raises(FileExistsError):
            await client.download(file, target, site_id="MLM")
    assert sandbox.log == []
    assert sorted(tmp_path.iterdir()) == before
    assert other.read_text() == "precious"


@on_virtual_clock
async def test_what_appears_meanwhile_is_not_touched_either(tmp_path: Path) -> None:
    """Another program takes the name while the file comes: `FileExistsError`, theirs stays, and nothing of ours is left."""
    sandbox, file = with_file(rules=[on("download").do(Hold("gate"), EXECUTE)])
    async with client_of(sandbox) as client:
        task = asyncio.ensure_future(client.download(file, tmp_path / "a", site_id="MLM"))
        await asyncio.sleep(1)
        (tmp_path / "a").write_text("precious")
        sandbox.release("gate")
        with pytest.raises(FileExistsError):
            await task
    assert [path.name for path in tmp_path.iterdir()] == ["a"]
    assert (tmp_path / "a").read_text() == "precious"


@on_virtual_clock
async def test_a_file_system_without_hard_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file is renamed, where that replaces nothing; what exists is not touched there either."""

    def no_links(*_: object, **__: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", no_links)
    sandbox, file = with_file()
    async with client_of(sandbox) as client:
        saved = await client.download(file, tmp_path / "a", site_id="MLM")
        assert saved.read_bytes() == PDF
        sandbox.add(on("download").do(Hold("gate"), EXECUTE))
        task = asyncio.ensure_future(client.download(file, tmp_path / "b", site_id="MLM"))
        await asyncio.sleep(1)
        (tmp_path / "b").write_text("precious")
        sandbox.release("gate")
        with pytest.raises(FileExistsError):
            await task
    assert (tmp_path / "b").read_text() == "precious"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b"]


@on_virtual_clock
async def test_a_directory_that_is_not_there(tmp_path: Path) -> None:
    """`FileNotFoundError`, before anything is sent."""
    sandbox, file = with_file()
    async with client_of(sandbox) as client:
        with pytest.raises(FileNotFoundError):
            await client.download(file, tmp_path / "missing" / "a", site_id="MLM")
    assert sandbox.log == []


@on_virtual_clock
async def test_a_threat_is_refused_unless_asked_for(tmp_path: Path) -> None:
    """The server's flag is a `ValueError` before anything is sent; `allow_threat=True` downloads the file."""
    sandbox, file = with_file()
    threat = Attachment(file, potential_security_threat=True)
    async with client_of(sandbox) as client:
        with pytest.raises(ValueError, match="dangerous"):
            await client.download(threat, tmp_path / "a", site_id="MLM")
        assert sandbox.log == []
        assert list(tmp_path.iterdir()) == []
        await client.download(threat, tmp_path / "a", site_id="MLM", allow_threat=True)
        await client.download(Attachment(file), tmp_path / "b", site_id="MLM")
        with pytest.raises(ValueError, match="allow_threat must be"):
            await client.download(threat, tmp_path / "c", site_id="MLM", allow_threat="no")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "attachment",
    ["", ".", "..", "../a", "a/b", "a\\b", "a..b", "-a", "a?x=1", "a#b", "a%2eb", "é", "a b", "a\n", "x" * 257, None, 5]
    + [Attachment(None, "original.pdf"), Attachment("../a")],
    ids=repr,
)
@on_virtual_clock
async def test_hostile_ids_never_touch_a_url(attachment: Any, tmp_path: Path) -> None:
    """A `ValueError`; `original_filename` is never used."""
    sandbox = Sandbox(1)
    async with client_of(sandbox) as client:
        with pytest.raises(ValueError):
            await client.download(attachment, tmp_path / "a", site_id="MLM")
    assert sandbox.log == []


@pytest.mark.parametrize("site", ["", "CBT", "mlm", "MLMX", "ML", "M1M", "MLM\n", 5, "ＭLM"])
@on_virtual_clock
async def test_site_ids_are_checked_before_anything_is_sent(site: Any, tmp_path: Path) -> None:
    """`M` and two more capital letters; neither `CBT` nor an empty text, which Global Selling refuses."""
    sandbox = Sandbox(1)
    async with client_of(sandbox) as client:
        with pytest.raises(ValueError, match="site_id"):
            await client.download(FILE, tmp_path / "a", site_id=site)
    assert sandbox.log == []


REFUSALS: dict[str, tuple[Any, type[Exception], int]] = {
    "gone": (Reply(500, payload("error_500_attachment_error_null")), ServerError, 6),
    "a wrong site": (Reply(400, {"message": "Invalid site_id: 'MXX' is not a recognized site"}), BadRequest, 1),
    "401": (Reply(401, payload("error_401_invalid_token")), Unauthorized, 1),
    "429": (Reply(429, payload("error_429_minimal"), {"Retry-After": "9999"}), RateLimited, 1),
    "an error under a 200": (Reply(200, payload("error_500_attachment_error_null")), DecodeError, 6),
    "a redirect": (Redirect("https://elsewhere.invalid/"), APIError, 1),
    "a gzip bomb": (Gzip(30_000_000), DecodeError, 1),
    "cut off": (Truncate(1000), AnswerLost, 6),
    "dropped": (DROP, AnswerLost, 6),
    "not even json": (ContentType("application/problem+json"), DecodeError, 6),
}


@pytest.mark.parametrize(("ending", "error", "requests"), REFUSALS.values(), ids=REFUSALS)
@FAMILIES
@on_virtual_clock
async def test_an_error_never_becomes_a_file(
    api: str, ending: Any, error: type[Exception], requests: int, tmp_path: Path
) -> None:
    """JSON on the binary path, a bomb, half a file: the right error, and nothing is left in the directory."""
    sandbox, file = with_file(rules=[on("download").do(EXECUTE, ending)])
    async with client_of(sandbox, api=api) as client:
        with pytest.raises(error):
            await client.download(file, tmp_path / "a", site_id="MLM")
    assert list(tmp_path.iterdir()) == []
    assert len(sandbox.log) == requests


@case("T7")
@on_virtual_clock
async def test_what_a_killed_download_left_is_removed(tmp_path: Path) -> None:
    """The temporary file of the same destination, ten minutes old; not a younger one, and no other file."""
    sandbox, file = with_file()
    for name, age in ((".a.1.tmp", 700), (".a.2.tmp", 10), (".b.3.tmp", 700), ("a.tmp", 700)):
        (tmp_path / name).touch()
        os.utime(tmp_path / name, (time.time() - age,) * 2)
    async with client_of(sandbox) as client:
        await client.download(file, tmp_path / "a", site_id="MLM")
    assert sorted(path.name for path in tmp_path.iterdir()) == [".a.2.tmp", ".b.3.tmp", "a", "a.tmp"]


@pytest.mark.parametrize("ending", [Truncate(20_000), DROP, Reply(503), Reply(429)], ids=repr)
@on_virtual_clock
async def test_a_download_that_breaks_off_begins_again(ending: Any, tmp_path: Path) -> None:
    """Reading changes nothing: it is asked for again, and the file has each byte once."""
    sandbox, file = with_file(rules=[on("download", times=2).do(EXECUTE, ending)])
    async with client_of(sandbox) as client:
        saved = await client.download(file, tmp_path / "a", site_id="MLM")
    assert saved.read_bytes() == PDF
    assert len(sandbox.log) == 3


@pytest.mark.parametrize("after", [0.5, 1.5])
@on_virtual_clock
async def test_cancelling_leaves_nothing_behind(after: float, tmp_path: Path) -> None:
    """No temporary file, and the client goes on."""
    sandbox, file = with_file(rules=[on("download", nth=1).do(Hold("gate"), EXECUTE)])
    async with client_of(sandbox) as client:
        task = asyncio.ensure_future(client.download(file, tmp_path / "a", site_id="MLM"))
        await asyncio.sleep(after)
        assert len(list(tmp_path.iterdir())) == 1
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert list(tmp_path.iterdir()) == []
        await client.download(file, tmp_path / "a", site_id="MLM")


@on_virtual_clock
async def test_the_temporary_file_is_hidden_and_not_guessable(tmp_path: Path) -> None:
    """Its name is not the destination's, and its owner alone can read it."""
    sandbox, file = with_file(rules=[on("download").do(Hold("gate"), EXECUTE)])
    async with client_of(sandbox) as client:
        task = asyncio.ensure_future(client.download(file, tmp_path / "a", site_id="MLM"))
        await asyncio.sleep(1)
        [part] = tmp_path.iterdir()
        assert re.fullmatch(r"\.a\.[0-9a-f]{16}\.tmp", part.name)
        if os.name == "posix":
            assert stat.S_IMODE(part.stat().st_mode) == 0o600
        sandbox.release("gate")
        await task
