"""`mlmessages report`: from files that our own commands wrote to a page, and nothing else touched."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import zoneinfo
from html import unescape
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result

from cases import case
from cli.conftest import PROGRAM, Serve, environment, mode, piped, read_until, run, started, unmeasured
from mlmessages.installing import how_to_install
from mlmessages.testing import Message, Pack, Server
from needs import needs

SELLER = "700100200"


def wire(
    message_id: str, sender: str = "800300400", when: str = "2026-03-02T12:00:00Z", **others: Any
) -> dict[str, Any]:
    resources = [{"id": SELLER, "name": "sellers"}]
    return {
        "id": message_id,
        "from": {"user_id": int(sender)},
        "text": "Test",
        "message_date": {"created": when},
        "message_resources": resources,
        **others,
    }


def line(pack: str, *raws: dict[str, Any]) -> bytes:
    rows = [{"unread": False, "raw": raw} for raw in raws]
    return json.dumps({"pack_id": pack, "status": None, "messages": rows}).encode() + b"\n"


ONE = line("11", wire("a"), wire("b", SELLER, "2026-03-02T12:07:00Z"))


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A file with one conversation, of a question and an answer."""
    file = tmp_path / "o.jsonl"
    file.write_bytes(ONE)
    return file


@pytest.fixture
def page(tmp_path: Path) -> Path:
    """The path of the page."""
    return tmp_path / "r.html"


def report(source: Path, page: Path, *more: str, **env: str) -> Result:
    """`mlmessages report`, whose stdout must stay empty."""
    result = run("report", str(source), "--out", str(page), *more, **env)
    assert result.stdout == ""
    return result


def misused(result: Result) -> str:
    """The one line with which a misuse ends."""
    assert (result.exit_code, result.stderr.startswith("Error: "), result.stderr.count("\n")) == (2, True, 1)
    return result.stderr


def text_of(page: Path) -> str:
    """What is to be read on a page."""
    body = re.sub(r"<style>.*?</style>|<svg.*?</svg>", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    body = re.sub("</?(?:bdi|code|span|strong|time)[^>]*>", "", body)
    return " ".join(unescape(re.sub("<[^>]*>", " ", body)).split())


def headline(page: Path) -> dict[str, str]:
    """The numbers on top of a page."""
    names = "conversations|from-buyers|from-seller|median|ninetieth|unanswered|blocked"
    return dict(re.findall(rf'id="({names})"[^>]*>([^<]*)<', page.read_text(encoding="utf-8")))


THREADS = [
    Pack("11", messages=[Message("Test one"), Message("Test two"), Message("Test answer", sender="seller")]),
    Pack("12", messages=[Message("<script>alert(1)</script>")], status="blocked", substatus="blocked_by_claim"),
    Pack("13", messages=4),
    Pack("14", messages=0),
]


def fetched(server: Server, folder: Path, *more: str) -> Path:
    """What `fetch` writes of all packs."""
    packs, out = folder / "packs.txt", folder / "o.jsonl"
    packs.write_text("".join(f"{pack}\n" for pack in server.sandbox.pack_ids()))
    assert run("fetch", "--packs", str(packs), "--out", str(out), *more, server=server).exit_code == 0
    return out


def drained(server: Server, folder: Path) -> Path:
    """What `drain` writes, in two runs, with a question and an answer in between."""
    args = ["drain", "--journal", str(folder / "j.db"), "--out", str(folder / "o.jsonl")]
    assert run(*args, server=server).exit_code == 0
    server.sandbox.send("13", "Test again")
    assert run(*args, server=server).exit_code == 0
    return folder / "o.jsonl"


def test_what_fetch_wrote_becomes_a_page(serve: Serve, tmp_path: Path, page: Path):
    """Numbers, texts and reasons; the page is its owner's alone; one line on stderr says what is in it."""
    result = report(fetched(serve(THREADS), tmp_path), page)
    assert result.exit_code == 0
    assert result.stderr.splitlines()[-1] == f"{page}: 4 conversations, 8 messages; 2 unanswered, 1 blocked."
    assert headline(page) == {
        "conversations": "4",
        "from-buyers": "5",
        "from-seller": "3",
        "median": "1 min",
        "ninetieth": "2 min",
        "unanswered": "2",
        "blocked": "1",
    }
    assert "No: a claim is open <script>alert(1)</script>" in text_of(page)
    assert "Made from o.jsonl" in text_of(page)
    assert mode(page) == 0o600
    assert {path.name for path in tmp_path.iterdir()} == {"packs.txt", "o.jsonl", "r.html"}


def test_what_fetch_wrote_by_message_becomes_a_page(serve: Serve, tmp_path: Path, page: Path):
    """The same numbers, but for the status, which such lines do not have: the page says so."""
    result = report(fetched(serve(THREADS), tmp_path, "--messages"), page)
    assert result.exit_code == 0
    assert headline(page) == {
        "conversations": "4",
        "from-buyers": "5",
        "from-seller": "3",
        "median": "1 min",
        "ninetieth": "2 min",
        "unanswered": "2",
        "blocked": "–",
    }
    assert "the file does not say" in text_of(page)


def test_what_drain_wrote_becomes_a_page(serve: Serve, tmp_path: Path, page: Path):
    """The deliveries of a conversation are one, wherever they stand; what came twice counts once."""
    out = drained(serve(THREADS[:3]), tmp_path)
    assert len(out.read_bytes().splitlines()) == 4
    with out.open("ab") as file:  # as after a kill between the line and its acknowledgement
        file.write(out.read_bytes().splitlines(keepends=True)[-1])
    assert report(out, page).exit_code == 0
    numbers = headline(page)
    assert (numbers["conversations"], numbers["from-buyers"], numbers["unanswered"]) == ("3", "6", "2")
    assert numbers["blocked"] == "1"
    assert "1 message stood in the file again" in text_of(page)


def test_an_empty_file_becomes_a_page_that_says_so(tmp_path: Path, page: Path):
    """No line, no seller, no crash."""
    (tmp_path / "o.jsonl").touch()
    assert report(tmp_path / "o.jsonl", page).exit_code == 0
    assert "There is no conversation in o.jsonl." in text_of(page)


@pytest.mark.parametrize(
    ("wrong", "number"),
    [
        (b"a secret diary\n", 2),
        (b"a secret diary", 2),
        (b'{"pack_id": "11", "error": "Forbidden", "status": 403, "reason": "secret"}\n', 2),
        (b'{"pack_id": "11", "st\n' + ONE, 2),
        (ONE + b'{"pack_id": "secret", "status": null, "messages": []}\n', 3),
        (b"\n", 2),
        (b"\x00\x01binary\n", 2),
        (b"\xff" * 300_000, 2),
    ],
)
def test_a_line_that_is_not_ours_is_misuse_and_named(source: Path, page: Path, wrong: bytes, number: int):
    """One line says which line of which file it is, and nothing of what stands there; there is no page."""
    source.write_bytes(ONE + wrong)
    result = report(source, page)
    assert result.exit_code == 2
    said = result.stderr.splitlines()[-1]
    assert said.startswith(f"Error: line {number} of {source} was not written by `fetch` or `drain`: ")
    assert "secret" not in result.stderr
    assert not page.exists()


@pytest.mark.parametrize("size", [1, 12, 30, len(line("12", wire("c"))) - 2])
def test_a_torn_last_line_is_left_out_and_said(source: Path, page: Path, size: int):
    """What a kill tore off is no error: a note, on the page too."""
    source.write_bytes(ONE + line("12", wire("c"))[:size])
    result = report(source, page)
    assert result.exit_code == 0
    assert f"The last line of {source} is torn" in result.stderr
    assert headline(page)["conversations"] == "1"
    assert "The last line of the file is torn" in text_of(page)


def test_a_whole_last_line_needs_no_newline(source: Path, page: Path):
    """An editor may have taken it away: the line counts, and there is no note."""
    source.write_bytes((ONE + line("12", wire("c"))).rstrip())
    result = report(source, page)
    assert (result.exit_code, "torn" in result.stderr) == (0, False)
    assert headline(page)["conversations"] == "2"


def test_lines_that_are_longer_than_a_block_are_read(source: Path, page: Path):
    """A conversation of a megabyte, and many small ones in a block."""
    long = wire("c", text="Test " * 200_000)
    source.write_bytes(line("12", long) + b"".join(line(str(pack), wire(f"m{pack}")) for pack in range(100, 1100)))
    assert report(source, page).exit_code == 0
    assert headline(page)["conversations"] == "1,001"


# -- whose messages ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("resources", "said"),
    [
        ([{"id": "1", "name": "sellers"}, {"id": "2", "name": "seller"}], "name 2 sellers"),
        ([{"id": "1", "name": "packs"}], "do not name the seller"),
        ([], "do not name the seller"),
    ],
)
def test_without_one_seller_whom_all_name_it_must_be_told(source: Path, page: Path, resources: list[Any], said: str):
    """Several or none: misuse, which says which option helps; and it does."""
    source.write_bytes(line("11", wire("a", message_resources=resources)))
    result = report(source, page)
    assert (result.exit_code, page.exists()) == (2, False)
    assert result.stderr.splitlines()[-1].startswith(f"Error: the messages in {source} {said}: pass --seller-id")
    assert report(source, page, "--seller-id", "800300400").exit_code == 0
    assert (headline(page)["from-seller"], headline(page)["unanswered"]) == ("1", "0")


def test_the_seller_can_come_from_the_environment(source: Path, page: Path):
    """`MLMESSAGES_SELLER_ID` counts as the option does; a seller who wrote nothing is noted."""
    result = report(source, page, MLMESSAGES_SELLER_ID="5")
    assert result.exit_code == 0
    assert f"No message in {source} is from the seller 5." in result.stderr
    assert "Seller 5" in text_of(page)
    assert "No message" not in report(source, page, MLMESSAGES_SELLER_ID=SELLER).stderr


# -- options -----------------------------------------------------------------------------------------------------------


def test_days_are_those_of_the_time_zone(source: Path, page: Path):
    """The zone is on the page, and in its moments."""
    source.write_bytes(line("11", wire("a", when="2026-03-03T01:30:00Z")))
    assert report(source, page, "--time-zone", "America/Sao_Paulo").exit_code == 0
    assert "2 Mar 2026 · days in America/Sao_Paulo" in text_of(page)
    assert "2026-03-02 22:30" in text_of(page)


@pytest.mark.parametrize("name", ["Nowhere/Land", "America", "../../etc/passwd", "/etc/passwd", "", "\x1b[2J", "a\0b"])
def test_an_unknown_time_zone_is_misuse(source: Path, page: Path, name: str):
    """One line with an example of what is meant; nothing of what was typed acts."""
    said = misused(report(source, page, "--time-zone", name))
    assert "America/Sao_Paulo" in said
    assert "\x1b" not in said
    assert not page.exists()


@pytest.mark.parametrize("seller_id", ["one", "-1", "", "1" * 21])
def test_a_seller_id_that_is_none_is_misuse(source: Path, page: Path, seller_id: str):
    """One line that names the option."""
    assert "--seller-id" in misused(report(source, page, "--seller-id", seller_id))


def test_the_moment_is_when_the_file_was_last_written(source: Path, page: Path):
    """Not when the page was made: who answered in between is not in the file. The same file gives the same bytes."""
    os.utime(source, (0, 1772463600.0))
    assert report(source, page).exit_code == 0
    before = page.read_bytes()
    assert "as of 2026-03-02 15:00, when the file was last written" in text_of(page)
    assert report(source, page).exit_code == 0
    assert page.read_bytes() == before


# -- where it goes -----------------------------------------------------------------------------------------------------


def test_an_older_report_is_replaced(source: Path, page: Path):
    """And is again its owner's alone, whatever it was before; an empty file is taken too."""
    page.touch(0o644)
    assert report(source, page).exit_code == 0
    page.chmod(0o644)
    source.write_bytes(line("12", wire("c")))
    assert report(source, page).exit_code == 0
    assert (headline(page)["unanswered"], mode(page)) == ("1", 0o600)


@pytest.mark.parametrize("content", [b"a diary\n", b"<!DOCTYPE html>\n<html>", b"\n"])
def test_any_other_file_is_left_alone(source: Path, page: Path, content: bytes):
    """The page of another program too: misuse, and no byte changes."""
    page.write_bytes(content)
    assert "is no report of mlmessages" in misused(report(source, page))
    assert page.read_bytes() == content


def test_the_file_is_not_written_over_itself(source: Path, page: Path, tmp_path: Path):
    """However it is spelled, and through another name of the same file."""
    (tmp_path / "sub").mkdir()
    for out in (source, tmp_path / "sub" / ".." / "o.jsonl"):
        assert "two files" in misused(report(source, out))
    page.hardlink_to(source)
    misused(report(source, page))
    assert source.read_bytes() == ONE


def test_a_folder_or_none_is_misuse(source: Path, tmp_path: Path):
    """A folder is no file, and a file in a folder that is not there cannot be."""
    misused(report(source, tmp_path))
    assert "folder" in misused(report(source, tmp_path / "none" / "r.html"))
    misused(report(tmp_path, tmp_path / "r.html"))
    misused(report(tmp_path / "missing.jsonl", tmp_path / "r.html"))


@case("O7")
def test_a_system_without_time_zones_is_told_as_that(source: Path, page: Path, monkeypatch: pytest.MonkeyPatch):
    """Windows has none of its own: exit code 1 and what to install, and the name is not called wrong."""
    monkeypatch.setattr(zoneinfo, "TZPATH", ())
    monkeypatch.setattr(zoneinfo, "available_timezones", set)
    monkeypatch.setattr(zoneinfo, "ZoneInfo", no_zone)
    result = report(source, page, "--time-zone", "America/Sao_Paulo")
    assert result.exit_code == 1
    assert "no time zones" in result.stderr
    assert how_to_install("tzdata") in result.stderr
    assert "must be a name" not in result.stderr


def no_zone(name: str) -> None:
    raise zoneinfo.ZoneInfoNotFoundError(name)


@pytest.mark.parametrize("missing", ["jinja2", "matplotlib"])
def test_without_the_extra_one_line_says_what_to_install(source: Path, page: Path, missing: str):
    """Exit code 1 and the command that helps, before anything is read; the other commands go on without it."""
    code = f"import sys; sys.modules[{missing!r}] = None; from mlmessages.cli import main; main()"
    result = subprocess.run(
        [sys.executable, "-W", "error", "-c", code, "report", str(source), "--out", str(page)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env=environment(),
    )
    assert (result.returncode, result.stdout, result.stderr.count("\n")) == (1, "", 1)
    assert missing in result.stderr
    assert how_to_install("mlmessages[report]") in result.stderr
    assert not page.exists()


def test_nothing_heavy_is_imported_by_the_other_commands():
    """`--help`, of the report too, needs neither matplotlib nor Jinja."""
    code = (
        "import sys, mlmessages.cli\n"
        "sys.argv = ['mlmessages', 'report', '--help']\n"
        "try: mlmessages.cli.main()\n"
        "finally: print(*{'matplotlib', 'numpy', 'jinja2', 'asyncio'} & set(sys.modules), file=sys.stderr)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60)
    assert (result.returncode, result.stderr.strip()) == (0, "asyncio")


# -- as a process ------------------------------------------------------------------------------------------------------


def test_as_a_process_it_shows_how_far_it_is_and_writes_nothing_on_stdout(source: Path, page: Path):
    """Progress and a summary on stderr, no warning of any library."""
    result = piped("report", str(source), "--out", str(page))
    assert (result.returncode, result.stdout) == (0, b"")
    progress, summary = result.stderr.decode().splitlines()
    assert progress.startswith("1 conversation · 2 messages · ")
    assert summary == f"{page}: 1 conversation, 2 messages; 0 unanswered, 0 blocked."


def test_a_first_run_is_quiet_and_needs_no_home(source: Path, page: Path, tmp_path: Path):
    """Where matplotlib has no cache yet, or can have none, it says nothing of that."""
    nowhere = tmp_path / "file"
    nowhere.touch()
    for folder in (tmp_path / "new", nowhere / "none"):
        result = piped("report", str(source), "--out", str(page), MPLCONFIGDIR=str(folder))
        assert (result.returncode, result.stderr.count(b"\n")) == (0, 2)


def test_standard_input_is_read(page: Path):
    """`-`: the lines come through a pipe, and the moment is now."""
    result = subprocess.run(
        [*PROGRAM, "report", "-", "--out", str(page)],
        input=ONE,
        capture_output=True,
        timeout=60,
        check=False,
        env=environment(),
    )
    assert (result.returncode, result.stdout) == (0, b"")
    assert "Made from standard input" in text_of(page)
    assert "last written" not in text_of(page)


def test_a_bad_line_on_standard_input_is_named(page: Path):
    """Misuse, with the number of the line."""
    result = subprocess.run(
        [*PROGRAM, "report", "-", "--out", str(page)],
        input=ONE + b"a diary\n",
        capture_output=True,
        timeout=60,
        check=False,
        env=environment(),
    )
    assert result.returncode == 2
    assert b"Error: line 2 of standard input was not written by" in result.stderr


def test_a_file_that_appears_meanwhile_is_left_alone(serve: Serve, page: Path):
    """Reading may take minutes: a file that was put there in the meantime is not replaced."""
    with started("report", "-", "--out", str(page), server=serve([]), stdin=subprocess.PIPE) as process:
        assert process.stdin is not None
        process.stdin.write(ONE)
        process.stdin.flush()
        read_until(process, "1 conversation")
        page.write_bytes(b"a diary")
        process.stdin.close()
        assert process.wait(timeout=30) == 2
    assert page.read_bytes() == b"a diary"


def ends_at_ctrl_c(process: subprocess.Popen[bytes], folder: Path, before: set[str]) -> None:
    process.send_signal(signal.SIGINT)
    assert process.stderr is not None
    last = process.stderr.read().decode().splitlines()[-1]
    assert (process.wait(timeout=30), last) == (130, "Interrupted: no report was written.")
    assert {path.name for path in folder.iterdir()} == before


@needs("signals")
def test_ctrl_c_ends_it_while_standard_input_is_silent(serve: Serve, page: Path, tmp_path: Path):
    """While it waits for more lines; nothing is left behind."""
    args = ["report", "-", "--out", str(page)]
    with started(*args, server=serve([]), stdin=subprocess.PIPE) as process:
        assert process.stdin is not None
        process.stdin.write(ONE)
        process.stdin.flush()
        read_until(process, "1 conversation")
        ends_at_ctrl_c(process, tmp_path, set())


@needs("signals")
@pytest.mark.parametrize("written", [b"", ONE])
def test_ctrl_c_ends_it_while_a_pipe_is_silent(serve: Serve, page: Path, tmp_path: Path, written: bytes):
    """A named pipe that has no writer yet, and one through which nothing more comes."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with started("report", str(pipe), "--out", str(page), server=serve([])) as process:
        writer = os.open(pipe, os.O_RDWR) if written else None
        try:
            if writer is not None:
                os.write(writer, written)
            read_until(process, "1 conversation" if written else "0 conversations")
            ends_at_ctrl_c(process, tmp_path, {"pipe"})
        finally:
            if writer is not None:
                os.close(writer)


@needs("limits")
def test_a_full_disk_leaves_the_older_report_as_it_was(source: Path, page: Path, tmp_path: Path):
    """One line that names the file, and nothing half-written beside it."""
    assert report(source, page).exit_code == 0
    before = page.read_bytes(), {path.name for path in tmp_path.iterdir()}
    code = (
        "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (9000, 9000))\n"
        "from mlmessages.cli import main; main()"
    )
    result = subprocess.run(
        [sys.executable, "-W", "error", "-c", code, "report", str(source), "--out", str(page)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env=unmeasured(environment()),
    )
    assert result.returncode == 1
    assert result.stderr.splitlines()[-1] == f"Error: {page} cannot be written: File too large"
    assert (page.read_bytes(), {path.name for path in tmp_path.iterdir()}) == before


@needs("signals")
@pytest.mark.parametrize("kind", ["pipe", "folder"])
def test_what_is_no_file_is_misuse(source: Path, page: Path, kind: str):
    """A pipe is not waited for."""
    if kind == "pipe":
        os.mkfifo(page)
    else:
        page.mkdir()
    misused(report(source, page))


@needs("symlinks")
def test_a_symbolic_link_is_not_followed(source: Path, page: Path, tmp_path: Path):
    """Neither to a file, nor to an older report, nor to nothing: misuse, and nothing is written anywhere."""
    older = tmp_path / "older.html"
    assert report(source, older).exit_code == 0
    before = older.read_bytes()
    for target in (source, older, tmp_path / "nothing"):
        page.symlink_to(target)
        misused(report(source, page))
        page.unlink()
    assert (older.read_bytes(), source.read_bytes()) == (before, ONE)
    assert not (tmp_path / "nothing").exists()
