"""Options that several commands share: `-v`, `--proxy`, `--schema`, and how long a command waits for a server."""

from __future__ import annotations

import http.server
import json
import re
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from cases import case
from cli.conftest import PROGRAM, TOKEN, Serve, environment, json_lines, run, settings_for
from mlmessages.testing import Pack, Reply, on
from needs import needs


@case("R6")
def test_v_says_each_request(serve: Serve):
    """A line each, with path, status and time, on stderr; without it there is none; the token is in no line."""
    server = serve([Pack("11")])
    quiet = run("messages", "11", server=server)
    loud = run("messages", "11", "-v", server=server)
    assert "GET" not in quiet.stderr
    assert re.search(r"^GET /messages/packs/\S+: 200 in \d+\.\d+ s$", loud.stderr, re.MULTILINE)
    assert loud.stdout == quiet.stdout


@case("R6")
def test_vv_says_when(serve: Serve):
    """With the time; and the next command is quiet again."""
    server = serve([Pack("11")])
    assert re.search(r"^\d\d:\d\d:\d\d\.\d\d\d GET ", run("messages", "11", "-vv", server=server).stderr, re.MULTILINE)
    assert "GET" not in run("messages", "11", server=server).stderr


@case("R6")
def test_a_refused_connection_is_told_in_seconds(tmp_path: Path):
    """A command whose user waits does not try for a quarter of a minute."""
    began = time.monotonic()
    settings = {"MLMESSAGES_BASE_URL": "http://127.0.0.1:1", "MLMESSAGES_SELLER_ID": "1", "MLMESSAGES_TOKEN": TOKEN}
    result = run("unread", **settings)
    assert result.exit_code == 1
    assert "refused" in result.stderr
    assert time.monotonic() - began < 10


class Proxy(http.server.BaseHTTPRequestHandler):
    """Answers every request itself, and notes it."""

    asked: list[str]

    def do_GET(self) -> None:
        self.asked.append(f"{self.path} {self.headers.get('Proxy-Authorization')}")
        body = b'{"user_id": 1, "results": []}'
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def proxy() -> Iterator[tuple[str, list[str]]]:
    """A proxy's address without its scheme, and what it was asked."""
    asked: list[str] = []
    handler = type("Handler", (Proxy,), {"asked": asked})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"127.0.0.1:{server.server_port}", asked
        finally:
            server.shutdown()
            thread.join()


@case("R5")
@pytest.mark.parametrize("how", ["option", "variable", "environment"])
def test_requests_go_through_a_proxy_on_request(how: str):
    """By an option, a variable of ours, or the one of the environment that is asked for; its password is not shown."""
    with proxy() as (address, asked):
        url = f"http://user:canary@{address}"
        args, env = {
            "option": (["--proxy", url], {}),
            "variable": ([], {"MLMESSAGES_PROXY": url}),
            "environment": (["--proxy", "environment"], {"HTTPS_PROXY": url}),
        }[how]
        settings = {"MLMESSAGES_BASE_URL": "http://127.0.0.1:1", "MLMESSAGES_SELLER_ID": "1", "MLMESSAGES_TOKEN": TOKEN}
        result = run("unread", *args, "-v", **settings, **env)
    assert result.exit_code == 0, result.output
    assert asked[0].startswith("http://127.0.0.1:1/marketplace/messages/unread")
    assert "Basic" in asked[0]
    assert "canary" not in result.output


@case("R5")
def test_a_proxy_that_only_the_environment_names_is_not_used(serve: Serve):
    """It has to be asked for."""
    with proxy() as (address, asked):
        assert (
            run("unread", server=serve(1), HTTPS_PROXY=f"http://{address}", HTTP_PROXY=f"http://{address}").exit_code
            == 0
        )
    assert asked == []


@case("R5")
@pytest.mark.parametrize(
    "args", [["--proxy", "environment"], ["--proxy", "socks5://u:canary@x:1"]], ids=["none", "socks"]
)
def test_a_proxy_that_cannot_be_used_is_misuse(args: list[str], serve: Serve, monkeypatch: pytest.MonkeyPatch):
    """In a line, without its password."""
    for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    result = run("unread", *args, server=serve(1))
    assert (result.exit_code, len(result.stderr.splitlines())) == (2, 1)
    assert "canary" not in result.output


# -- the lines and their schema ----------------------------------------------------------------------------------------


def conforms(value: object, schema: dict[str, Any], where: str = "line") -> None:
    """Check `value` against the part of JSON schema that ours uses."""
    kinds = schema.get("type", [])
    kinds = [kinds] if isinstance(kinds, str) else kinds
    names = {"object": dict, "array": list, "string": str, "boolean": bool, "integer": int, "null": type(None)}
    assert not kinds or type(value) in [names[kind] for kind in kinds], where
    if isinstance(value, str) and "pattern" in schema:
        assert re.search(schema["pattern"], value), where
    if isinstance(value, dict):
        properties = schema.get("properties", {})
        assert set(schema.get("required", [])) <= value.keys(), where
        assert schema.get("additionalProperties", True) or value.keys() <= properties.keys(), where
        for key, inner in properties.items():
            if key in value:
                conforms(value[key], inner, f"{where}.{key}")
    if isinstance(value, list):
        for number, inner in enumerate(value):
            conforms(inner, schema.get("items", {}), f"{where}[{number}]")


def schema_of(*args: str) -> dict[str, Any]:
    result = run(*args, "--schema")
    assert result.exit_code == 0
    return dict(json.loads(result.stdout))


@case("R7")
def test_what_drain_writes_has_its_schema(serve: Serve, tmp_path: Path):
    """Each line names its seller, and conforms to what `drain --schema` prints without any setting."""
    server = serve([Pack("11", messages=3), Pack("12", status="blocked", substatus="blocked_by_buyer")])
    assert (
        run("drain", "--journal", str(tmp_path / "j.db"), "--out", str(tmp_path / "d.jsonl"), server=server).exit_code
        == 0
    )
    for line in json_lines(tmp_path / "d.jsonl"):
        conforms(line, schema_of("drain"))
        assert line["seller_id"] == server.seller_id
    assert schema_of("serve")["properties"] == schema_of("drain")["properties"]


@case("R7")
@pytest.mark.parametrize(
    ("options", "part"), [([], "lines"), (["--messages"], "messages")], ids=["conversations", "messages"]
)
def test_what_fetch_writes_has_its_schema(serve: Serve, tmp_path: Path, options: list[str], part: str):
    """Conversations, messages and failures."""
    server = serve([Pack("11", messages=3), Pack("12", messages=0)], rules=[on("pack", pack="13").do(Reply(404))])
    (tmp_path / "ids").write_text("11\n12\n13\n")
    args = ["fetch", "--packs", str(tmp_path / "ids"), "--out", str(tmp_path / "o"), "--failed", str(tmp_path / "f")]
    assert run(*args, *options, server=server).exit_code == 3
    schema = schema_of("fetch")
    choices = {"lines": schema["oneOf"][0], "messages": schema["oneOf"][1], "failed": schema["oneOf"][2]}
    for line in json_lines(tmp_path / "o"):
        conforms(line, choices[part])
        assert line["seller_id"] == server.seller_id
    [failed] = json_lines(tmp_path / "f")
    conforms(failed, choices["failed"])
    assert failed["seller_id"] == server.seller_id


@case("R7")
def test_a_file_of_version_0_1_goes_on(serve: Serve, tmp_path: Path):
    """Lines without `seller_id` are ours as well: what is in them is not asked for again."""
    server = serve([Pack("11"), Pack("12")])
    (tmp_path / "ids").write_text("11\n12\n")
    (tmp_path / "o").write_text('{"pack_id": "11", "status": null, "messages": []}\n')
    result = run("fetch", "--packs", str(tmp_path / "ids"), "--out", str(tmp_path / "o"), server=server)
    assert result.exit_code == 0
    assert "2 of 2 conversations" in result.stderr
    assert [line["pack_id"] for line in json_lines(tmp_path / "o")] == ["11", "12"]


@case("R8")
@needs("signals")
def test_the_ids_of_unread_are_what_fetch_reads(serve: Serve, tmp_path: Path):
    """`unread --ids | fetch --packs -`."""
    server = serve([Pack("11"), Pack("12")])
    out = tmp_path / "o.jsonl"
    program = " ".join(f"'{word}'" for word in PROGRAM)
    done = subprocess.run(
        ["/bin/sh", "-c", f"{program} unread --ids | {program} fetch --packs - --out '{out}'"],
        capture_output=True,
        timeout=60,
        check=False,
        env=environment(**settings_for(server)),
    )
    assert done.returncode == 0, done.stderr
    assert {line["pack_id"] for line in json_lines(out)} == {"11", "12"}
    assert run("unread", "--ids", "--json", server=server).exit_code == 2


@case("R9")
@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_shells_complete_the_commands(shell: str):
    """The line that `--help` prints is a script that completes; it needs no setting."""
    env = environment(_MLMESSAGES_COMPLETE=f"{shell}_source")
    code = "import sys; sys.argv = ['mlmessages']; from mlmessages.cli import main; main()"
    done = subprocess.run([PROGRAM[0], "-c", code], capture_output=True, text=True, timeout=60, check=False, env=env)
    assert "_MLMESSAGES_COMPLETE" in done.stdout
    words = {"bash": {"COMP_WORDS": "mlmessages doc", "COMP_CWORD": "1"}, "zsh": {"COMP_WORDS": "mlmessages doc", "COMP_CWORD": "1"},
             "fish": {"COMP_WORDS": "mlmessages doc", "COMP_CWORD": "doc"}}[shell]  # fmt: skip
    asked = environment(_MLMESSAGES_COMPLETE=f"{shell}_complete", **words)
    done = subprocess.run([PROGRAM[0], "-c", code], capture_output=True, text=True, timeout=60, check=False, env=asked)
    assert "doctor" in done.stdout
