"""`mlmessages drain`: killed, interrupted, refused, and nothing lost."""

from __future__ import annotations

import json
import os
import random
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from cases import case
from cli.conftest import (
    KilledAt,
    Serve,
    Slow,
    environment,
    interrupted_by_a_line,
    json_lines,
    mode,
    piped,
    read_until,
    run,
    settings_for,
    started,
)
from mlmessages.journal.sqlite import contents
from mlmessages.testing import DROP, EXECUTE, HANG, Behaviour, Delay, Message, Pack, Reply, Server, on
from needs import needs
from service.programs import until

SMALL = [Pack("11", messages=3), Pack("12", messages=1, status="blocked", substatus="blocked_by_claim"), Pack("13")]


def arguments(folder: Path, *more: str) -> list[str]:
    return ["drain", "--journal", str(folder / "j.db"), "--out", str(folder / "d.jsonl"), *more]


def delivered(lines: list[dict[str, Any]]) -> list[str]:
    return [message["raw"]["id"] for line in lines for message in line["messages"]]


def test_every_unread_conversation_becomes_a_line(serve: Serve, tmp_path: Path):
    """A line has the pack, its status, whether it is a repetition, and each message as it came with its unread flag."""
    thread = [Message("Test question"), Message("Test answer", sender="seller"), Message("Test caf\u00e9 \U0001f600")]
    server = serve([Pack("11", messages=thread, unread=1), SMALL[1]])
    result = run(*arguments(tmp_path), server=server)
    assert (result.exit_code, result.stdout) == (0, "")
    by_pack = {line["pack_id"]: line for line in json_lines(tmp_path / "d.jsonl")}
    assert set(by_pack) == {"11", "12"}
    assert [row["raw"]["text"] for row in by_pack["11"]["messages"]] == [
        "Test question",
        "Test answer",
        "Test caf\u00e9 \U0001f600",
    ]
    assert [row["unread"] for row in by_pack["11"]["messages"]][1:] == [False, True]
    assert by_pack["11"]["redelivered"] is False
    assert by_pack["12"]["status"]["substatus"] == "blocked_by_claim"
    assert "2 conversations, 4 messages written to " in result.stderr
    assert server.sandbox.unread == 0


def test_its_files_are_readable_by_their_owner_alone(serve: Serve, tmp_path: Path):
    """The journal, its lock and the lines are 0600, also where a file was there with other rights."""
    (tmp_path / "d.jsonl").touch(0o644)
    assert run(*arguments(tmp_path), server=serve(2)).exit_code == 0
    assert {path.name: mode(path) for path in tmp_path.iterdir()} == dict.fromkeys(
        ("d.jsonl", "j.db", "j.db.lock"), 0o600
    )


def test_a_second_run_adds_what_is_new(serve: Serve, tmp_path: Path):
    """Run again, it writes what came since, and nothing a second time."""
    server = serve(SMALL)
    assert run(*arguments(tmp_path), server=server).exit_code == 0
    arrived = server.sandbox.send("13")
    assert run(*arguments(tmp_path), server=server).exit_code == 0
    lines = json_lines(tmp_path / "d.jsonl")
    assert len(lines) == 4
    assert delivered(lines[3:]) == [arrived]
    assert not any(line["redelivered"] for line in lines)


def test_killed_anywhere_it_goes_on_and_loses_nothing(serve: Serve, tmp_path: Path):
    """SIGKILL at random moments: in the end every message is in the file, repeated only where the line says so."""
    dice, killing = random.Random(1), KilledAt()
    server = serve(40, messages=2, behaviour=Behaviour(latency=killing))
    for _ in range(5):
        with started(*arguments(tmp_path, "--settle-time", "0.2"), server=server) as process:
            killing.plan(process, dice.randint(2, 9), dice.uniform(0, 0.02))
            process.communicate(timeout=30)
            assert process.returncode < 0
        json_whole = (tmp_path / "d.jsonl").read_bytes().rpartition(b"\n")[0]
        assert server.sandbox.unread > 0
        assert json_whole.count(b"redelivered") == len(json_whole.splitlines())
    result = piped(*arguments(tmp_path, "--settle-time", "0.2"), server=server)
    assert (result.returncode, server.sandbox.unread) == (0, 0)
    lines = json_lines(tmp_path / "d.jsonl")
    assert set(delivered(lines)) == server.sandbox.message_ids()
    seen: set[str] = set()
    for line in lines:
        ids = set(delivered([line]))
        assert line["redelivered"] or not ids & seen
        seen |= ids


@case("K31")
@needs("signals")
def test_after_sigterm_the_next_run_does_not_wait(serve: Serve, tmp_path: Path):
    """As Ctrl-C: what had left is answered and kept, so that no request is of unknown outcome."""
    server = serve(40, behaviour=Behaviour(latency=Slow(0.1)))
    with started(*arguments(tmp_path, "--concurrency", "2"), server=server) as process:
        until(lambda: server.sandbox.count("mark") >= 3)
        process.send_signal(signal.SIGTERM)
        assert process.stderr is not None
        said = process.stderr.read().decode()
        assert process.wait(30) == 130
    assert "run the same command again" in said
    found = json.loads(run("journal", str(tmp_path / "j.db"), "--json").stdout)
    assert found["issued"] == []
    assert found["waiting"] == []


@case("N5")
def test_a_dash_is_no_file(serve: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Misuse: standard output cannot be made durable, and no file called - is made."""
    monkeypatch.chdir(tmp_path)
    server = serve(1)
    result = run("drain", "--journal", "j.db", "--out", "-", server=server)
    assert result.exit_code == 2
    assert "--out must be a file, not -" in result.stderr
    assert list(tmp_path.iterdir()) == []
    assert not server.sandbox.log


def test_a_line_is_on_the_disk_before_it_is_acknowledged(serve: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """At the moment when a line is fsynced, its conversation is not acknowledged yet; each line is fsynced."""
    synced, fsync, out = [], os.fsync, tmp_path / "d.jsonl"

    def watched(fd: int) -> None:
        if lines := json_lines(out):
            synced.append(lines[-1]["pack_id"])
            assert synced[-1] in contents(tmp_path / "j.db").undelivered
        fsync(fd)

    monkeypatch.setattr(os, "fsync", watched)
    assert run(*arguments(tmp_path), server=serve(SMALL)).exit_code == 0
    assert sorted(synced) == ["11", "12", "13"]
    assert contents(tmp_path / "j.db").undelivered == {}


# SIGKILL in the moment between a line that is on the disk and its acknowledgement.
_KILLED_BEFORE_THE_ACK = """
import os, signal, sys
fsync = os.fsync
def fsync_and_die(fd):
    fsync(fd)
    if os.fstat(fd).st_size > 0 and os.path.samestat(os.fstat(fd), os.stat(sys.argv[5])):
        os.kill(os.getpid(), signal.SIGKILL)
os.fsync = fsync_and_die
from mlmessages.cli import main
main()
"""


def test_killed_between_a_line_and_its_acknowledgement_it_repeats_the_line(serve: Serve, tmp_path: Path):
    """What may have been written before is written again, and says so; what was not yet written does not."""
    server = serve(SMALL)
    args = [sys.executable, "-W", "error", "-c", _KILLED_BEFORE_THE_ACK, *arguments(tmp_path, "--concurrency", "1")]
    killed = subprocess.run(args, capture_output=True, timeout=60, check=False, env=environment(**settings_for(server)))
    assert killed.returncode < 0, killed.stderr
    result = run(*arguments(tmp_path, "--settle-time", "0.1"), server=server)
    assert result.exit_code == 0
    lines = json_lines(tmp_path / "d.jsonl")
    assert [line["redelivered"] for line in lines] == [False, True, False, False]
    assert lines[0]["messages"] == lines[1]["messages"]
    assert "(1 of them perhaps for the second time)" in result.stderr


@pytest.mark.parametrize("torn", [b'{"pack_', b'{"pack_id": "11", "redelivered": false, "mess', b"\0" * 5000])
@pytest.mark.parametrize("before", [b"", b'{"pack_id": "9", "redelivered": false, "status": null, "messages": []}\n'])
def test_a_torn_line_is_cut_off(serve: Serve, tmp_path: Path, torn: bytes, before: bytes):
    """What a killed run left of a last line goes; the lines before it stay, and whole ones follow."""
    out = tmp_path / "d.jsonl"
    out.write_bytes(before + torn)
    assert run(*arguments(tmp_path), server=serve(SMALL)).exit_code == 0
    assert out.read_bytes().startswith(before)
    assert len(json_lines(out)) == before.count(b"\n") + 3


def test_a_torn_line_is_cut_off_before_anything_is_delivered(serve: Serve, tmp_path: Path):
    """Also where the run ends in an error at once, no torn line is left."""
    out = tmp_path / "d.jsonl"
    out.write_bytes(b'{"pack_id": "11", "redel')
    server = serve(1, rules=[on("listing").do(Reply(403))])
    assert run(*arguments(tmp_path), server=server).exit_code == 1
    assert out.read_bytes() == b""


@pytest.mark.parametrize(
    "content",
    [
        b"a diary\nwithout an end",
        b"\x89PNG\r\n\x1a\n",
        b'{"pack_id": "11"}\n',
        b'{"pack_id": "11", "redelivered": false, "messages": []}\nmine',
        b'{"pack_id": "11", "status": null, "messages": []}\n',
        b'{"pack_id": "11", "last": true, "unread": false, "raw": null}\n',
    ],
)
def test_a_file_of_something_else_is_left_alone(serve: Serve, tmp_path: Path, content: bytes):
    """A file that `drain` did not write is misuse: not a byte of it changes, and nothing is sent."""
    out, server = tmp_path / "d.jsonl", serve(1)
    out.write_bytes(content)
    result = run(*arguments(tmp_path), server=server)
    assert (result.exit_code, result.stderr.count("\n")) == (2, 1)
    assert "name another file" in result.stderr
    assert out.read_bytes() == content
    assert not server.sandbox.log


def test_places_that_cannot_hold_lines_are_misuse(serve: Serve, tmp_path: Path):
    """A missing folder, a pipe, a symbolic link, one file for both: one line, exit code 2, nothing sent."""
    server = serve(1)
    places = {str(tmp_path / "missing" / "d.jsonl"): "No such file", str(tmp_path / "j.db"): "two files"}
    if os.name == "posix":
        os.mkfifo(tmp_path / "pipe")
        (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
        places |= {str(tmp_path / "pipe"): "not a regular file", str(tmp_path / "link"): "symbolic link"}
    for place, said in places.items():
        result = run("drain", "--journal", str(tmp_path / "j.db"), "--out", place, server=server)
        assert (result.exit_code, result.stderr.count("\n")) == (2, 1), result.stderr
        assert said in result.stderr
    assert not server.sandbox.log
    assert not (tmp_path / "j.db").exists()


@pytest.mark.parametrize("value", ["nan", "-1", "inf", "soon"])
def test_a_settle_time_that_is_none_is_misuse(serve: Serve, tmp_path: Path, value: str):
    """`--settle-time` is a finite number of seconds."""
    result = run(*arguments(tmp_path, f"--settle-time={value}"), server=serve(1))
    assert (result.exit_code, result.stderr.count("\n")) == (2, 1)
    assert re.search("settle.time", result.stderr)


def test_parked_packs_are_named_and_the_rest_is_delivered(serve: Serve, tmp_path: Path):
    """A refused conversation ends in exit code 3 and is named with the reason; the next run says so again."""
    server = serve(SMALL)
    server.sandbox.refuse(["12"])
    for conversations in (2, 0):
        result = run(*arguments(tmp_path), server=server)
        assert (result.exit_code, result.stdout) == (3, "")
        assert re.search(r"^Parked: 12: 403 .+", result.stderr, re.MULTILINE)
        assert f"{conversations} conversations" in result.stderr
        assert "Nothing is left unread" not in result.stderr
    assert {line["pack_id"] for line in json_lines(tmp_path / "d.jsonl")} == {"11", "13"}
    assert server.sandbox.count("mark") == 3


def test_a_wait_for_a_request_that_may_still_arrive_is_told(serve: Serve, tmp_path: Path):
    """After a lost answer it says for how many conversations it waits, how long at most, and to keep the journal."""
    server = serve(SMALL, rules=[on("mark", pack="12", nth=1).do(EXECUTE, DROP)])
    result = piped(*arguments(tmp_path, "--settle-time", "1.5"), server=server)
    said = result.stderr.decode()
    assert re.search(r"^Waiting [12] s at most for 1 conversation: .* Keep the journal", said, re.MULTILINE)
    assert re.search(r" · 1 owed · 1 waiting, [12] s at most$", said, re.MULTILINE)
    assert (result.returncode, len(json_lines(tmp_path / "d.jsonl"))) == (0, 3)


def test_without_a_terminal_it_prints_plain_lines(serve: Serve, tmp_path: Path):
    """In a pipe: lines with conversations, messages, listings, requests, rate, budget and what is owed; no escapes."""
    result = piped(*arguments(tmp_path), server=serve(SMALL))
    lines = result.stderr.decode().splitlines()
    assert re.fullmatch(
        r"3 conversations · 5 messages · 2 listings · 5 requests, \d+ a second · budget 5 of 500 in a minute · 0 owed",
        lines[0],
    )
    assert lines[-1] == "Nothing is left unread."
    assert (result.returncode, result.stdout) == (0, b"")
    assert b"\x1b" not in result.stderr


def interrupt(server: Server, args: list[str], until: str) -> str:
    """Ctrl-C when `until` was said; what stderr says."""
    with interrupted_by_a_line(*args, **settings_for(server)) as process:
        before = read_until(process, until)
        stdout, after = process.communicate("now\n", timeout=30)
    assert (process.returncode, stdout) == (130, "")
    assert "Traceback" not in after
    assert "Warning" not in after
    return before + after


def test_ctrl_c_says_that_nothing_is_lost_and_how_to_go_on(serve: Serve, tmp_path: Path):
    """Ctrl-C in the middle: exit code 130, a line with what was written; what is in flight gets the time to be answered
    and stored, so that the same command finishes without a wait."""
    slow = on("mark").do(EXECUTE, Delay(0.8))
    server = serve(6, rules=[slow])
    said = interrupt(server, arguments(tmp_path, "--concurrency", "1"), " a second")
    pattern = r"^Interrupted: \d+ conversations?, \d+ messages? written .* Nothing is lost: keep the journal"
    assert re.search(pattern, said, re.MULTILINE)
    assert 0 < server.sandbox.unread < 6
    server.sandbox.remove(slow)
    with started(*arguments(tmp_path), server=server) as process:
        _, stderr = process.communicate(timeout=30)
    assert (process.returncode, b"waiting" in stderr) == (0, False)
    assert sorted(delivered(json_lines(tmp_path / "d.jsonl"))) == sorted(server.sandbox.message_ids())


def test_ctrl_c_ends_it_where_an_answer_never_comes(serve: Serve, tmp_path: Path):
    """With a request that hangs, Ctrl-C ends it within seconds; that conversation waits in the journal."""
    server = serve(SMALL, rules=[on("mark", pack="12").do(EXECUTE, HANG)])
    interrupt(server, arguments(tmp_path), "2 conversations")
    result = run("journal", str(tmp_path / "j.db"), "--json")
    assert re.search(r'"waiting": \[\{"pack_id": "12"|"issued": \["12"\]', result.stdout)


def test_a_journal_or_an_output_in_use_is_one_line(serve: Serve, tmp_path: Path):
    """A second drain on the same journal, or on the same file of lines, ends with one line and sends nothing."""
    server = serve(SMALL, rules=[on("mark", pack="12").do(EXECUTE, HANG)])
    with started(*arguments(tmp_path), server=server) as process:
        read_until(process, "2 conversations")
        before = len(server.sandbox.log)
        same_out = ["drain", "--journal", str(tmp_path / "k.db"), "--out", str(tmp_path / "d.jsonl")]
        same_journal = ["drain", "--journal", str(tmp_path / "j.db"), "--out", str(tmp_path / "e.jsonl")]
        for args, said in ((same_out, "being written by another"), (same_journal, "another inbox is using")):
            result = run(*args, server=server)
            assert (result.exit_code, result.stdout) == (1, "")
            assert said in result.stderr.splitlines()[-1]
        assert len(server.sandbox.log) == before


@pytest.mark.parametrize("content", [b"no database, " * 100, b""])
def test_a_journal_that_is_none_is_one_line(serve: Serve, tmp_path: Path, content: bytes):
    """A journal that is another kind of file ends with one line and nothing marked; an empty one is filled."""
    (tmp_path / "j.db").write_bytes(content)
    server = serve(1)
    result = run(*arguments(tmp_path), server=server)
    assert result.exit_code == (1 if content else 0)
    assert server.sandbox.unread == (1 if content else 0)
    assert sum(line.startswith("Error: ") for line in result.stderr.splitlines()) == (1 if content else 0)


def test_a_refused_token_is_one_line(serve: Serve, tmp_path: Path):
    """A 401 ends it with exit code 1, what to do, and not the token."""
    result = run(*arguments(tmp_path), server=serve(1), MLMESSAGES_TOKEN="APP_USR-secret-0001")
    assert result.exit_code == 1
    assert result.stderr.splitlines()[-1].startswith("Error: 401")
    assert "APP_USR-secret" not in result.output
