"""``mlmessages auth``: consent, tokens in a file, and what the other commands do with it."""

from __future__ import annotations

import asyncio
import errno
import json
import os
import stat
import subprocess
from datetime import UTC, datetime, timedelta
from importlib import import_module
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import attrs
import click
import pytest
from click.testing import CliRunner, Result

from cases import case
from cli.conftest import PROGRAM, TOKEN, Serve, environment, piped
from mlmessages import FileTokenStore
from mlmessages.auth.grants import HOSTS
from mlmessages.cli.app import cli
from mlmessages.cli.commands.auth.url import url
from mlmessages.models import Token
from mlmessages.testing import DROP, EXECUTE, Reply, Server, on

REDIRECT_URI = "https://seller.example/callback"


@pytest.fixture
def server(serve: Serve) -> Server:
    return serve(1)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "seller.json"


def settings(server: Server, file: Path) -> dict[str, str]:
    oauth = server.sandbox.oauth
    return {
        "MLMESSAGES_BASE_URL": server.base_url,
        "MLMESSAGES_SELLER_ID": server.seller_id,
        "MLMESSAGES_TOKEN_FILE": str(file),
        "MLMESSAGES_CLIENT_ID": oauth.client_id,
        "MLMESSAGES_CLIENT_SECRET": oauth.client_secret,
        "MLMESSAGES_REDIRECT_URI": REDIRECT_URI,
    }


def run(server: Server, file: Path, *args: str, stdin: str = "", **env: str) -> Result:
    """`mlmessages ARGS` in this process; nothing that it writes holds a secret."""
    result = CliRunner().invoke(
        cli, list(args), prog_name="mlmessages", input=stdin, env={**settings(server, file), **env}
    )
    oauth = server.sandbox.oauth
    for secret in (TOKEN, oauth.access_token, oauth.refresh_token, oauth.client_secret, "code=TG-"):
        assert secret is None or secret not in result.output
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def consent(server: Server, file: Path, *args: str) -> str:
    """`auth url`, and a seller who agrees: where the browser is sent."""
    asked = run(server, file, "auth", "url", *args)
    assert asked.exit_code == 0, asked.output
    return server.sandbox.oauth.consent(asked.stdout.strip())


def token_in(file: Path) -> Token:
    token = asyncio.run(FileTokenStore(file).load())
    assert token is not None
    return token


def keep(server: Server, file: Path, **changes: Any) -> Token:
    """Tokens that the sandbox takes, in the file."""
    oauth, now = server.sandbox.oauth, datetime.now(UTC)
    token = Token(oauth.access_token, oauth.refresh_token, now + timedelta(hours=6), now, server.seller_id)
    asyncio.run(FileTokenStore(file).save(attrs.evolve(token, **changes)))
    return attrs.evolve(token, **changes)


def pending(file: Path) -> Path:
    return file.with_name("seller.json.pending")


# -- url ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("args", "host"),
    [
        ((), "global-selling.mercadolibre.com"),
        (("--site", "MLB"), "auth.mercadolivre.com.br"),
        (("--site", "mla"), "auth.mercadolibre.com.ar"),
        (("--site", "MCR"), "auth.mercadolibre.co.cr"),
        (("--host", "auth.mercadolibre.com.xx"), "auth.mercadolibre.com.xx"),
        (("--host", "https://auth.mercadolibre.com.xx"), "auth.mercadolibre.com.xx"),
    ],
)
def test_url_prints_the_address_of_the_sellers_site(
    server: Server, file: Path, args: tuple[str, ...], host: str
) -> None:
    """stdout is the address alone: host of the site, application, redirect address, state and an S256 challenge."""
    asked = run(server, file, "auth", "url", *args)
    parts = urlsplit(asked.stdout.strip())
    query = parse_qs(parts.query)
    assert (parts.scheme, parts.netloc, parts.path) == ("https", host, "/authorization")
    assert query["client_id"] == [server.sandbox.oauth.client_id]
    assert query["redirect_uri"] == [REDIRECT_URI]
    assert (query["response_type"], query["code_challenge_method"]) == (["code"], ["S256"])
    assert len(query["state"][0]) >= 32
    assert server.sandbox.log == []


@case("L7")
def test_url_knows_every_site_with_a_host() -> None:
    """All that Mercado Libre has; each of them has a host of its own."""
    (option,) = [option for option in url.params if option.name == "site"]
    assert isinstance(option.type, click.Choice)
    assert set(option.type.choices) == set(HOSTS)
    assert {"MCR", "MPA", "MRD", "MBO", "MPY", "MGT", "MHN", "MNI", "MSV"} <= set(HOSTS)
    assert len(set(HOSTS.values())) == len(HOSTS)


@case("L7")
@pytest.mark.parametrize("host", ["", "http://elsewhere.example", "a b", "auth.example/x?y", "user@auth.example"])
def test_url_refuses_what_is_no_host(server: Server, file: Path, host: str) -> None:
    """Misuse, and nothing is written."""
    assert run(server, file, "auth", "url", "--host", host).exit_code == 2
    assert not pending(file).exists()


@case("L7")
def test_url_takes_a_server_on_this_machine(server: Server, file: Path) -> None:
    """Such as the sandbox, by plain http."""
    asked = run(server, file, "auth", "url", MLMESSAGES_AUTH_HOST="http://127.0.0.1:5")
    assert asked.stdout.startswith("http://127.0.0.1:5/authorization?")


def test_url_never_repeats_a_state(server: Server, file: Path) -> None:
    """Each attempt has a state and a verifier of its own; the verifier is not in the address."""
    addresses = [run(server, file, "auth", "url").stdout.strip() for _ in range(2)]
    states, challenges = (
        {parse_qs(urlsplit(a).query)[key][0] for a in addresses} for key in ("state", "code_challenge")
    )
    assert (len(states), len(challenges)) == (2, 2)
    assert json.loads(pending(file).read_text())["verifier"] not in addresses[1]
    if os.name == "posix":
        assert stat.S_IMODE(pending(file).stat().st_mode) == 0o600


@pytest.mark.parametrize("uri", ["", "seller.example/callback", "ftp://x/y", "https://x/y#z", "https://x/\n"])
def test_url_refuses_what_is_no_redirect_address(server: Server, file: Path, uri: str) -> None:
    """Misuse, and nothing is written."""
    assert run(server, file, "auth", "url", "--redirect-uri", uri).exit_code == 2
    assert not pending(file).exists()


def test_url_tells_where_it_cannot_write(server: Server, tmp_path: Path) -> None:
    """A directory that does not exist: one line, exit code 1."""
    result = run(server, tmp_path / "missing" / "seller.json", "auth", "url")
    assert result.exit_code == 1
    assert "cannot be written" in result.stderr


# -- exchange ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["address", "query", "code"])
def test_exchange_keeps_the_tokens(server: Server, file: Path, form: str) -> None:
    """The whole address, its query or the bare code: the tokens are in a 0600 file, and what was pending is gone."""
    address = consent(server, file)
    query = urlsplit(address).query
    pasted = {"address": address, "query": query, "code": parse_qs(query)["code"][0]}[form]
    result = run(server, file, "auth", "exchange", stdin=f"  {pasted}\n")
    assert result.exit_code == 0, result.output
    assert server.seller_id in result.stdout
    token = token_in(file)
    assert (token.access_token, token.refresh_token) == (server.token, server.sandbox.oauth.refresh_token)
    assert token.user_id == server.seller_id
    assert not pending(file).exists()
    if os.name == "posix":
        assert stat.S_IMODE(file.stat().st_mode) == 0o600


@pytest.mark.parametrize("forged", ["state=stolen", "state=", ""])
def test_exchange_refuses_another_state(server: Server, file: Path, forged: str) -> None:
    """An address that somebody else sent, or without a state: nothing is sent, nothing is kept."""
    code = parse_qs(urlsplit(consent(server, file)).query)["code"][0]
    result = run(server, file, "auth", "exchange", stdin=f"{REDIRECT_URI}?code={code}&{forged}\n")
    assert result.exit_code == 1
    assert "state" in result.stderr
    assert server.sandbox.log == []
    assert not file.exists()


def test_exchange_proves_that_we_asked(server: Server, file: Path) -> None:
    """A code of another attempt is not taken: its challenge is another one (PKCE)."""
    code = parse_qs(urlsplit(consent(server, file)).query)["code"][0]
    run(server, file, "auth", "url")
    result = run(server, file, "auth", "exchange", stdin=code)
    assert result.exit_code == 1
    assert "mlmessages auth url" in result.stderr
    assert not file.exists()


@pytest.mark.parametrize(
    ("pasted", "said"),
    [
        ("", "no code"),
        ("\n", "no code"),
        (f"{REDIRECT_URI}?state=x", "no code"),
        (f"{REDIRECT_URI}?error=access_denied&state=x", "access_denied"),
        (
            f"{REDIRECT_URI}?error=access_denied&error_description=The+seller+said+no",
            "access_denied: The seller said no",
        ),
        (f"{REDIRECT_URI}?error=invalid_operator_user_id", "administrator"),
        (f"{REDIRECT_URI}?error=invalid_request&error_description=redirect_uri+mismatch", "letter by letter"),
        (f"{REDIRECT_URI}?error=unauthorized_application", "blocked the application"),
        ("two words", "no code"),
        ("https://[x", "no code"),
    ],
)
def test_exchange_says_what_was_pasted_wrong(server: Server, file: Path, pasted: str, said: str) -> None:
    """One line and exit code 1; the attempt is still pending, so that it can be pasted again."""
    consent(server, file)
    result = run(server, file, "auth", "exchange", stdin=pasted)
    assert result.exit_code == 1
    assert said in result.stderr
    assert pending(file).exists()
    assert server.sandbox.log == []


def test_exchange_without_an_attempt_is_misuse(server: Server, file: Path) -> None:
    """It says how to begin."""
    result = run(server, file, "auth", "exchange", stdin="TG-1")
    assert result.exit_code == 2
    assert "mlmessages auth url" in result.stderr


@pytest.mark.parametrize("content", ["", "{}", "[]", '{"state": 5}'])
def test_exchange_does_not_trust_what_is_pending(server: Server, file: Path, content: str) -> None:
    """A broken file, or one that others may write: one line, exit code 1."""
    pending(file).write_text(content)
    pending(file).chmod(0o600)
    assert run(server, file, "auth", "exchange", stdin="TG-1").exit_code == 1
    if os.name == "posix":
        consent(server, file)
        pending(file).chmod(0o622)
        result = run(server, file, "auth", "exchange", stdin="TG-1")
        assert result.exit_code == 1
        assert "others may read or write it" in result.stderr
        assert "Begin again" in result.stderr


@case("K23")
def test_exchange_rehearses_the_replacement_before_the_code_is_spent(
    server: Server, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A token file that is mounted by itself cannot be replaced: nothing is sent, and the hint is to mount the folder."""
    kept = keep(server, file)
    pasted = consent(server, file)
    replace = os.replace

    def busy(source: object, target: object) -> None:
        if Path(str(target)) == file:
            raise OSError(errno.EBUSY, "Device or resource busy")
        replace(str(source), str(target))

    monkeypatch.setattr(os, "replace", busy)
    result = run(server, file, "auth", "exchange", stdin=pasted)
    assert result.exit_code == 1
    assert "Device or resource busy" in result.stderr
    assert "mount its folder" in result.stderr
    assert server.sandbox.log == []
    monkeypatch.undo()
    assert token_in(file) == kept
    assert run(server, file, "auth", "exchange", stdin=pasted).exit_code == 0


def test_exchange_does_not_replace_another_sellers_tokens(server: Server, file: Path) -> None:
    """The file is of seller 5: who agrees by mistake changes nothing in it."""
    kept = keep(server, file, user_id="5")
    result = run(server, file, "auth", "exchange", stdin=consent(server, file))
    assert result.exit_code == 1
    assert "seller 5" in result.stderr
    assert token_in(file) == kept


def test_exchange_replaces_the_same_sellers_tokens(server: Server, file: Path) -> None:
    """Authorising again is the cure for tokens that are spent."""
    keep(server, file, refresh_token="TG-spent")
    assert run(server, file, "auth", "exchange", stdin=consent(server, file)).exit_code == 0
    assert token_in(file).refresh_token == server.sandbox.oauth.refresh_token


def test_exchange_when_the_answer_is_lost(server: Server, file: Path) -> None:
    """The code may be spent: it says so, and is not sent twice."""
    server.sandbox.add(on("token").do(EXECUTE, DROP))
    result = run(server, file, "auth", "exchange", stdin=consent(server, file))
    assert result.exit_code == 1
    assert "may be spent" in result.stderr
    assert server.sandbox.count("token") == 1


def test_exchange_with_another_application_is_misuse(server: Server, file: Path) -> None:
    """The consent was for one application, and nothing is sent for another."""
    address = consent(server, file)
    result = run(server, file, "auth", "exchange", stdin=address, MLMESSAGES_CLIENT_ID="2")
    assert result.exit_code == 2
    assert server.sandbox.log == []


# -- status and refresh ------------------------------------------------------------------------------------------------


def test_status_says_how_long_and_whose_and_never_what(server: Server, file: Path) -> None:
    """Seller, hours left, the end of the refresh token; nothing is sent; no secret is needed."""
    keep(server, file)
    result = run(server, file, "auth", "status", MLMESSAGES_CLIENT_SECRET="")
    assert result.exit_code == 0
    assert server.seller_id in result.stdout
    assert "(6.0 h)" in result.stdout
    assert "refresh token  good until" in result.stdout
    as_json = json.loads(run(server, file, "auth", "status", "--json").stdout)
    assert (as_json["seller_id"], as_json["must_authorise_again"]) == (server.seller_id, False)
    assert server.sandbox.log == []


@pytest.mark.parametrize(
    ("days", "code", "said"),
    [(80, 0, "refreshed when needed"), (100, 0, "20 days|19 days"), (130, 1, "authorise again")],
)
def test_status_warns_before_it_is_too_late(server: Server, file: Path, days: int, code: int, said: str) -> None:
    """Thirty days before the end there is a warning; after it, exit code 1."""
    issued = datetime.now(UTC) - timedelta(days=days)
    keep(server, file, issued_at=issued, expires_at=issued + timedelta(hours=6))
    result = run(server, file, "auth", "status")
    assert result.exit_code == code
    assert any(part in result.output for part in said.split("|"))


def test_status_without_tokens_or_with_a_wide_file(server: Server, file: Path) -> None:
    """No file, or one that others may read: one line that says what to do, exit code 1."""
    result = run(server, file, "auth", "status")
    assert (result.exit_code, "mlmessages auth url" in result.stderr) == (1, True)
    if os.name == "posix":
        keep(server, file)
        file.chmod(0o644)
        result = run(server, file, "auth", "status")
        assert (result.exit_code, "chmod 600" in result.stderr) == (1, True)


def test_status_tells_of_a_refresh_without_an_answer(server: Server, file: Path) -> None:
    """A process died in the middle of one: that is worth knowing."""
    keep(server, file, refresh_sent_at=datetime.now(UTC))
    assert "its answer never kept" in run(server, file, "auth", "status").stderr


@case("L6")
def test_status_tells_of_a_definite_refusal(server: Server, file: Path) -> None:
    """After `invalid_grant` the seller must authorise again, however long the tokens would last: exit code 1."""
    keep(server, file)
    server.sandbox.oauth.revoke()
    assert run(server, file, "auth", "refresh").exit_code == 1
    result = run(server, file, "auth", "status")
    assert result.exit_code == 1
    assert "refused by the server" in result.stdout
    assert "authorise again" in result.stderr
    as_json = json.loads(run(server, file, "auth", "status", "--json").stdout)
    assert as_json["must_authorise_again"]
    assert as_json["refresh_refused_at"]
    pasted = consent(server, file)
    assert run(server, file, "auth", "exchange", stdin=pasted).exit_code == 0
    assert run(server, file, "auth", "status").exit_code == 0


@case("L6")
def test_a_command_does_not_promise_to_try_again(server: Server, file: Path) -> None:
    """It ends, and with it the attempts."""
    kept = datetime.now(UTC) - timedelta(hours=4)
    keep(server, file, issued_at=kept, expires_at=kept + timedelta(hours=6))
    server.sandbox.add(on("token").do(Reply(403, {"error": "forbidden"})))
    result = run(server, file, "unread")
    assert result.exit_code == 0
    assert "is good for 2.0 h more" in result.stderr
    assert "again in" not in result.stderr


@case("O7")
def test_exchange_says_what_0600_means_on_windows(server: Server, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing: the folder's permissions decide, and that is said when tokens are kept there for the first time."""
    pasted = consent(server, file)
    assert "Windows" not in run(server, file, "auth", "exchange", stdin=pasted).stderr
    pasted = consent(server, file)
    monkeypatch.setattr(import_module("mlmessages.cli.commands.auth.exchange"), "on_windows", lambda: True)
    result = run(server, file, "auth", "exchange", stdin=pasted)
    assert "On Windows" in result.stderr
    assert "user profile" in result.stderr


def test_refresh_refreshes_now(server: Server, file: Path) -> None:
    """One POST, though it was not due; the new tokens are in the file."""
    keep(server, file)
    result = run(server, file, "auth", "refresh")
    assert result.exit_code == 0, result.output
    assert server.sandbox.count("token") == 1
    assert token_in(file).access_token == server.token


@pytest.mark.parametrize(
    ("reply", "said"),
    [
        (Reply(400, {"error": "invalid_grant", "message": "spent"}), "mlmessages auth url"),
        (Reply(400, {"error": "invalid_client", "message": "no"}), "client secret"),
        (Reply(403, {"error": "forbidden"}), "forbidden"),
    ],
    ids=["invalid_grant", "invalid_client", "forbidden"],
)
def test_refresh_that_is_refused_is_one_line(server: Server, file: Path, reply: Reply, said: str) -> None:
    """Who must do what, exit code 1, and the file is as it was."""
    kept = keep(server, file)
    server.sandbox.add(on("token").do(reply))
    result = run(server, file, "auth", "refresh")
    assert result.exit_code == 1
    assert said in result.stderr.splitlines()[-1]
    assert token_in(file).access_token == kept.access_token


# -- everybody else ----------------------------------------------------------------------------------------------------


def test_every_command_takes_the_file_and_refreshes_it(server: Server, file: Path) -> None:
    """MLMESSAGES_TOKEN_FILE names the file of `auth`: an expired token is refreshed, and kept."""
    issued = datetime.now(UTC) - timedelta(hours=7)
    keep(server, file, issued_at=issued, expires_at=issued + timedelta(hours=6))
    assert run(server, file, "unread").exit_code == 0
    assert [entry.kind for entry in server.sandbox.log] == ["token", "listing"]
    assert token_in(file).access_token == server.token


def test_the_file_needs_an_application(server: Server, file: Path) -> None:
    """Without id and secret, and without a terminal: misuse that names both variables."""
    keep(server, file)
    result = run(server, file, "unread", MLMESSAGES_CLIENT_SECRET="")
    assert result.exit_code == 2
    assert "MLMESSAGES_CLIENT_SECRET" in result.stderr
    assert server.sandbox.log == []


def test_no_secret_is_an_option(server: Server, file: Path) -> None:
    """The list of processes of a machine shows options to everybody."""
    for command in ("url", "exchange", "status", "refresh"):
        told = run(server, file, "auth", command, "--help").output.lower()
        assert "--client-secret" not in told
        assert "--token " not in told
        assert "--code" not in told


def test_auth_alone_shows_what_there_is(server: Server, file: Path) -> None:
    """Its help, with the four commands on lines of their own."""
    told = run(server, file, "auth").output
    assert all(f"\n  {command} " in told for command in ("url", "exchange", "status", "refresh"))


def test_the_whole_way_as_processes(server: Server, file: Path) -> None:
    """url, exchange, status and a command, each a process of its own, warnings as errors."""
    env: dict[str, Any] = settings(server, file)
    address = server.sandbox.oauth.consent(piped("auth", "url", **env).stdout.decode().strip())
    exchange = [*PROGRAM, "auth", "exchange"]
    done = subprocess.run(exchange, input=f"{address}\n".encode(), timeout=60, check=False, env=environment(**env))
    assert done.returncode == 0
    assert piped("auth", "status", **env).returncode == 0
    assert piped("unread", "--json", **env).returncode == 0
