"""`mlmessages send PACK TEXT`."""

from __future__ import annotations

import signal
import subprocess
from pathlib import Path
from typing import Literal

import pytest
from click.testing import CliRunner

from cases import case
from cli.conftest import PROGRAM, Serve, environment, run, settings_for, started
from mlmessages.cli.app import cli
from mlmessages.testing import DROP, EXECUTE, HANG, Pack, Server, on
from needs import needs
from service.programs import until


def bodies(server: Server) -> list[object]:
    """Return the bodies that were posted."""
    return [entry.body for entry in server.sandbox.log if entry.method == "POST"]


@pytest.mark.parametrize("api", ["marketplace", "domestic"])
def test_a_reply_is_sent(serve: Serve, api: str):
    """The id on stdout, its status on stderr; the conversation shows it, and stays unread."""
    server = serve([Pack(pack_id=7)])
    result = run("send", "7", "Está en camino", server=server, MLMESSAGES_API=api)
    assert result.exit_code == 0
    assert result.stdout.strip() in server.sandbox.message_ids()
    assert result.stderr == "Sent.\n"
    [body] = bodies(server)
    assert isinstance(body, dict)
    assert body["text"] == "Está en camino"
    assert server.sandbox.unread == 1


def test_the_text_may_come_from_standard_input(serve: Serve):
    """`-` reads it; the line end that every program writes is not part of it."""
    server = serve([Pack(pack_id=7)])
    result = CliRunner().invoke(cli, ["send", "7", "-"], input="two\nlines\n", env=settings_for(server))
    assert result.exit_code == 0
    assert bodies(server) == [{"text": "two\nlines"}]


def test_standard_input_that_is_no_text(serve: Serve):
    """One line, exit code 2, and nothing is sent."""
    server = serve([Pack(pack_id=7)])
    done = subprocess.run(
        [*PROGRAM, "send", "7", "-"],
        input=b"\xff\xfe",
        capture_output=True,
        check=False,
        timeout=60,
        env=environment(**settings_for(server)),
    )
    assert (done.returncode, bodies(server)) == (2, [])
    assert len(done.stderr.splitlines()) == 1


def send_bytes(server: Server, data: bytes) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [*PROGRAM, "send", "7", "-"],
        input=data,
        capture_output=True,
        check=False,
        timeout=60,
        env=environment(**settings_for(server), PYTHONUTF8="0", PYTHONIOENCODING="cp1252", LC_ALL="C"),
    )


@case("K36")
@pytest.mark.parametrize(
    "data",
    ["Está en camino\r\n".encode(), "\ufeffEstá en camino".encode(), "\ufeffEstá en camino\r\n".encode("utf-16-le"),
     "\ufeffEstá en camino\n".encode("utf-16-be")],
    ids=["utf-8", "utf-8 with its mark", "utf-16-le", "utf-16-be"],
)  # fmt: skip
def test_the_bytes_of_standard_input_are_read_and_not_its_code_page(serve: Serve, data: bytes):
    """Whatever Python takes the console's encoding for, as on Windows: the buyer gets the letters that were written."""
    server = serve([Pack(pack_id=7)])
    done = send_bytes(server, data)
    assert (done.returncode, bodies(server)) == (0, [{"text": "Está en camino"}])


@case("K36")
def test_a_code_page_is_no_text(serve: Serve):
    """An ANSI code page cannot be told from another: misuse, and nothing is sent."""
    server = serve([Pack(pack_id=7)])
    done = send_bytes(server, "Está en camino".encode("cp1252"))
    assert (done.returncode, bodies(server)) == (2, [])
    assert b"neither UTF-8" in done.stderr


@case("N2")
@needs("signals")
@pytest.mark.parametrize(
    ("kind", "said"),
    [("send", "the message may have been sent. Before you send it again, look at"), ("upload", "nothing was sent.")],
)
def test_ctrl_c_says_whether_it_may_have_been_sent(
    serve: Serve, tmp_path: Path, kind: Literal["send", "upload"], said: str
):
    """While the message is under way it is not known; while a file is, nothing has left that a buyer sees."""
    server = serve([Pack(pack_id=7)], rules=[on(kind).do(HANG)])
    (tmp_path / "a.pdf").write_bytes(b"x")
    with started(
        "send", "7", "Hola", "--attach", str(tmp_path / "a.pdf"), "--site-id", "MLM", server=server
    ) as process:
        until(lambda: server.sandbox.count(kind))
        process.send_signal(signal.SIGINT)
        assert process.stderr is not None
        text = process.stderr.read().decode()
        assert process.wait(30) == 130
    assert said in text
    assert ("mlmessages messages 7" in text) is (kind == "send")


def test_files_and_a_recipient(serve: Serve, tmp_path: Path):
    """Each file is uploaded and sent with the message; `--to` names whom."""
    server = serve([Pack(pack_id=7, buyer_id=9)])
    names = [tmp_path / "a.pdf", tmp_path / "b.png"]
    for name in names:
        name.write_bytes(b"x")
    attach = [arg for name in names for arg in ("--attach", str(name))]
    result = run(
        "send", "7", "Hola", "--to", "9", "--site-id", "MLM", *attach, server=server, MLMESSAGES_API="domestic"
    )
    assert result.exit_code == 0
    body = bodies(server)[-1]
    assert isinstance(body, dict)
    assert body["to"] == {"user_id": "9"}
    assert [Path(file).suffix for file in body["attachments"]] == [".pdf", ".png"]
    assert [entry.kind for entry in server.sandbox.log] == ["upload", "upload", "peek", "send"]


def test_a_rejection_by_moderation_is_a_failure(serve: Serve):
    """Exit code 1 and why: the message reaches no buyer, which a 2xx does not show."""
    result = run("send", "7", "see bit.ly/x", server=serve([Pack(pack_id=7)]))
    assert result.exit_code == 1
    assert "it does not reach the buyer: moderation rejected it (link short url)" in result.stderr
    assert "bit.ly" not in result.output


def test_a_lost_answer_is_looked_for(serve: Serve):
    """Executed: done. Not executed: exit code 1, and it says that it is not known."""
    server = serve([Pack(pack_id=7)], rules=[on("send", nth=1).do(EXECUTE, DROP), on("send", nth=2).do(DROP)])
    assert run("send", "7", "Hola", server=server).exit_code == 0
    result = run("send", "7", "Hola", server=server)
    assert result.exit_code == 1
    assert "may or may not have been sent" in result.stderr
    assert len(bodies(server)) == 2


def test_a_blocked_conversation(serve: Serve):
    """One line with the reason in words, exit code 1, nothing sent."""
    server = serve([Pack(pack_id=7, status="blocked", substatus="blocked_by_buyer")])
    result = run("send", "7", "Hola", server=server)
    assert (result.exit_code, bodies(server)) == (1, [])
    assert "the buyer blocked it" in result.stderr


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["x", "Hola"], "pack_id must be"),
        (["7", ""], "no text"),
        (["7", "x" * 351], "at most 350"),
        (["7", "Hola…"], "U+2026 HORIZONTAL ELLIPSIS"),
        (["7", "Hola", "--to", "me"], "to must be"),
        (["7", "Hola", "--attach", __file__], "--site-id"),
        (["7", "Hola", "--attach", __file__, "--site-id", "CBT"], "site_id must be"),
        (["7", "Hola", "--attach", "missing.pdf"], "does not exist"),
        (["7"], "TEXT"),
    ],
    ids=lambda value: "-".join(value)[:40] if isinstance(value, list) else None,
)
def test_misuse_is_one_line(serve: Serve, args: list[str], said: str):
    """Exit code 2, what is wrong on one line, and no message is sent."""
    server = serve([Pack(pack_id=7)])
    result = run("send", *args, server=server, MLMESSAGES_API="domestic")
    assert (result.exit_code, bodies(server)) == (2, [])
    assert said in result.stderr
    assert len(result.stderr.splitlines()) == 1
