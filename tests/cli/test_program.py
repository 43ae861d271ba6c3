"""The program as a whole: help, misuse, failures, and what it needs."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from cases import case
from cli.conftest import PROGRAM, Serve, environment, piped, run, settings_for
from mlmessages.cli.app import cli
from mlmessages.errors import AuthError
from mlmessages.installing import how_to_install
from mlmessages.testing import Reply, on
from needs import needs

COMMANDS = [
    "demo",
    "doctor",
    "unread",
    "messages",
    "send",
    "download",
    "drain",
    "journal",
    "fetch",
    "report",
    "serve",
    "sandbox",
]


def python(code: str, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env=environment(**env),
    )


def test_help_names_every_command_and_the_exit_codes():
    """`--help` names the commands, says where the token comes from and what the exit codes mean."""
    result = run("--help")
    assert result.exit_code == 0
    for word in (*COMMANDS, "MLMESSAGES_TOKEN_FILE", "130"):
        assert word in result.stdout
    assert result.stderr == ""


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself(command: str):
    """`COMMAND --help` and `COMMAND -h` say the same and need no setting."""
    assert run(command, "--help").exit_code == 0
    assert run(command, "--help").stdout == run(command, "-h").stdout


def test_help_shows_the_environment_variables():
    """The help of a command that talks to the API names the variables of its settings."""
    text = run("unread", "--help").stdout
    for name in ("MLMESSAGES_SELLER_ID", "MLMESSAGES_BASE_URL", "MLMESSAGES_API", "MLMESSAGES_TOKEN_FILE"):
        assert name in text


def test_nothing_heavy_is_imported_for_help():
    """`mlmessages --help` imports neither aiohttp nor rich nor the client."""
    code = (
        "import sys, mlmessages.cli\n"
        "sys.argv = ['mlmessages', '--help']\n"
        "try: mlmessages.cli.main()\n"
        "finally: print(*{'aiohttp', 'rich', 'cattrs', 'mlmessages.client'} & set(sys.modules), file=sys.stderr)"
    )
    result = python(code)
    assert (result.returncode, result.stderr.strip()) == (0, "")


def test_import_needs_no_extra():
    """`import mlmessages.cli` imports nothing of the extra."""
    result = python("import sys, mlmessages.cli; print(*{'click', 'rich'} & set(sys.modules))")
    assert (result.stdout.strip(), result.stderr) == ("", "")


@pytest.mark.parametrize("missing", ["click", "rich"])
def test_without_the_extra_one_line_says_what_to_install(missing: str):
    """Without click or rich the program ends with exit code 2 and the command to install them."""
    result = python(f"import sys; sys.modules[{missing!r}] = None; from mlmessages.cli import main; main()")
    assert result.returncode == 2
    assert result.stderr.count("\n") == 1
    assert how_to_install("mlmessages[cli]") in result.stderr
    assert sys.executable in result.stderr
    assert missing in result.stderr


def test_version_is_the_installed_one(tmp_path: Path):
    """`--version` prints the version of the installed package."""
    metadata = tmp_path / "mlmessages-9.8.7.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: mlmessages\nVersion: 9.8.7\n")
    path = os.pathsep.join(filter(None, (str(tmp_path), os.environ.get("PYTHONPATH", ""))))
    result = python(
        "import sys; sys.argv[1:] = ['--version']; from mlmessages.cli import main; main()", PYTHONPATH=path
    )
    assert (result.returncode, result.stdout) == (0, "mlmessages 9.8.7\n")


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["nonsense"], "nonsense"),
        (["--nonsense"], "--nonsense"),
        (["demo", "--packs", "0"], "--packs"),
        (["demo", "--packs", "many"], "--packs"),
        (["unread"], "MLMESSAGES_SELLER_ID"),
        (["unread", "--seller-id", "1", "--api", "other"], "--api"),
        (["unread", "--seller-id", "one"], "seller_id"),
        (["unread", "--seller-id", "1", "--base-url", "http://example.com"], "base_url"),
        (["unread", "--seller-id", "1", "--token", "x"], "--token"),
        (["messages", "--seller-id", "1"], "PACK"),
        (["messages", "--seller-id", "1", "../oauth"], "PACK"),
        (["messages", "--seller-id", "1", "\x1b[2J"], "PACK"),
        (["sandbox", "--port", "65536"], "--port"),
        (["drain", "--seller-id", "1", "--out", "d.jsonl"], "--journal"),
        (["drain", "--seller-id", "1", "--journal", "j.db"], "--out"),
        (["drain", "--seller-id", "1", "--journal", "j", "--out", "o", "--concurrency", "0"], "--concurrency"),
        (["fetch", "--seller-id", "1", "--out", "o.jsonl"], "--packs"),
        (["fetch", "--seller-id", "1", "--out", "o.jsonl", "--packs", "missing"], "missing"),
        (["fetch", "--seller-id", "1", "--packs", "-"], "--out"),
        (["journal", "show"], "FILE"),
        (["report", "--out", "r.html"], "FILE.jsonl"),
        (["report", "missing.jsonl", "--out", "r.html"], "missing.jsonl"),
        (["report", "-"], "--out"),
    ],
)
def test_misuse_is_one_line_and_exit_code_2(args: list[str], said: str):
    """Wrong arguments end with exit code 2 and one line on stderr that names what is wrong, before anything is sent."""
    result = run(*args, MLMESSAGES_TOKEN="x")
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.startswith("Error: ")
    assert result.stderr.count("\n") == 1
    assert said in result.stderr
    assert "\x1b" not in result.stderr


def test_a_refusal_is_one_line_with_the_hint(serve: Serve):
    """An error of the API ends with exit code 1 and one line: status, the server's words, and what to do."""
    result = run("messages", "77", server=serve(1))
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.startswith("Error: 404")
    assert "No sale has this id" in result.stderr
    assert result.stderr.count("\n") == 1


def test_a_refused_token_is_not_shown(serve: Serve):
    """A 401 says what to do and does not print the token."""
    result = run("unread", server=serve(1), MLMESSAGES_TOKEN="APP_USR-secret-0001")
    assert result.exit_code == 1
    assert result.stderr.startswith("Error: 401")
    assert "APP_USR-secret" not in result.output


def test_words_of_a_hostile_server_stay_on_one_line(serve: Serve):
    """An error text of the server cannot act on the terminal or pretend to be further lines."""
    body = {"message": "no\x1b[2J\r\nError: all is well\u202e", "error": "forbidden", "status": 403}
    result = run("unread", server=serve(1, rules=[on("listing").do(Reply(403, body))]))
    assert result.exit_code == 1
    assert result.stderr.count("\n") == 1
    assert not {"\x1b", "\r", "\u202e"} & set(result.stderr)


def test_a_retry_is_told(serve: Serve):
    """A user who waits for a retry reads on stderr that there is one; the data are complete all the same."""
    result = run("unread", server=serve(1, rules=[on("listing", nth=1).do(Reply(503))]))
    assert result.exit_code == 0
    assert "retry 1" in result.stderr
    assert "2000000000000001" in result.stdout


def test_a_reader_that_has_had_enough_sees_no_traceback(serve: Serve):
    """A closed pipe behind stdout ends the program quietly."""
    server = serve(1000)
    for args in (["unread"], ["unread", "--json"], ["messages", "2000000000000001"]):
        reader, writer = os.pipe()
        os.close(reader)
        settings = {"MLMESSAGES_BASE_URL": server.base_url, "MLMESSAGES_SELLER_ID": server.seller_id}
        try:
            result = subprocess.run(
                [sys.executable, "-m", "mlmessages.cli", *args],
                stdout=writer,
                stderr=subprocess.PIPE,
                stdin=subprocess.DEVNULL,
                text=True,
                timeout=60,
                check=False,
                env=environment(**settings, MLMESSAGES_TOKEN=server.token),
            )
        finally:
            os.close(writer)
        assert result.returncode == 1
        assert "Traceback" not in result.stderr
        assert "BrokenPipe" not in result.stderr


def test_it_is_also_a_module():
    """`python -m mlmessages.cli` is the program, and so is `python -m mlmessages`."""
    result = piped("--help")
    assert (result.returncode, result.stderr) == (0, b"")
    assert result.stdout.startswith(b"Usage: mlmessages ")
    other = subprocess.run([sys.executable, "-m", "mlmessages", "--help"], capture_output=True, check=True)
    assert other.stdout == result.stdout


@case("N5")
@needs("signals")
@pytest.mark.parametrize(
    "args", [["demo", "--packs", "1"], ["--help"], ["--version"], ["sandbox", "--packs", "1"]], ids=str
)
def test_a_closed_standard_output_is_one_line(args: list[str]):
    """Exit code 1 and why, and no traceback: what was to be written there is not lost without a word."""
    done = subprocess.run(
        ["/bin/sh", "-c", 'exec "$@" >&-', "sh", *PROGRAM, *args],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env=environment(),
    )
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == "Error: standard output is closed"
    assert "Traceback" not in done.stderr


@case("N5")
@needs("signals")
def test_what_writes_nothing_there_needs_no_standard_output(serve: Serve, tmp_path: Path):
    """A drain with all three streams closed is done, and its files are whole: none got the descriptor of a stream."""
    server = serve(2)
    args = ["drain", "--journal", str(tmp_path / "j.db"), "--out", str(tmp_path / "d.jsonl")]
    done = subprocess.run(
        ["/bin/sh", "-c", 'exec "$@" <&- >&- 2>&-', "sh", *PROGRAM, *args],
        timeout=60,
        check=False,
        env=environment(**settings_for(server)),
    )
    assert done.returncode == 0
    assert len((tmp_path / "d.jsonl").read_bytes().splitlines()) == 2


@case("N5")
def test_a_sentence_and_its_hint_have_one_full_stop(monkeypatch: pytest.MonkeyPatch):
    """What was said may end in one already."""

    def refuse(**_: object) -> None:
        error = AuthError("the application needs MLMESSAGES_CLIENT_SECRET.")
        error.hint = "Set it"
        raise error

    monkeypatch.setattr(cli.commands["demo"], "callback", refuse)
    result = run("demo")
    assert result.stderr == "Error: the application needs MLMESSAGES_CLIENT_SECRET. Set it\n"


@case("R4")
@pytest.mark.parametrize(
    ("here", "said"),
    [({"pip"}, "-m pip install"), ({"ensurepip"}, "-m ensurepip, and then"), (set(), "python3 -m pip --python")],
    ids=["pip", "ensurepip", "none"],
)
def test_the_line_that_installs_works_for_this_interpreter(here: set[str], said: str, monkeypatch: pytest.MonkeyPatch):
    """Where pip is missing it says what to do instead."""
    monkeypatch.setattr("mlmessages.installing.find_spec", lambda name: name if name in here else None)
    line = how_to_install("mlmessages[cli]")
    assert said in line
    assert sys.executable in line
    assert line.count("'mlmessages[cli]'") == 1
