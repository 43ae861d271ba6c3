"""`mlmessages unread`."""

from __future__ import annotations

import json

import pytest

from cli.conftest import Serve, piped, run
from mlmessages.testing import Behaviour, Pack, Reply, on


def test_it_lists_every_conversation_as_a_row(serve: Serve):
    """Pack, how many are unread, and the resource; the sum is on stderr."""
    packs = [Pack(pack_id=11, messages=3), Pack(pack_id=22, messages=1)]
    result = run("unread", server=serve(packs))
    rows = [line.split() for line in result.stdout.splitlines()]
    assert rows == [["pack", "unread", "resource"], ["22", "1", "/packs/22"], ["11", "2", "/packs/11"]]
    assert result.stderr == "2 conversations, 3 unread messages.\n"
    assert result.exit_code == 0


def test_it_marks_nothing_and_asks_once(serve: Serve):
    """One request, and everything is as unread as before."""
    server = serve(3)
    run("unread", server=server)
    assert [entry.kind for entry in server.sandbox.log] == ["listing"]
    assert server.sandbox.unread == 3


def test_nothing_unread_is_said(serve: Serve):
    """An empty list prints no table."""
    result = run("unread", server=serve(0))
    assert (result.exit_code, result.stdout, result.stderr) == (0, "", "Nothing is unread.\n")


@pytest.mark.parametrize("packs", [0, 2])
@pytest.mark.parametrize("args", [[], ["--json"], ["--ids"]], ids=str)
def test_the_list_of_another_user_is_said_with_what_to_do(serve: Serve, packs: int, args: list[str]):
    """Both ids and the next step, also where nothing is unread.

    The exit code stays 0: the list alone is no proof, because a Global Selling seller has several ids.
    """
    server = serve(packs)
    result = run("unread", *args, server=server, MLMESSAGES_SELLER_ID="999")
    last = result.stderr.splitlines()[-1]
    assert f"user {server.seller_id}, not of seller 999: is the seller id right?" in last
    assert "mlmessages doctor" in last
    assert (result.exit_code, server.sandbox.count("listing")) == (0, 1)


def test_a_capped_list_is_said(serve: Serve):
    """Where there may be more than the server lists, stderr says so; where not, it does not."""
    assert "There may be more" in run("unread", server=serve(1001)).stderr
    assert "There may be more" not in run("unread", server=serve(999)).stderr


def test_json_is_one_object(serve: Serve):
    """`--json`: whose list it is, whether it is capped, and its rows."""
    result = run("unread", "--json", server=serve(6, behaviour=Behaviour(cap=5, total=True)))
    assert result.stdout.count("\n") == 1
    found = json.loads(result.stdout)
    assert (found["user_id"], found["capped"], len(found["packs"])) == ("700100200", True, 5)
    row = {"pack_id": "2000000000000006", "count": 1, "resource": "/packs/2000000000000006"}
    assert found["packs"][0] == row


def test_an_empty_list_is_json_too(serve: Serve):
    """`--json` prints its object also when nothing is unread."""
    assert json.loads(run("unread", "--json", server=serve(0)).stdout)["packs"] == []


def test_a_resource_cannot_act_on_the_terminal(serve: Serve):
    """Control characters in what the server calls a conversation are shown as escapes, in the table and in JSON."""
    hostile = "/packs/7/\x1b[2J\u202e[bold]:smile:"
    listing = {"user_id": 1, "results": [{"resource": hostile, "count": 1}]}
    server = serve(0, rules=[on("listing").do(Reply(200, listing))])
    table, as_json = run("unread", server=server).stdout, run("unread", "--json", server=server).stdout
    assert r"/packs/7/\x1b[2J\u202e[bold]:smile:" in table
    assert json.loads(as_json)["packs"][0]["resource"] == hostile
    assert not {"\x1b", "\u202e"} & set(table + as_json)


def test_a_pipe_gets_whole_rows(serve: Serve):
    """In a pipe no row is folded or cut, whatever COLUMNS says of a terminal, and nothing is coloured."""
    resource = "/packs/7/sellers/700100200/conversations/" + "x" * 200
    rules = [on("listing").do(Reply(200, {"user_id": 1, "results": [{"resource": resource, "count": 1}]}))]
    result = piped("unread", server=serve(0, rules=rules), FORCE_COLOR="")
    assert resource.encode() in result.stdout
    assert b"\x1b" not in result.stdout
