"""`mlmessages demo`: what a newcomer sees first."""

from __future__ import annotations

import asyncio
import re

import pytest

from cases import case
from cli.conftest import interrupted_by_a_line, piped, run
from mlmessages import MessagesClient
from mlmessages.cli.commands.demo import check
from mlmessages.testing import Sandbox
from needs import needs


def test_it_drains_everything_and_checks_it():
    """Every conversation is delivered, read and marked; the summary is on stdout and says what was checked."""
    result = run("demo", "--packs", "30")
    assert result.exit_code == 0
    assert re.search(r"✓ +delivered +30 of 30 conversations, 90 of 90 messages", result.stdout)
    assert re.search(r"✓ +left unread +none", result.stdout)
    assert re.search(r"✓ +marked unseen +none", result.stdout)
    assert "62: 2 listings, 30 reads, 30 marks; no 429" in result.stdout
    assert "checked against the sandbox's own records" in result.stdout


def test_it_goes_past_the_cap():
    """More conversations than the list shows are all delivered, in ceil(N / cap) + 1 listings."""
    result = run("demo", "--packs", "1100")
    assert result.exit_code == 0
    assert "1,100 of 1,100 conversations, 3,300 of 3,300 messages" in result.stdout
    assert "3 listings" in result.stdout


def test_it_says_on_stderr_what_it_is_and_how_fast_it_runs():
    """The sandbox, the number of conversations, the cap, and that time is compressed, in one line each."""
    said = run("demo", "--packs", "1001").stderr
    assert re.search(r"Sandbox at http://127\.0\.0\.1:\d+: 1,001 unread conversations, 1,000 a listing\.", said)
    assert "Time runs 100 times faster: 500 requests in 0.6 s instead of in a minute." in said


def test_without_a_terminal_it_prints_plain_lines():
    """In a pipe: a line a second and one at the end, no escape sequences, and only the summary on stdout."""
    result = piped("demo", "--packs", "600")
    assert result.returncode == 0
    lines = result.stderr.decode().splitlines()
    pattern = r"[\d,]+ of 600 conversations · [\d,]+ messages · \d listings? · [\d,]+ requests · [\d,]+ a second"
    progress = [line for line in lines if re.fullmatch(pattern, line)]
    assert len(progress) >= 2
    assert progress[-1].startswith("600 of 600 conversations · 1,800 messages · 2 listings · 1,202 requests")
    assert b"\x1b" not in result.stderr + result.stdout
    assert b" of 600 conversations \xc2\xb7" not in result.stdout


def test_a_build_log_with_colours_gets_no_bar():
    """FORCE_COLOR colours the lines, and makes no terminal out of a pipe: nothing moves the cursor."""
    result = piped("demo", "--packs", "5", FORCE_COLOR="1")
    assert result.returncode == 0
    assert not re.search(rb"\x1b\[[0-9;?]*[A-HJKlh]", result.stderr)


def test_an_output_without_unicode_crashes_nothing():
    """In ASCII the marks and dots of the summary have substitutes."""
    result = piped("demo", "--packs", "5", PYTHONIOENCODING="ascii")
    assert result.returncode == 0
    assert b"+  delivered" in result.stdout
    assert b"5 of 5 conversations - 15 messages" in result.stderr


def test_it_needs_no_setting_and_reads_none():
    """Whatever the environment says of a real account is not touched."""
    result = run("demo", "--packs", "3", MLMESSAGES_BASE_URL="https://example.com", MLMESSAGES_TOKEN="two words")
    assert result.exit_code == 0


def test_ctrl_c_ends_it_with_a_line_and_130():
    """In the middle of the drain: exit code 130, how far it got, no traceback, no warning."""
    with interrupted_by_a_line("demo") as process:
        assert process.stderr is not None
        for line in process.stderr:
            if " a second" in line:
                break
        stdout, stderr = process.communicate("now\n", timeout=30)
    assert process.returncode == 130
    assert re.search(
        r"^Interrupted: [\d,]+ of 2,500 conversations were delivered; .* still unread\.$", stderr, re.MULTILINE
    )
    assert "Traceback" not in stderr
    assert "Warning" not in stderr
    assert stdout == ""


# -- the check itself: it must be able to fail


def findings(sandbox: Sandbox, packs: set[str], messages: set[str]) -> dict[str, tuple[bool, str]]:
    return {finding.what: (finding.ok, finding.figures) for finding in check(sandbox, packs, messages)}


def read(sandbox: Sandbox, pack: str, *, mark: bool) -> set[str]:
    async def main() -> set[str]:
        async with (
            sandbox.serve() as server,
            MessagesClient(server.token, seller_id=server.seller_id, base_url=server.base_url) as client,
        ):
            return {message.id async for message in client.messages(pack, mark_as_read=mark)}

    return asyncio.run(main())


def test_the_check_passes_when_all_was_delivered_and_marked():
    """Everything delivered and nothing unread: three times yes."""
    sandbox = Sandbox(packs=1)
    messages = read(sandbox, *sandbox.pack_ids(), mark=True)
    assert findings(sandbox, set(sandbox.pack_ids()), messages) == {
        "delivered": (True, "1 of 1 conversation, 1 of 1 message"),
        "left unread": (True, "none"),
        "marked unseen": (True, "none"),
    }


def test_the_check_finds_what_was_marked_and_not_delivered():
    """A message that the server shows as read, and that was not handed over, is found, and so is the conversation."""
    sandbox = Sandbox(packs=2)
    first, second = sandbox.pack_ids()
    messages = read(sandbox, first, mark=True)
    read(sandbox, second, mark=True)
    assert findings(sandbox, {first}, messages) == {
        "delivered": (False, "1 of 2 conversations, 1 of 2 messages"),
        "left unread": (True, "none"),
        "marked unseen": (False, "1 message"),
    }


def test_the_check_finds_what_is_still_unread():
    """A conversation that was delivered and not marked is found."""
    sandbox = Sandbox(packs=1)
    messages = read(sandbox, *sandbox.pack_ids(), mark=False)
    found = findings(sandbox, set(sandbox.pack_ids()), messages)
    assert found["left unread"] == (False, "1 conversation")
    assert found["delivered"][0]
    assert found["marked unseen"][0]


def test_a_message_that_arrives_is_part_of_the_check():
    """What the sandbox got later counts as not delivered and as unread."""
    sandbox = Sandbox(packs=1)
    messages = read(sandbox, *sandbox.pack_ids(), mark=True)
    sandbox.send(sandbox.pack_ids()[0])
    found = findings(sandbox, set(sandbox.pack_ids()), messages)
    assert not found["delivered"][0]
    assert not found["left unread"][0]
    assert found["marked unseen"][0]


def test_a_lost_message_ends_in_exit_code_1(monkeypatch: pytest.MonkeyPatch):
    """Where the sandbox's records disagree, the summary shows it, no line claims success, and the exit code is 1."""

    class Forgetful(Sandbox):
        def message_ids(self) -> set[str]:
            return super().message_ids() | {"019cae6a7ba07000deadbeefdeadbeef"}

    monkeypatch.setattr("mlmessages.testing.Sandbox", Forgetful)
    result = run("demo", "--packs", "2")
    assert result.exit_code == 1
    assert re.search(r"✗ +delivered +2 of 2 conversations, 6 of 7 messages", result.stdout)
    assert "Nothing left" not in result.stdout
    assert result.stderr.splitlines()[-1].startswith("Error: ")


@case("S46")
@needs("signals")
def test_three_workers_lose_nothing_when_one_is_killed() -> None:
    """`--fleet`: a PostgreSQL of its own, sixty sellers, a kill, and the check against the sandbox's records."""
    result = piped("demo", "--fleet", "--packs", "240")
    shown, told = result.stdout.decode(), result.stderr.decode()
    assert result.returncode == 0, told
    assert "240 of 240 conversations, 720 of 720 messages" in shown
    assert "Nothing left, nothing lost" in shown
    assert "was killed with" in shown
    assert "no 429" in shown
