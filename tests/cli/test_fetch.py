"""`mlmessages fetch`: bulk reading that goes on wherever it ended."""

from __future__ import annotations

import json
import os
import random
import re
import signal
import socket
import subprocess
import sys
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import pytest

from cases import case
from cli.conftest import (
    PROGRAM,
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
    unmeasured,
)
from mlmessages import Retry
from mlmessages.testing import HANG, Behaviour, Message, Pack, Reply, Sandbox, on
from needs import needs


def write_ids(folder: Path, ids: Iterable[str]) -> Path:
    file = folder / "packs.txt"
    file.write_text("".join(f"{pack_id}\n" for pack_id in ids))
    return file


def arguments(folder: Path, *more: str) -> list[str]:
    return ["fetch", "--packs", str(folder / "packs.txt"), "--out", str(folder / "o.jsonl"), *more]


def asked(sandbox: Sandbox) -> Counter[str]:
    """How often each pack was asked for."""
    return Counter(str(entry.pack_id) for entry in sandbox.log if entry.kind in {"peek", "mark"})


def test_a_line_a_conversation(serve: Serve, tmp_path: Path):
    """Each conversation is a line: pack, status, messages oldest first with their unread flags; it stays unread."""
    thread = [Message("Test one", read=True), Message("Test two", sender="seller"), Message("Test tr\u00eas")]
    server = serve([Pack("11", messages=thread, unread=1, status="blocked", substatus="blocked_by_claim"), Pack("12")])
    write_ids(tmp_path, ["11", "12"])
    result = run(*arguments(tmp_path), server=server)
    assert (result.exit_code, result.stdout) == (0, "")
    lines = {line["pack_id"]: line for line in json_lines(tmp_path / "o.jsonl")}
    assert set(lines) == {"11", "12"}
    assert lines["11"]["status"]["substatus"] == "blocked_by_claim"
    texts = [(row["raw"]["text"], row["unread"]) for row in lines["11"]["messages"]]
    assert texts == [("Test one", False), ("Test two", False), ("Test tr\u00eas", True)]
    assert mode(tmp_path / "o.jsonl") == 0o600
    assert "2 of 2 conversations in " in result.stderr
    assert (server.sandbox.unread, server.sandbox.count("mark")) == (2, 0)


def test_mark_as_read_marks(serve: Serve, tmp_path: Path):
    """With `--mark-as-read` nothing of what was fetched is unread any more; the lines still say what was."""
    server = serve(3)
    write_ids(tmp_path, server.sandbox.pack_ids()[:2])
    assert run(*arguments(tmp_path, "--mark-as-read"), server=server).exit_code == 0
    assert (server.sandbox.unread, server.sandbox.count("mark")) == (1, 2)
    assert all(line["messages"][0]["unread"] for line in json_lines(tmp_path / "o.jsonl"))


def test_a_line_a_message(serve: Serve, tmp_path: Path):
    """With `--messages` each message is a line, and only the last one of a conversation says that it is."""
    server = serve([Pack("11", messages=120), Pack("12", messages=0), Pack("13", messages=1)])
    write_ids(tmp_path, ["11", "12", "13"])
    assert run(*arguments(tmp_path, "--messages"), server=server).exit_code == 0
    lines = json_lines(tmp_path / "o.jsonl")
    assert Counter(line["pack_id"] for line in lines) == {"11": 120, "12": 1, "13": 1}
    assert [line["last"] for line in lines if line["pack_id"] == "11"] == [False] * 119 + [True]
    assert {line["raw"]["id"] for line in lines if line["raw"]} == server.sandbox.message_ids()
    [empty] = [line for line in lines if line["pack_id"] == "12"]
    assert empty == {"pack_id": "12", "last": True, "seller_id": server.seller_id, "unread": False, "raw": None}


@pytest.mark.parametrize("options", [[], ["--messages"]])
def test_killed_anywhere_it_goes_on(serve: Serve, tmp_path: Path, options: list[str]):
    """SIGKILL at random moments, and the file cut at random bytes: in the end each message is there exactly once, and
    no pack that was in the file whole was asked for again."""
    dice, killing = random.Random(len(options)), KilledAt()
    server = serve(40, messages=3, behaviour=Behaviour(latency=killing))
    write_ids(tmp_path, server.sandbox.pack_ids())
    args, out = arguments(tmp_path, *options), tmp_path / "o.jsonl"
    lost = 0
    for _ in range(3):
        with started(*args, server=server) as process:
            killing.plan(process, dice.randint(2, 13), dice.uniform(0, 0.02))
            process.communicate(timeout=30)
            assert process.returncode < 0
        size = max(out.stat().st_size - dice.randint(0, 1500), 0)  # as after a power failure
        lost += out.read_bytes()[size:].count(b'"pack_id": ') + 1
        os.truncate(out, size)
    result = piped(*args, server=server)
    assert (result.returncode, result.stdout) == (0, b"")
    lines = json_lines(out)
    messages = [row["raw"]["id"] for line in lines for row in line.get("messages", [line])]
    assert sorted(messages) == sorted(server.sandbox.message_ids())
    again = asked(server.sandbox).total() - 40
    assert again <= lost + 3 * 8  # what was cut off, and what was in flight
    assert {*asked(server.sandbox)} == {*server.sandbox.pack_ids()}


@pytest.mark.parametrize("option", ["--out", "--failed"])
def test_a_file_is_no_dash(serve: Serve, tmp_path: Path, option: str, monkeypatch: pytest.MonkeyPatch):
    """`-` is standard input for the ids; where lines go to be found again it is misuse, and no file of that name."""
    server = serve(1)
    monkeypatch.chdir(tmp_path)
    write_ids(tmp_path, server.sandbox.pack_ids())
    result = run(*arguments(tmp_path), option, "-", server=server)
    assert (result.exit_code, server.sandbox.log) == (2, [])
    assert "must be files, not -" in result.stderr
    assert not (tmp_path / "-").exists()


def test_eight_that_wait_for_the_same_thing_say_so_once(serve: Serve, tmp_path: Path):
    """Every connection is refused: each round of retries is one line, which names server and reason."""
    server = serve(20)
    write_ids(tmp_path, server.sandbox.pack_ids())
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        where = f"127.0.0.1:{closed.getsockname()[1]}"
        with started(*arguments(tmp_path, "--base-url", f"http://{where}"), server=server) as process:
            said = read_until(process, "retry 3 ")
    assert [said.count(f"retry {n} in ") for n in (1, 2, 3)] == [1, 1, 1]
    assert said.count(f"after NotSent: no connection to {where}: refused") == 3


def test_what_is_done_is_not_asked_for_again(serve: Serve, tmp_path: Path):
    """Run again, it sends nothing, needs no token, and says so."""
    server = serve(5)
    write_ids(tmp_path, server.sandbox.pack_ids())
    assert run(*arguments(tmp_path), server=server).exit_code == 0
    before = (tmp_path / "o.jsonl").read_bytes()
    result = run(*arguments(tmp_path), server=server, MLMESSAGES_TOKEN="")
    assert result.exit_code == 0
    assert "5 of 5 conversations in " in result.stderr
    assert "5 of them from before" in result.stderr
    assert (tmp_path / "o.jsonl").read_bytes() == before
    assert len(server.sandbox.log) == 5


@pytest.mark.parametrize(
    "end",
    [b'{"pack_id": "12", "last": false, "unread": true, "raw": {}}\n', b'{"pack_id": "12", "last": tr', b"\0" * 9],
)
def test_a_conversation_without_its_last_line_is_read_again(serve: Serve, tmp_path: Path, end: bytes):
    """With `--messages`, lines of a conversation that was not written to its end are cut off, and it is asked again."""
    server = serve([Pack("11"), Pack("12", messages=2)])
    write_ids(tmp_path, ["11", "12"])
    whole = b'{"pack_id": "11", "last": true, "unread": true, "raw": {"id": "kept"}}\n'
    (tmp_path / "o.jsonl").write_bytes(whole + end)
    assert run(*arguments(tmp_path, "--messages"), server=server).exit_code == 0
    assert (tmp_path / "o.jsonl").read_bytes().startswith(whole)
    assert [line["pack_id"] for line in json_lines(tmp_path / "o.jsonl")] == ["11", "12", "12"]
    assert asked(server.sandbox) == {"12": 1}


@pytest.mark.parametrize(
    ("content", "options"),
    [
        (b"a diary\n", []),
        (b"\x00\x01binary", []),
        (b'{"pack_id": "11", "last": true, "unread": false, "raw": null}\n', []),
        (b'{"pack_id": "11", "status": null, "messages": []}\n', ["--messages"]),
        (b'{"pack_id": "11", "redelivered": false, "status": null, "messages": []}\n', []),
        (b'{"pack_id": "11", "status": null, "messages": []}\na diary\n', []),
        (b'{"pack_id": "11", "status": null, "messages": []}\na diary', []),
    ],
)
def test_a_file_of_something_else_is_left_alone(serve: Serve, tmp_path: Path, content: bytes, options: list[str]):
    """A file of another command, of the other kind of line, or of another program: misuse, and no byte of it changes."""
    server = serve(1)
    write_ids(tmp_path, ["11"])
    for option, name in (("--out", "o.jsonl"), ("--failed", "f.jsonl")):
        (tmp_path / name).write_bytes(content)
        args = arguments(tmp_path, *options) if option == "--out" else arguments(tmp_path, option, str(tmp_path / name))
        result = run(*args, server=server)
        assert (result.exit_code, result.stderr.count("\n")) == (2, 1)
        assert name in result.stderr
        assert (tmp_path / name).read_bytes() == content
        (tmp_path / "o.jsonl").unlink()
    assert not server.sandbox.log


def test_packs_that_fail_are_listed_and_tried_again(serve: Serve, tmp_path: Path):
    """`--failed` has a line with the reason for each; exit code 3; the next run tries them again and empties the file."""
    server = serve([Pack("11"), Pack("12"), Pack("13")])
    refusal, failed = server.sandbox.refuse(["12", "13"]), tmp_path / "f.jsonl"
    write_ids(tmp_path, ["11", "12", "13"])
    for _ in range(2):
        result = run(*arguments(tmp_path, "--failed", str(failed)), server=server)
        assert (result.exit_code, result.stdout) == (3, "")
        assert "1 of 3 conversations in " in result.stderr
        assert "2 failed." in result.stderr
        lines = json_lines(failed)
        assert {(line["pack_id"], line["error"], line["status"]) for line in lines} == {
            ("12", "Forbidden", 403),
            ("13", "Forbidden", 403),
        }
        assert all(line["reason"].startswith("403 ") for line in lines)
        assert mode(failed) == 0o600
    server.sandbox.remove(refusal)
    assert run(*arguments(tmp_path, "--failed", str(failed)), server=server).exit_code == 0
    assert failed.read_bytes() == b""
    assert asked(server.sandbox) == {"11": 1, "12": 3, "13": 3}


def test_without_a_file_for_them_failures_are_named(serve: Serve, tmp_path: Path):
    """The first fifty packs that failed are named on stderr with their reasons, and how many more there are."""
    server = serve(60)
    server.sandbox.refuse(server.sandbox.pack_ids()[:53])
    write_ids(tmp_path, server.sandbox.pack_ids())
    result = run(*arguments(tmp_path), server=server)
    assert result.exit_code == 3
    assert len(re.findall(r"^Failed: 20\d{14}: 403 ", result.stderr, re.MULTILINE)) == 50
    assert "Failed: 3 more, see --failed FILE.jsonl" in result.stderr


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("11\n\n# one\n12x\n", "line 4 of packs.txt is no pack id: '12x'"),
        ("pack_id\n11\n", "line 1 of packs.txt is no pack id: 'pack_id'"),
        ("11\n12 13\n", "line 2 of packs.txt"),
        ("11\n\u0661\n", "line 2 of packs.txt"),
        ("11\n\x1b[2J\n", r"line 2 of packs.txt is no pack id: '\x1b[2J'"),
        ("1" * 21 + "\n", "line 1 of packs.txt"),
        ("11\n" + "1" * 200_000, "line 2 of packs.txt"),
        ("../oauth/token\n", "line 1 of packs.txt"),
        ("11\n#" + "x" * 200_000, "line 2 of packs.txt"),
    ],
)
def test_a_wrong_id_is_named_with_its_line(
    serve: Serve, tmp_path: Path, text: str, said: str, monkeypatch: pytest.MonkeyPatch
):
    """A line that is no pack id is misuse, with its number; nothing is sent and no file is made."""
    server = serve([Pack("11")])
    monkeypatch.chdir(tmp_path)
    Path("packs.txt").write_text(text, encoding="utf-8")
    result = run("fetch", "--packs", "packs.txt", "--out", "o.jsonl", server=server)
    assert (result.exit_code, result.stdout, result.stderr.count("\n")) == (2, "", 1)
    assert said in result.stderr
    assert "\x1b" not in result.stderr
    assert not server.sandbox.log
    assert not Path("o.jsonl").exists()


def test_lists_of_every_make_are_read(serve: Serve, tmp_path: Path):
    """Comments, blank lines, Windows line ends, a byte order mark, repetitions, no newline at the end."""
    server = serve([Pack("11"), Pack("12"), Pack("13")])
    (tmp_path / "packs.txt").write_bytes(b"\xef\xbb\xbf11\r\n\r\n# of today\r\n  12  # Test Buyer 1\r\n11\r\n13")
    result = run(*arguments(tmp_path), server=server)
    assert result.exit_code == 0
    assert "3 of 3 conversations" in result.stderr
    assert asked(server.sandbox) == {"11": 1, "12": 1, "13": 1}


@case("K36")
@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be"])
@pytest.mark.parametrize("piped_in", [True, False])
def test_lists_that_powershell_wrote_are_read(serve: Serve, tmp_path: Path, encoding: str, piped_in: bool):
    """UTF-16 with its mark, from a file and from standard input."""
    server = serve([Pack("11"), Pack("12")])
    data = "\ufeff11\r\n# são\r\n12\r\n".encode(encoding)
    (tmp_path / "packs.txt").write_bytes(data)
    args = ["fetch", "--packs", "-" if piped_in else str(tmp_path / "packs.txt"), "--out", str(tmp_path / "o.jsonl")]
    done = subprocess.run(
        [*PROGRAM, *args],
        input=data,
        capture_output=True,
        check=False,
        timeout=60,
        env=environment(**settings_for(server)),
    )
    assert done.returncode == 0, done.stderr
    assert asked(server.sandbox) == {"11": 1, "12": 1}


@case("K31")
@needs("signals")
def test_sigterm_says_how_to_go_on(serve: Serve, tmp_path: Path):
    """As Ctrl-C: exit code 130, how much is in the file, and whole lines."""
    slow = Slow(0.1)
    server = serve(30, behaviour=Behaviour(latency=slow))
    write_ids(tmp_path, server.sandbox.pack_ids())
    with started(*arguments(tmp_path, "--concurrency", "1"), server=server) as process:
        read_until(process, " a second")
        process.send_signal(signal.SIGTERM)
        assert process.stderr is not None
        said = process.stderr.read().decode()
        assert process.wait(30) == 130
    assert "Run the same command again" in said
    assert 0 < len(json_lines(tmp_path / "o.jsonl")) < 30


def test_a_list_without_ids_is_no_work(serve: Serve, tmp_path: Path):
    """An empty list is done at once."""
    write_ids(tmp_path, ["# none today"])
    result = run(*arguments(tmp_path), server=serve(1))
    assert (result.exit_code, "0 of 0 conversations" in result.stderr) == (0, True)


def test_ids_from_standard_input(serve: Serve, tmp_path: Path):
    """`--packs -` takes ids as they come, in any pieces; run again with the same ones it asks for none of them."""
    server = serve(30)
    ids = server.sandbox.pack_ids()
    args = ["fetch", "--packs", "-", "--out", str(tmp_path / "o.jsonl")]
    for _ in range(2):
        with started(*args, server=server, stdin=subprocess.PIPE) as process:
            assert process.stdin is not None
            for piece in ("\n".join(ids)[:25], "\n".join(ids)[25:]):
                process.stdin.write(piece.encode())
                process.stdin.flush()
            _, stderr = process.communicate(timeout=30)
        assert process.returncode == 0
    assert b"0 conversations in " in stderr
    assert asked(server.sandbox) == dict.fromkeys(ids, 1)
    assert len(json_lines(tmp_path / "o.jsonl")) == 30


def test_a_wrong_id_on_standard_input_is_named_with_its_line(serve: Serve, tmp_path: Path):
    """A wrong line ends it with exit code 2 and its number; what is in the file is whole, and stays done."""
    server = serve([Pack("11")])
    result = subprocess.run(
        [*PROGRAM, "fetch", "--packs", "-", "--out", str(tmp_path / "o.jsonl")],
        input=b"11\nno\n",
        capture_output=True,
        timeout=60,
        check=False,
        env=environment(**settings_for(server)),
    )
    assert result.returncode == 2
    assert b"Error: line 2 of standard input is no pack id: 'no'" in result.stderr
    assert len(json_lines(tmp_path / "o.jsonl")) <= 1


def test_progress_without_a_terminal_is_plain_lines(serve: Serve, tmp_path: Path):
    """In a pipe: lines with done of all, messages, rate, budget and the time left while there is some; no escapes."""
    server = serve(30, messages=2, behaviour=Behaviour(latency=0.04))
    write_ids(tmp_path, server.sandbox.pack_ids())
    result = piped(*arguments(tmp_path, "--concurrency", "1"), server=server)
    lines = result.stderr.decode().splitlines()
    figures = r"[\d,]+ messages · \d+ a second · budget \d+ of 500 in a minute"
    assert re.fullmatch(rf"\d+ of 30 conversations · {figures} · about \d+ s left", lines[0])
    assert re.fullmatch(rf"30 of 30 conversations · {figures}", lines[-2])
    assert (result.returncode, result.stdout, b"\x1b" in result.stderr) == (0, b"", False)


def test_ctrl_c_says_how_to_go_on(serve: Serve, tmp_path: Path):
    """Ctrl-C: exit code 130, how much is in the file; the same command finishes."""
    slow = Slow(0.1)
    server = serve(30, behaviour=Behaviour(latency=slow))
    write_ids(tmp_path, server.sandbox.pack_ids())
    with interrupted_by_a_line(*arguments(tmp_path, "--concurrency", "1"), **settings_for(server)) as process:
        read_until(process, " a second")
        _, stderr = process.communicate("now\n", timeout=30)
    assert process.returncode == 130
    pattern = r"^Interrupted: (\d+) of 30 conversations in .* Run the same command again"
    said = re.search(pattern, stderr, re.MULTILINE)
    assert said is not None
    assert len(json_lines(tmp_path / "o.jsonl")) == int(said[1]) < 30
    assert "Traceback" not in stderr
    slow.seconds = 0.0
    assert run(*arguments(tmp_path), server=server).exit_code == 0
    assert len({line["pack_id"] for line in json_lines(tmp_path / "o.jsonl")}) == 30


def test_ctrl_c_ends_it_where_an_answer_never_comes(serve: Serve, tmp_path: Path):
    """While a request hangs, Ctrl-C ends it all the same."""
    server = serve([Pack("11"), Pack("12")], rules=[on("peek", pack="12").do(HANG)])
    write_ids(tmp_path, ["11", "12"])
    with interrupted_by_a_line(*arguments(tmp_path), **settings_for(server)) as process:
        read_until(process, "1 message")
        _, stderr = process.communicate("now\n", timeout=30)
    assert process.returncode == 130
    assert "Interrupted: 1 of 2 conversations" in stderr


def test_a_refused_token_ends_it_at_once(serve: Serve, tmp_path: Path):
    """A 401 is no fault of a pack: exit code 1 and one line, and not a request for each of the packs."""
    server = serve(100)
    write_ids(tmp_path, server.sandbox.pack_ids())
    result = run(*arguments(tmp_path, "--failed", str(tmp_path / "f")), server=server, MLMESSAGES_TOKEN="APP_USR-old-1")
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.splitlines()[-1].startswith("Error: 401")
    assert "0 of 100 conversations in " in result.stderr
    assert len(server.sandbox.log) < 20
    assert (tmp_path / "f").read_bytes() == b""


def test_a_server_that_is_down_ends_it(serve: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """When pack after pack meets a broken server it stops, says why, and the next run goes on; one such pack is set
    aside."""
    monkeypatch.setattr("mlmessages.cli.commands.fetch.patience", lambda: Retry(attempts=1))
    server = serve(100)
    sandbox = server.sandbox
    write_ids(tmp_path, sandbox.pack_ids())
    broken = sandbox.add(on("peek", nth=range(31, 1000)).do(Reply(503)))
    result = run(*arguments(tmp_path), server=server)
    assert result.exit_code == 1
    assert result.stderr.splitlines()[-1].startswith("Error: 503")
    assert len(sandbox.log) < 70
    sandbox.remove(broken)
    sandbox.add(on("peek", pack=sandbox.pack_ids()[-1]).do(Reply(503)))
    assert run(*arguments(tmp_path), server=server).exit_code == 3
    assert len(json_lines(tmp_path / "o.jsonl")) == 99


def test_packs_that_a_server_cannot_answer_now_and_then_end_nothing(
    serve: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Many packs that fail, but with others in between that do not, are set aside one by one."""
    monkeypatch.setattr("mlmessages.cli.commands.fetch.patience", lambda: Retry(attempts=1))
    server = serve(75)
    server.sandbox.add(on("peek", pack=server.sandbox.pack_ids()[::3]).do(Reply(503)))
    write_ids(tmp_path, server.sandbox.pack_ids())
    result = run(*arguments(tmp_path), server=server)
    assert (result.exit_code, "50 of 75 conversations" in result.stderr) == (3, True)


def test_a_spent_budget_is_waited_for(serve: Serve, tmp_path: Path):
    """A run that begins in a minute whose budget is spent waits for the next one: 429s end nothing."""
    server = serve(8, rules=[on("peek", nth=range(1, 4)).do(Reply(429))])
    write_ids(tmp_path, server.sandbox.pack_ids())
    result = run(*arguments(tmp_path), server=server)
    assert result.exit_code == 0
    assert [entry.status for entry in server.sandbox.log].count(429) >= 1
    assert len(json_lines(tmp_path / "o.jsonl")) == 8


def test_files_must_be_different(serve: Serve, tmp_path: Path):
    """One file for two purposes is misuse; nothing is changed."""
    packs = write_ids(tmp_path, ["11"])
    server = serve(1)
    same = str(tmp_path / "." / "packs.txt")
    for args in (["--out", same], ["--out", str(tmp_path / "o"), "--failed", same]):
        result = run("fetch", "--packs", str(packs), *args, server=server)
        assert (result.exit_code, result.stderr.count("\n")) == (2, 1)
        assert "must be two files" in result.stderr
    assert packs.read_text() == "11\n"


def test_two_runs_into_one_file_are_refused(serve: Serve, tmp_path: Path):
    """While one run writes a file, another one for it ends with one line."""
    server = serve([Pack("11"), Pack("12")], rules=[on("peek", pack="12").do(HANG)])
    write_ids(tmp_path, ["11", "12"])
    with started(*arguments(tmp_path), server=server) as process:
        read_until(process, "1 message")
        result = run(*arguments(tmp_path), server=server)
        assert (result.exit_code, result.stderr.count("\n")) == (1, 1)
        assert "being written by another" in result.stderr


@needs("signals")
def test_ctrl_c_ends_it_while_standard_input_is_silent(serve: Serve, tmp_path: Path):
    """While it waits for more ids, Ctrl-C ends it, and nothing complains."""
    args = ["fetch", "--packs", "-", "--out", str(tmp_path / "o.jsonl")]
    with started(*args, server=serve([Pack("11")]), stdin=subprocess.PIPE) as process:
        assert process.stdin is not None
        process.stdin.write(b"11\n")
        process.stdin.flush()
        read_until(process, "1 message")
        process.send_signal(signal.SIGINT)
        assert process.stderr is not None
        last = process.stderr.read().decode().splitlines()[-1]  # its standard input is still open
        assert process.wait(timeout=30) == 130
    assert last.startswith("Interrupted: 1 conversation in ")


@needs("limits")
def test_a_full_disk_is_one_line_and_the_next_run_goes_on(serve: Serve, tmp_path: Path):
    """Where a line does not fit, it ends with one line that names the file; what was torn is cut off next time."""
    server = serve(5, messages=20)
    write_ids(tmp_path, server.sandbox.pack_ids())
    code = (
        "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (30_000, 30_000))\n"
        "from mlmessages.cli import main; main()"
    )
    result = subprocess.run(
        [sys.executable, "-W", "error", "-c", code, *arguments(tmp_path)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env=unmeasured(environment(**settings_for(server))),
    )
    assert result.returncode == 1
    assert result.stderr.splitlines()[-1].startswith("Error: ")
    assert "o.jsonl cannot be written: File too large" in result.stderr
    assert "Traceback" not in result.stderr
    assert not (tmp_path / "o.jsonl").read_bytes().endswith(b"\n")
    assert run(*arguments(tmp_path), server=server).exit_code == 0
    lines = json_lines(tmp_path / "o.jsonl")
    assert sum(len(line["messages"]) for line in lines) == len(server.sandbox.message_ids())
    assert json.dumps(lines).count('"status": {"path"') == 5
