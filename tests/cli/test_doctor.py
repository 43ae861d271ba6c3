"""`mlmessages doctor`: each verdict against the sandbox's behaviours, and nothing marked."""

from __future__ import annotations

import json
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from attrs import frozen

from cases import case
from cli.conftest import TOKEN, Serve, run
from mlmessages.auth.store import FileTokenStore
from mlmessages.cli.doctor import local
from mlmessages.models import Token
from mlmessages.testing import (
    DROP,
    Behaviour,
    Message,
    Pack,
    RateWindow,
    Reply,
    Rule,
    Sandbox,
    Server,
    on,
    serve_in_thread,
)
from needs import needs

PACKS = [Pack("11", messages=6, unread=3), Pack("12", messages=1)]
MOST_REQUESTS = 10


@frozen
class Visit:
    """What the doctor said, by the names of its checks."""

    code: int
    verdicts: dict[str, str]
    found: dict[str, str]
    next: dict[str, str | None]
    requests: int
    probe: dict[str, str] | None


def visit(server: Server, *args: str, **env: str) -> Visit:
    """Run the doctor; without `--probe` it must mark nothing."""
    before = len(server.sandbox.log)
    result = run("doctor", "--json", *args, server=server, **env)
    said = json.loads(result.stdout)
    checks = said["checks"]
    if "--probe" not in args:
        assert not server.sandbox.marked_ids()
        assert said["requests"] <= MOST_REQUESTS
    assert said["requests"] == len(server.sandbox.log) - before
    return Visit(
        result.exit_code,
        {check["check"]: check["verdict"] for check in checks},
        {check["check"]: check["found"] for check in checks},
        {check["check"]: check["next"] for check in checks},
        said["requests"],
        said["probe"],
    )


BEHAVIOURS: dict[str, dict[str, Any]] = {
    "documented": {},
    "cap": {"cap": 1},
    "total": {"total": True},
    "oldest listing": {"listing_order": "oldest"},
    "lag": {"lag": 5.0},
    "both spellings": {"spellings": "both"},
    "small pages": {"max_limit": 2, "echo_limit": "asked"},
    "no paging": {"paging": False},
    "total of the page": {"paging_total": "page"},
    "no total": {"paging_total": "absent"},
    "lies": {"total_lies": 7},
    "oldest first": {"order": "oldest"},
    "replica": {"page_lag": 5.0, "total_lag": 5.0, "read_lag": 5.0},
    "marks a page": {"marks": "page", "shows_read": True},
    "a peek marks": {"honours_peek": False},
    "flat": {"by_id": "flat", "by_id_resources": "orders"},
    "shape marketplace": {"shape": "marketplace"},
    "shape domestic": {"shape": "domestic"},
    "shape pending": {"shape": "pending"},
    "slow": {"latency": 0.05},
}


@case("R1")
@pytest.mark.parametrize("name", BEHAVIOURS)
@pytest.mark.parametrize("api", ["marketplace", "domestic"])
def test_a_good_account_is_good(serve: Serve, name: str, api: str):
    """Whatever the server does with pages and marks: all is good, and nothing is marked, not even by a server that
    marks peeks.
    """
    found = visit(serve(PACKS, behaviour=Behaviour(**BEHAVIOURS[name])), MLMESSAGES_API=api)
    assert found.code == 0
    del found.verdicts["clock"]  # the sandbox has a calendar of its own
    assert set(found.verdicts.values()) <= {"good"} | ({"look"} if name == "total" else set()), found
    assert found.found["paths"] == f"{api}: 200; {'domestic' if api == 'marketplace' else 'marketplace'}: 200"
    assert "200" in found.found["seller id"]


@case("R1")
def test_a_capped_listing_and_odd_rows_are_worth_a_look(serve: Serve):
    """The exit code stays 0, and the next step is named."""
    capped = visit(serve(3, behaviour=Behaviour(cap=2, total=True)))
    assert (capped.code, capped.verdicts["unread"]) == (0, "look")
    assert "drain reads past it" in str(capped.next["unread"])
    odd = visit(serve(PACKS, behaviour=Behaviour(odd_rows=[None, {"resource": "/orders/1", "count": 2}])))
    assert (odd.code, odd.verdicts["unread"]) == (0, "look")
    assert "2 rows without a pack" in odd.found["unread"]


@case("R1")
def test_a_seller_with_several_ids_is_told_which_answers(serve: Serve):
    """The listing names another id of the same seller: both answer, and both are named."""
    server = serve(PACKS, behaviour=Behaviour(listing_user_id=5550001, other_seller_ids=[5550001]))
    found = visit(server)
    assert (found.code, found.verdicts["seller id"], found.verdicts["whose listing"]) == (0, "good", "good")
    assert found.found["seller id"] == f"conversations are answered for {server.seller_id}: 200; 5550001: 200"


@case("R1")
def test_a_wrong_seller_id_is_bad_and_the_right_one_is_the_next_step(serve: Serve):
    """Exit code 1; the id of the listing answers."""
    server = serve(PACKS)
    found = visit(server, "--seller-id", "999")
    assert (found.code, found.verdicts["seller id"]) == (1, "bad")
    assert found.next["seller id"] == f"MLMESSAGES_SELLER_ID={server.seller_id}"
    assert found.verdicts["whose listing"] == "look"


@case("R1")
def test_a_wrong_seller_id_with_nothing_unread_is_worth_a_look(serve: Serve):
    """No conversation tells which id is right."""
    found = visit(serve(0), "--seller-id", "999")
    assert (found.code, found.verdicts["seller id"]) == (0, "look")
    assert "nothing is unread" in found.found["seller id"]


@case("R1")
def test_an_id_that_the_token_names_is_tried(serve: Serve):
    """Where the listing names none that fits, the digits at the end of the token are one more."""
    token = "APP_USR-1234567890-112233-abcdef-77700012"
    sandbox = Sandbox(PACKS, token=token, clock=time.monotonic, rules=[on("probe").do(Reply(403))])
    with serve_in_thread(sandbox) as server:
        found = visit(server)
    assert (found.code, found.verdicts["seller id"]) == (1, "bad")
    assert "77700012: 403" in found.found["seller id"]


@case("R1")
def test_the_other_family_of_paths_is_named(serve: Serve):
    """Exit code 1, and the option that helps."""
    server = serve(PACKS, rules=[on("listing", path="/marketplace/").do(Reply(404))])
    found = visit(server)
    assert (found.code, found.verdicts["paths"]) == (1, "bad")
    assert found.next["paths"] == "--api domestic"
    assert found.verdicts["token"] == "good"


@case("R1")
@pytest.mark.parametrize(
    ("answer", "check", "verdict", "code"),
    [
        (Reply(401), "token", "bad", 1),
        (Reply(403, {"code": "PA_UNAUTHORIZED_RESULT_FROM_POLICIES", "blocked_by": "PolicyAgent", "status": 403}), "token", "bad", 1),
        (Reply(429), "connection", "look", 0),
        (Reply(503), "connection", "bad", 1),
        (Reply(200, "<html>"), "token", "unknown", 1),
        (Reply(404), "paths", "bad", 1),
    ],
    ids=["401", "403", "429", "503", "html", "404"],
)  # fmt: skip
def test_a_refused_listing_is_told(serve: Serve, answer: Reply, check: str, verdict: str, code: int):
    """Each as what it is, with what to do."""
    found = visit(serve(PACKS, rules=[on("listing").do(answer)]))
    assert (found.code, found.verdicts[check]) == (code, verdict)
    assert verdict != "bad" or found.next[check]


@case("R1")
def test_a_server_that_is_not_there_is_told_in_seconds(tmp_path: Path):
    """No retries: one line says that the connection is refused."""
    began = time.monotonic()
    result = run(
        "doctor", "--json", MLMESSAGES_BASE_URL="http://127.0.0.1:1", MLMESSAGES_SELLER_ID="1", MLMESSAGES_TOKEN=TOKEN
    )
    assert result.exit_code == 1
    [connection] = [check for check in json.loads(result.stdout)["checks"] if check["check"] == "connection"]
    assert (connection["verdict"], "refused" in connection["found"]) == ("bad", True)
    assert time.monotonic() - began < 10


@case("R1")
def test_a_clock_that_is_wrong_is_told(serve: Serve):
    """The sandbox lives in March 2026."""
    found = visit(serve(PACKS))
    assert found.verdicts["clock"] == "look"
    assert " s ahead of the server's" in found.found["clock"]


@case("R1")
def test_headers_about_the_rate_are_shown(serve: Serve):
    """With their values where these are harmless."""
    headers = {"X-RateLimit-Remaining": "499", "X-Rate-Limit-Note": "<b>", "Content-Type": "application/json"}
    body = {"user_id": 700100200, "results": []}
    found = visit(serve(PACKS, rules=[on("listing", nth=1).do(Reply(200, body, headers=headers))]))
    assert found.verdicts["rate"] == "look"
    assert "x-ratelimit-remaining: 499" in found.found["rate"]
    assert "<b>" not in found.found["rate"]


@case("R1")
def test_the_budget_of_the_minute_may_be_spent(serve: Serve):
    """A 429 is no fault of the settings."""
    server = serve(PACKS, behaviour=Behaviour(rate=RateWindow(reads=1)))
    run("unread", server=server)
    assert visit(server).verdicts["connection"] == "look"


def save(file: Path, **changes: Any) -> None:
    """A token file of `mlmessages auth`."""
    import asyncio

    now = datetime.now(UTC)
    fields: dict[str, Any] = {
        "access_token": TOKEN,
        "refresh_token": "TG-canary-0001",
        "expires_at": now + timedelta(hours=6),
        "issued_at": now,
        "user_id": "700100200",
        **changes,
    }
    asyncio.run(FileTokenStore(file).save(Token(**fields)))


APPLICATION = {"MLMESSAGES_CLIENT_ID": "1", "MLMESSAGES_CLIENT_SECRET": "canary-secret"}


@case("R1")
@pytest.mark.parametrize(
    ("changes", "verdict", "said"),
    [
        ({}, "good", "is good for 6.0 h"),
        ({"refresh_token": None}, "bad", "there is none to renew it"),
        ({"refresh_issued_at": datetime(2020, 1, 1, tzinfo=UTC)}, "bad", "ended on"),
        ({"refresh_sent_at": datetime.now(UTC)}, "look", "never kept"),
        ({"refresh_issued_at": datetime.now(UTC) - timedelta(days=178)}, "look", "the refresh token ends on"),
    ],
    ids=["good", "no refresh", "ended", "unanswered", "soon"],
)
def test_the_token_file_is_looked_at(serve: Serve, tmp_path: Path, changes: dict[str, Any], verdict: str, said: str):
    """How long it lasts; neither token is shown."""
    save(tmp_path / "tokens", **changes)
    found = visit(serve(PACKS), MLMESSAGES_TOKEN="", MLMESSAGES_TOKEN_FILE=str(tmp_path / "tokens"), **APPLICATION)
    assert (found.verdicts["token life"], said in found.found["token life"]) == (verdict, True)
    assert found.verdicts["token file"] == "good"
    assert "TG-canary" not in str(found)


@case("R1")
@needs("modes")
def test_a_plain_token_file_that_others_may_read_is_bad(serve: Serve, tmp_path: Path):
    """With the command that helps."""
    file = tmp_path / "token"
    file.write_text(TOKEN)
    file.chmod(0o644)
    found = visit(serve(PACKS), MLMESSAGES_TOKEN="", MLMESSAGES_TOKEN_FILE=str(file))
    assert (found.code, found.verdicts["token file"], found.verdicts["token life"]) == (1, "bad", "look")
    assert str(found.next["token file"]).startswith("chmod 600 ")


@case("R1")
def test_a_journal_is_looked_at(serve: Serve, tmp_path: Path):
    """Whether there is one, whose it is, and what is parked in it."""
    server, journal = serve(PACKS), tmp_path / "j.db"
    assert visit(server, "--journal", str(journal)).verdicts["journal"] == "good"
    assert visit(server, "--journal", str(tmp_path / "no" / "j.db")).verdicts["journal"] == "bad"
    server.sandbox.refuse(["12"])
    assert run("drain", "--journal", str(journal), "--out", str(tmp_path / "d.jsonl"), server=server).exit_code == 3
    result = json.loads(run("doctor", "--json", "--journal", str(journal), server=server).stdout)
    [content] = [check for check in result["checks"] if check["check"] == "journal's content"]
    assert (content["verdict"], content["found"]) == ("look", "1 parked, 0 with dead letters")
    other = json.loads(run("doctor", "--json", "--journal", str(journal), "--seller-id", "5", server=server).stdout)
    [content] = [check for check in other["checks"] if check["check"] == "journal's content"]
    assert (content["verdict"], "it is of seller 700100200" in content["found"]) == ("bad", True)
    journal.write_bytes(b"a diary" * 100)
    broken = json.loads(run("doctor", "--json", "--journal", str(journal), server=server).stdout)
    [content] = [check for check in broken["checks"] if check["check"] == "journal's content"]
    assert content["verdict"] == "bad"


@case("R1")
def test_a_proxy_of_the_environment_is_named(serve: Serve):
    """It is not used without being asked for; its password is not shown."""
    found = visit(serve(PACKS), HTTPS_PROXY="http://u:canary@proxy:3128", NO_PROXY="")
    assert found.verdicts["proxy"] == "look"
    assert "canary" not in str(found)


@case("R1")
def test_file_systems_are_told_apart(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """A journal on a network's disk is bad."""
    monkeypatch.setattr(local, "file_system", lambda path: "nfs4")
    [found] = local._journal(tmp_path / "j.db", "1")
    assert (found.verdict.value, "nfs4" in found.found) == ("bad", True)


@case("R1")
@pytest.mark.parametrize(
    ("env", "check", "said"),
    [
        ({"MLMESSAGES_TOKEN": ""}, "token", "There is no access token"),
        ({"MLMESSAGES_TOKEN": "", "MLMESSAGES_TOKEN_FILE": "missing"}, "token file", "does not exist"),
        ({"MLMESSAGES_SELLER_ID": "me"}, "settings", "seller_id must be"),
        ({"MLMESSAGES_BASE_URL": "http://example.com"}, "settings", "base_url must be"),
        ({"MLMESSAGES_PROXY": "socks5://u:canary@x"}, "proxy", "proxy must be"),
    ],
    ids=["token", "file", "seller", "url", "proxy"],
)
def test_settings_that_cannot_be_used_are_bad(
    serve: Serve, env: dict[str, str], check: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """A doctor says what is wrong with them, in the table, and sends nothing."""
    monkeypatch.chdir(tmp_path)
    server = serve(PACKS)
    result = run("doctor", "--json", server=server, **env)
    assert result.exit_code == 1
    found = [
        each for each in json.loads(result.stdout)["checks"] if each["check"] == check and each["verdict"] == "bad"
    ]
    assert said in found[0]["found"]
    assert found[0]["next"]
    assert "canary" not in result.output
    assert not server.sandbox.log


@case("R1")
@needs("modes")
def test_a_token_file_that_others_may_read_is_bad(serve: Serve, tmp_path: Path):
    """That of `mlmessages auth` is refused, and the doctor says why."""
    save(tmp_path / "tokens")
    (tmp_path / "tokens").chmod(0o644)
    env = {"MLMESSAGES_TOKEN": "", "MLMESSAGES_TOKEN_FILE": str(tmp_path / "tokens"), **APPLICATION}
    found = visit(serve(PACKS), **env)
    assert (found.code, found.verdicts["token file"]) == (1, "bad")


@case("R1")
@pytest.mark.parametrize(
    ("modes", "kind", "said"),
    [(False, None, "Windows has no mode 0600"), (True, "vfat", "vfat, keeps no modes"), (True, "nfs4", "nfs4")],
    ids=["windows", "vfat", "nfs"],
)
def test_where_modes_mean_nothing_it_is_said(
    serve: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, modes: bool, kind: str | None, said: str
):
    """What protects a file with tokens there."""
    monkeypatch.setattr(local, "_HAS_MODES", modes)
    monkeypatch.setattr(local, "file_system", lambda path: kind)
    save(tmp_path / "tokens")
    env = {"MLMESSAGES_TOKEN": "", "MLMESSAGES_TOKEN_FILE": str(tmp_path / "tokens"), **APPLICATION}
    found = visit(serve(PACKS), **env)
    assert (found.code, said in found.found["token file"]) == (0, True)


@case("R1")
def test_a_folder_that_cannot_be_written_to_is_bad(serve: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The journal needs more than its own file."""
    monkeypatch.setattr(local.os, "access", lambda *_: False)
    assert visit(serve(PACKS), "--journal", str(tmp_path / "j.db")).verdicts["journal"] == "bad"


@case("R1")
def test_the_file_system_is_that_of_the_longest_mount(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """As Linux lists them; other systems do not say."""
    assert (local.file_system(tmp_path) is not None) == (sys.platform == "linux")
    monkeypatch.setattr(local.sys, "platform", "darwin")
    assert local.file_system(tmp_path) is None


@case("R1")
def test_it_is_a_table(serve: Serve):
    """A line a check, with a verdict and the next step; how many requests it was on stderr."""
    result = run("doctor", server=serve(PACKS))
    lines = result.stdout.splitlines()
    assert lines[0].split() == ["check", "verdict", "found", "next", "step"]
    assert any(line.split()[:2] == ["paths", "good"] for line in lines)
    assert "requests sent; nothing was marked." in result.stderr


# -- the probe ---------------------------------------------------------------------------------------------------------


def probe(server: Server, *more: str) -> dict[str, str]:
    found = visit(server, "--probe", "11", "--yes", *more)
    assert found.probe is not None, found
    return found.probe


@case("R2")
@pytest.mark.parametrize(
    ("behaviour", "question", "answer"),
    [
        ({}, "mark_scope", "the whole conversation (limit=1, 60 unread)"),
        ({"marks": "page"}, "mark_scope", "what it returns: 1 of 60 with limit=1"),
        ({}, "mark_as_read_false", "holds: the count stayed"),
        ({"honours_peek": False}, "mark_as_read_false", "does NOT hold: the count went from 60 to 0"),
        ({"honours_peek": False, "marks": "page"}, "mark_as_read_false", "does NOT hold: the count went from 60 to 35"),
        ({}, "limit_above_50", "gives 100 rows"),
        ({"max_limit": 50}, "limit_above_50", "gives 50 rows; paging.limit is 50"),
        ({"max_limit": 20, "echo_limit": "asked"}, "limit_above_50", "gives 20 rows; paging.limit is 100"),
        ({}, "order", "newest first"),
        ({"order": "oldest"}, "order", "oldest first"),
        ({}, "offset_at_the_end", "200, 0 rows"),
        ({}, "unread_of", "200, count 60 before the mark; count 0 after it"),
        ({"marks": "page"}, "unread_of", "200, count 60 before the mark; count 0 after it"),
        ({}, "read_dates", "the marking answer does not show them; the next read does"),
        ({"shows_read": True}, "read_dates", "the marking answer shows them"),
        ({"read_lag": 60.0}, "read_dates", "the marking answer does not show them; nor does the next read"),
        ({}, "paging_total", "120, with 50 rows on the first page"),
        ({"paging_total": "page"}, "paging_total", "50, as many as the rows"),
        ({"paging_total": "absent"}, "paging_total", "absent"),
        ({"total_lies": lambda total: 3}, "paging_total", "3, fewer than the 50 rows"),
        ({}, "listing_lag", "none: the next listing is without it"),
        ({"lag": 0.8}, "listing_lag", "between 0."),
        ({"shape": "pending"}, "mark_scope", "the whole conversation"),
    ],
    ids=range(23),
)  # fmt: skip
def test_the_probe_finds_out(serve: Serve, behaviour: dict[str, Any], question: str, answer: str):
    """Each question that the documentation leaves open, answered right in each behaviour of the sandbox."""
    server = serve([Pack("11", messages=120, unread=60), Pack("12")], behaviour=Behaviour(**behaviour))
    assert answer in probe(server)[question]


@case("R2")
def test_what_one_conversation_cannot_tell_is_not_told(serve: Serve):
    """One read message says nothing of marks, limits, order and lag."""
    found = probe(serve([Pack("11", messages=1, unread=0), Pack("12")]))
    assert all(
        "not told" in found[key]
        for key in ("mark_scope", "mark_as_read_false", "limit_above_50", "order", "listing_lag")
    )


@case("R2")
@pytest.mark.parametrize(
    ("rule", "question", "answer"),
    [
        (on("probe").do(Reply(404)), "mark_scope", "not told: no count"),
        (on("probe").do(Reply(404)), "mark_as_read_false", "not told: no count"),
        (on("peek", nth=2).do(Reply(400)), "limit_above_50", "refused: 400"),
        (on("peek", nth=3).do(Reply(400)), "offset_at_the_end", "400"),
        (on("mark").do(Reply(500)), "mark_scope", "not told: 500"),
        (on("listing", nth=4).do(Reply(429)), "listing_lag", "not told: the listing was refused"),
        (on("listing", nth=3).do(Reply(429)), "listing_lag", "not told: it was not listed before"),
        (on("mark").do(DROP), "mark_scope", "not told: AnswerLost"),
    ],
    ids=range(8),
)
def test_what_the_server_refuses_is_not_told(serve: Serve, rule: Rule, question: str, answer: str):
    """One refusal ends nothing: the other questions are answered."""
    server = serve([Pack("11", messages=120, unread=60), Pack("12")], rules=[rule])
    found = probe(server)
    assert answer in found[question]
    assert found["order"] == "newest first (50 dates)"


@case("R2")
def test_a_listing_that_never_catches_up(serve: Serve, monkeypatch: pytest.MonkeyPatch):
    """The looks end; hidden messages are such a case."""
    monkeypatch.setattr("mlmessages.cli.doctor.probe._POLLS", (0.0, 0.01))
    server = serve([Pack("11", messages=6, unread=3), Pack("12")], behaviour=Behaviour(lag=3600.0))
    assert "more than" in probe(server)["listing_lag"]
    hidden = [Message("Test"), Message("Test", hidden=True), Message("Test")]
    assert "1 still count as unread" in probe(serve([Pack("11", messages=hidden)]))["listing_lag"]


@case("R2")
def test_dates_that_go_up_and_down_are_mixed(serve: Serve):
    """And those that are all the same tell nothing."""

    def pack(*moments: str) -> Pack:
        rows = [
            Message("Test", overrides={"message_date": {"created": f"2026-03-02T{moment}:00Z"}}) for moment in moments
        ]
        return Pack("11", messages=rows)

    assert probe(serve([pack("10:00", "12:00", "11:00")]))["order"] == "mixed (3 dates)"
    assert "not told" in probe(serve([pack("10:00", "10:00")]))["order"]


@case("R2")
def test_the_block_has_no_ids_names_or_texts(serve: Serve):
    """It is made to be pasted into an issue."""
    server = serve([Pack("2000001234567890", messages=6, unread=3)])
    result = run("doctor", "--probe", "2000001234567890", "--yes", server=server)
    block = result.stdout.split("```")[1]
    assert "a marking GET marks:" in block
    for word in ("2000001234567890", server.seller_id, "127.0.0.1", TOKEN, *server.sandbox.message_ids()):
        assert word not in block
    assert "the conversation is marked" in result.stderr


@case("R2")
def test_a_conversation_that_is_refused_is_told(serve: Serve):
    """Nothing is marked, and the exit code is 1."""
    server = serve(PACKS)
    server.sandbox.refuse(["11"])
    found = visit(server, "--probe", "11", "--yes")
    assert (found.code, found.verdicts["probe"], found.probe) == (1, "bad", None)
    assert not server.sandbox.marked_ids()


@case("R2")
def test_the_probe_asks_first(serve: Serve):
    """Without a terminal, --yes is needed: misuse, and nothing is sent."""
    server = serve(PACKS)
    result = run("doctor", "--probe", "11", server=server)
    assert result.exit_code == 2
    assert "--yes" in result.stderr
    wrong = run("doctor", "--probe", "x", "--yes", server=server)
    assert wrong.exit_code == 2
    assert not server.sandbox.log


@case("R1")
@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("settings", {"MLMESSAGES_BASE_URL": "https://user:hunter2-hunter2@api.example.com"}),
        ("settings", {"MLMESSAGES_BASE_URL": "http://api.example.com"}),
        ("settings", {"MLMESSAGES_SELLER_ID": "abc"}),
        ("proxy", {"MLMESSAGES_PROXY": "gopher://user:hunter2-hunter2@proxy.example"}),
        ("token file", {"MLMESSAGES_TOKEN": "", "MLMESSAGES_TOKEN_FILE": "no such file"}),
        ("token", {"MLMESSAGES_TOKEN": ""}),
    ],
    ids=str,
)
def test_what_is_wrong_is_judged_once(serve: Serve, name: str, settings: dict[str, str]):
    """One check is bad and none calls the same thing good; no password of a URL is shown, and nothing is sent."""
    server = serve(PACKS)
    result = run("doctor", "--json", server=server, **settings)
    checks = json.loads(result.stdout)["checks"]
    assert [check["check"] for check in checks if check["verdict"] == "bad"] == [name]
    assert len({check["check"] for check in checks}) == len(checks)
    assert not (name == "token" and "token source" in [check["check"] for check in checks])
    assert "hunter2" not in result.output
    assert (result.exit_code, server.sandbox.log) == (1, [])


@case("R1")
def test_an_advice_is_given_once(serve: Serve):
    """Where the token is refused, the next step stands beside the token alone, and not in what was found as well."""
    refusal = Reply(403, {"message": "forbidden", "error": "forbidden"})
    checks = json.loads(run("doctor", "--json", server=serve(PACKS, rules=[on("listing").do(refusal)])).stdout)
    texts = [text for check in checks["checks"] for text in (check["found"], check["next"]) if text]
    assert sum("Model 6" in text for text in texts) == 1
