"""On a pseudo-terminal, where the system has them: the live bar, colours, the hidden prompt, a typed Ctrl-C."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from cases import case
from cli.conftest import PROGRAM, TOKEN, Serve, environment, settings_for
from mlmessages.testing import DROP, EXECUTE, Pack, on
from needs import needs

# In a process of its own, because forking this one, which has threads, is deprecated. What comes on stdin is typed.
IN_A_TERMINAL = "import os, pty, sys; sys.exit(os.waitstatus_to_exitcode(pty.spawn(sys.argv[1:])))"


class Terminal:
    """`mlmessages ARGS` on a terminal of 80 columns."""

    def __init__(self, *args: str, **env: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", IN_A_TERMINAL, *PROGRAM, *args],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=environment(**{"COLUMNS": "80", **env}),
        )
        self.seen = ""

    def wait_for(self, text: str) -> None:
        assert self.process.stdout is not None
        while text not in self.seen:
            piece = os.read(self.process.stdout.fileno(), 4096)
            assert piece, f"it ended without {text!r}: {self.seen}"
            self.seen += piece.decode()

    def type(self, keys: bytes) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(keys)
        self.process.stdin.flush()

    def end(self) -> int:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        while piece := os.read(self.process.stdout.fileno(), 4096):
            self.seen += piece.decode(errors="replace")
        self.process.stdin.close()
        self.process.stdout.close()
        return self.process.wait(timeout=30)


@needs("terminal", "signals")
def test_the_demo_draws_a_bar_that_moves_in_place():
    """On a terminal the progress is redrawn in place, in colour, and the cursor is back at the end."""
    terminal = Terminal("demo", "--packs", "300")
    assert terminal.end() == 0
    assert "━" in terminal.seen
    assert "\x1b[36m" in terminal.seen or "\x1b[32m" in terminal.seen
    assert terminal.seen.rindex("\x1b[?25h") > terminal.seen.rindex("\x1b[?25l")
    assert re.search(r"300 of 300 conversations.*900 messages", terminal.seen, re.DOTALL)


@needs("terminal", "signals")
def test_no_color_is_respected():
    """With NO_COLOR nothing is coloured, on a terminal too."""
    terminal = Terminal("demo", "--packs", "20", NO_COLOR="1")
    assert terminal.end() == 0
    assert not re.search(r"\x1b\[(?:\d+;)*(?:3[0-8]|9[0-7])[;m]", terminal.seen)


@needs("terminal", "signals")
def test_a_dumb_terminal_gets_lines():
    """Where the cursor cannot be moved there are lines instead of a bar."""
    terminal = Terminal("demo", "--packs", "20", TERM="dumb")
    assert terminal.end() == 0
    assert "\x1b[" not in terminal.seen
    assert "20 of 20 conversations · 60 messages" in terminal.seen


@needs("terminal", "signals")
def test_a_narrow_terminal_cuts_no_figure():
    """On 30 columns lines are folded at blanks; every number is there, and no line is longer."""
    terminal = Terminal("demo", "--packs", "20", COLUMNS="30")
    assert terminal.end() == 0
    plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", terminal.seen)
    assert all(len(line.rstrip()) <= 30 for line in re.split(r"[\r\n]+", plain))
    assert "60 of 60 messages" in " ".join(plain.split())


@needs("terminal", "signals")
def test_a_typed_ctrl_c_ends_the_demo():
    """Ctrl-C in the middle: the bar stays, a line says how far it got, the cursor is back, exit code 130."""
    terminal = Terminal("demo")
    terminal.wait_for("of 2,500 conversations\x1b")
    terminal.type(b"\x03")
    assert terminal.end() == 130
    assert re.search(r"Interrupted: [\d,]+ of 2,500 conversations were delivered", terminal.seen)
    assert terminal.seen.rindex("\x1b[?25h") > terminal.seen.rindex("\x1b[?25l")
    assert "Traceback" not in terminal.seen


@needs("terminal", "signals")
def test_a_drain_is_redrawn_in_place_and_says_what_it_waits_for(serve: Serve, tmp_path: Path):
    """On a terminal one block is redrawn; while it waits, a line says for what; at the end the cursor is back."""
    server = serve(3, rules=[on("mark", nth=1).do(EXECUTE, DROP)])
    files = ["--journal", str(tmp_path / "j.db"), "--out", str(tmp_path / "d.jsonl"), "--settle-time", "0.8"]
    terminal = Terminal("drain", *files, **settings_for(server), COLUMNS="200")
    assert terminal.end() == 0
    assert "Waiting 1 s at most for 1 conversation: " in terminal.seen
    assert "3 conversations" in terminal.seen
    assert "Nothing is left unread." in terminal.seen
    assert terminal.seen.rindex("\x1b[?25h") > terminal.seen.rindex("\x1b[?25l")


@needs("terminal", "signals")
def test_a_fetch_draws_a_bar(serve: Serve, tmp_path: Path):
    """On a terminal the share of the packs that are done is a bar, which is full at the end."""
    server = serve(20)
    (tmp_path / "packs.txt").write_text("\n".join(server.sandbox.pack_ids()))
    files = ["--packs", str(tmp_path / "packs.txt"), "--out", str(tmp_path / "o.jsonl")]
    terminal = Terminal("fetch", *files, **settings_for(server))
    assert terminal.end() == 0
    assert "\x1b[32m━" in terminal.seen
    assert "20 of 20 conversations" in terminal.seen


@needs("terminal", "signals")
def test_the_token_is_asked_for_and_not_shown(serve: Serve):
    """Without a token a terminal is asked; what is typed there is not shown, and works."""
    server = serve(1)
    terminal = Terminal("unread", MLMESSAGES_BASE_URL=server.base_url, MLMESSAGES_SELLER_ID=server.seller_id)
    terminal.wait_for("Access token")
    terminal.type(TOKEN.encode() + b"\n")
    assert terminal.end() == 0
    assert "1 conversation, 1 unread message." in terminal.seen
    assert TOKEN not in terminal.seen


@pytest.mark.parametrize("command", [["unread"], ["messages", "7"]])
@needs("terminal", "signals")
def test_ctrl_c_ends_the_question_for_the_token(command: list[str]):
    """Ctrl-C at the prompt: exit code 130, and nothing is sent."""
    terminal = Terminal(*command, MLMESSAGES_SELLER_ID="1", MLMESSAGES_BASE_URL="http://127.0.0.1:1")
    terminal.wait_for("Access token")
    terminal.type(b"\x03")
    assert terminal.end() == 130
    assert "Interrupted." in terminal.seen
    assert "Traceback" not in terminal.seen


@needs("terminal", "signals")
def test_ctrl_c_ends_a_wait_for_a_retry():
    """Ctrl-C while the client waits to try again: exit code 130, at once."""
    settings = {"MLMESSAGES_SELLER_ID": "1", "MLMESSAGES_BASE_URL": "http://127.0.0.1:1", "MLMESSAGES_TOKEN": "x"}
    terminal = Terminal("unread", **settings)
    terminal.wait_for("retry 2")
    terminal.type(b"\x03")
    assert terminal.end() == 130
    assert "Interrupted." in terminal.seen


@case("R2")
@needs("terminal", "signals")
@pytest.mark.parametrize(("answer", "marks"), [(b"n\n", False), (b"y\n", True)], ids=["no", "yes"])
def test_a_probe_asks_before_it_marks(serve: Serve, answer: bytes, marks: bool):
    """No is no: nothing is sent."""
    server = serve([Pack("11", messages=3)])
    terminal = Terminal("doctor", "--probe", "11", **settings_for(server))
    terminal.wait_for("Go on?")
    terminal.type(answer)
    assert terminal.end() == 0
    assert bool(server.sandbox.marked_ids()) is marks
    assert bool(server.sandbox.log) is marks
