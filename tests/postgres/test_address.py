"""Where a `Database` may be, and what is never shown: URLs, passwords, keys."""

from __future__ import annotations

import logging
import re
import sys
import traceback

import pytest
from cryptography.fernet import Fernet

from cases import case
from mlmessages.errors import JournalError
from mlmessages.installing import how_to_install
from mlmessages.postgres.address import Address, is_this_machine
from mlmessages.postgres.database import Database
from mlmessages.postgres.keys import Keys

PASSWORD = "canary-Password%40-of-some-length"
KEY = Fernet.generate_key()


@case("Q2")
@pytest.mark.parametrize("host", ["db.example.com", "10.0.0.5", "127.0.0.1,db.example.com", "::2"])
@pytest.mark.parametrize("mode", ["", "?sslmode=disable", "?sslmode=prefer", "?sslmode=allow"])
def test_plain_text_leaves_this_machine_never(host: str, mode: str) -> None:
    """`ValueError` before anything is sent, which names the host and what to add."""
    url = f"postgresql://user:{PASSWORD}@[{host}]/db{mode}" if ":" in host else f"postgresql://user@{host}/db{mode}"
    with pytest.raises(ValueError, match="must be encrypted: add sslmode=verify-full") as caught:
        Database(url, key=KEY)
    assert PASSWORD not in "".join(traceback.format_exception(caught.value))


@case("Q2")
@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "", "/var/run/postgresql"])
def test_an_address_beside_the_host_is_looked_at(host: str) -> None:
    """libpq connects to `hostaddr`, and takes `host` for a name."""
    with pytest.raises(ValueError, match=r"the connection to 10\.0\.0\.5 must be encrypted"):
        Address(f"host='{host}' hostaddr=10.0.0.5 dbname=db")


@case("Q2")
@pytest.mark.parametrize(
    "url",
    [
        "postgresql://user@localhost/db?hostaddr=127.0.0.1",
        "postgresql://user@db.example.com/db?sslmode=require",
        "postgresql://user@db.example.com,other.example.com/db?sslmode=verify-full",
        "postgresql://user@localhost/db",
        "postgresql://user@127.0.0.2/db",
        "postgresql://user@[::1]/db",
        "postgresql:///db?host=/var/run/postgresql",
        "host=db.example.com sslmode=verify-ca user=me",
        "postgresql:///db",
    ],
)
def test_what_stays_here_or_is_encrypted_is_taken(url: str) -> None:
    """Sockets, loopback addresses, TLS; several hosts too."""
    assert "mlmessages" in Address(url).reveal()


def test_loopback_is_known_by_its_address() -> None:
    """Not by how a name begins."""
    assert [is_this_machine(host) for host in ("127.0.0.1.evil.com", "localhost.evil.com", "::ffff:127.0.0.1")][:2] == [
        False,
        False,
    ]


@case("Q2")
@pytest.mark.parametrize(
    "url",
    [
        f"postgresql://user:{PASSWORD}@127.0.0.1:port/db",
        f"postgresql://user:%zz{PASSWORD}@127.0.0.1/db",
        f"postgresql://user:{PASSWORD}@127.0.0.1/db?nonsense=1",
        f"mysql://user:{PASSWORD}@127.0.0.1/db",
        "",
        7,
        None,
    ],
)
def test_a_url_that_cannot_be_read_is_not_quoted(url: object) -> None:
    """`ValueError` with an example; neither it, nor its chain, nor the locals of its frames hold the password."""
    with pytest.raises(ValueError, match="postgresql://user:password@host") as caught:
        Database(url, key=KEY)  # type: ignore[arg-type]
    shown = "".join(traceback.TracebackException.from_exception(caught.value, capture_locals=True).format())
    ours = shown.split("mlmessages/postgres", 1)[1]
    assert "canary" not in ours
    assert "canary" not in str(caught.value)


@case("Q2")
@pytest.mark.parametrize("url", ["postgresql://user:{}@127.0.0.1:9/db", "host=127.0.0.1 port=9 user=me password={}"])
async def test_a_password_is_in_no_repr_error_or_log_line(url: str, caplog: pytest.LogCaptureFixture) -> None:
    """Of a database that is not there."""
    caplog.set_level(logging.DEBUG)
    database = Database(url.format(PASSWORD), key=KEY)
    with pytest.raises(JournalError, match="no connection to .* on 127.0.0.1") as caught:
        async with database:
            pass
    shown = "".join(traceback.TracebackException.from_exception(caught.value, capture_locals=True).format())
    texts = [repr(database), repr(database.statements), str(caught.value), shown, caplog.text]
    assert not any("canary" in text for text in texts)


def test_a_key_is_demanded_and_none_is_written_out() -> None:
    """Refresh tokens of a thousand shops in clear text are a decision, not a default."""
    with pytest.raises(ValueError, match=r"give key=.*or write out key=None"):
        Database("postgresql:///db")
    Database("postgresql:///db", key=None)


@pytest.mark.parametrize("key", ["short", b"short", [KEY, "short"], 7, [], "", [7]])
def test_what_is_no_key_is_refused(key: object) -> None:
    """`ValueError`, which does not quote it."""
    with pytest.raises(ValueError, match="must be a Fernet key") as caught:
        Database("postgresql:///db", key=key)  # type: ignore[arg-type]
    assert "short" not in str(caught.value)


@pytest.mark.parametrize("schema", ["Mixed", "a b", 'a"b', "pg_own", "", "a;b", 7])
def test_what_is_no_schema_is_refused(schema: object) -> None:
    """Its name stands in every statement."""
    with pytest.raises(ValueError, match="schema must be"):
        Database("postgresql:///db", key=None, schema=schema)  # type: ignore[arg-type]


@pytest.mark.parametrize("options", [{"name": ""}, {"name": 7}, {"lease": 0}, {"lease": "long"}])
def test_other_misuse_is_refused(options: dict[str, object]) -> None:
    """Before anything is connected."""
    with pytest.raises(ValueError, match="name|lease"):
        Database("postgresql:///db", key=None, **options)  # type: ignore[arg-type]


# -- keys ----------------------------------------------------------------------------------------------------------------


def test_the_first_key_encrypts_and_all_decrypt() -> None:
    """Rotation: a new key in front of the old one; a text may hold both."""
    old, new = Fernet.generate_key().decode(), Fernet.generate_key().decode()
    sealed = Keys(old).seal("7", b"words")
    assert b"words" not in sealed
    rotated = Keys(f"{new},{old}")
    assert rotated.unseal("7", sealed) == b"words"
    again = rotated.reseal("7", sealed)
    assert Keys([new]).unseal("7", again) == b"words"
    with pytest.raises(JournalError, match="cannot be decrypted by any"):
        Keys(old).unseal("7", again)


def test_a_row_cannot_be_put_in_another_sellers_place() -> None:
    """The seller is inside of what is encrypted."""
    keys = Keys(KEY)
    with pytest.raises(JournalError, match="was encrypted for another seller"):
        keys.unseal("8", keys.seal("7", b"words"))


def test_what_is_plain_and_what_is_encrypted_are_not_taken_for_each_other() -> None:
    """Both ways the error says what to do; `reseal` encrypts what was plain."""
    plain, sealed = Keys(None).seal("7", b"words"), Keys(KEY).seal("7", b"words")
    with pytest.raises(JournalError, match="give its key"):
        Keys(None).unseal("7", sealed)
    with pytest.raises(JournalError, match="rekey"):
        Keys(KEY).unseal("7", plain)
    assert Keys(None).unseal("7", plain) == b"words"
    assert Keys(KEY).unseal("7", Keys(KEY).reseal("7", plain)) == b"words"
    assert "***" in repr(Keys(KEY))
    assert repr(Keys(None)) == "Keys(None)"


@case("Q2")
@pytest.mark.parametrize("module", ["psycopg", "cryptography.fernet"])
def test_without_the_extra_the_line_to_type_is_named(module: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """`RuntimeError`, at the making of a `Database`: nothing else needs it."""
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(RuntimeError, match=re.escape(how_to_install("mlmessages[postgres]"))):
        Database("postgresql:///db", key=KEY)
