"""The public names: a stored list of signatures, so that no change of one goes unseen."""

from __future__ import annotations

import ast
import inspect
import logging
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import mlmessages
from mlmessages import models

PACKAGE = Path(mlmessages.__file__).parent

# What a user types, as the interface fixes it: names, parameters and defaults.
SIGNATURES = [
    "",
    "MessagesClient(auth, *, seller_id, api='marketplace', base_url='https://api.mercadolibre.com', limits=None, retry=None, timeout=30.0, session=None, on_event=None, proxy=None)",
    "MessagesClient.unread(role='seller', *, user_id=None)",
    "MessagesClient.unread_count(pack_id)",
    "MessagesClient.page(pack_id, *, limit=50, offset=0, mark_as_read=False)",
    "MessagesClient.pages(pack_id, *, limit=50, mark_as_read=False)",
    "MessagesClient.messages(pack_id, *, limit=50, mark_as_read=False)",
    "MessagesClient.mark_read(pack_id)",
    "MessagesClient.message_by_id(message_id)",
    "MessagesClient.drain(*, concurrency=8, limit=50, settle_time=120.0)",
    "MessagesClient.fetch(pack_ids, *, concurrency=8, limit=50, mark_as_read=False)",
    "MessagesClient.send(pack_id, text, *, to=None, attachments=())",
    "MessagesClient.upload(file, *, filename=None, site_id, check_type=True)",
    "MessagesClient.download(attachment, destination, *, site_id=None, allow_threat=False)",
    "MessagesClient.contact_reasons(pack_id)",
    "MessagesClient.start_conversation(pack_id, option_id, *, text=None, template_id=None, variables=None)",
    "MessagesClient.missed_notifications(app_id, *, topic=None)",
    "Drain.aclose()",
    "Drain.report",
    "Inbox(client, path, *, concurrency=8, limit=50, settle_time=120.0, park_after=3, verify='never')",
    "Inbox.drain()",
    "Inbox.run(handler, *, interval=60.0, attempts=12, grace=10.0, app_id=None, on_error=None)",
    "Inbox.notify(notification)",
    "Inbox.report",
    "Delivery.ack()",
    "Delivery.once(name)",
    "Delivery.seller_id",
    "Delivery.pack_id",
    "Delivery.messages",
    "Delivery.unread",
    "Delivery.status",
    "Delivery.redelivered",
    "StaticToken(token)",
    "StaticToken.token()",
    "StaticToken.rejected(token)",
    "TokenSource.token()",
    "TokenSource.rejected(token)",
    "TokenStore.load()",
    "TokenStore.save(token)",
    "TokenStore.lock()",
    "OAuthToken.token()",
    "OAuthToken.rejected(token)",
    "OAuthToken.refresh()",
    "OAuthToken.bind(http)",
    "OAuthToken.unbind(http)",
    "OAuthToken(client_id, client_secret, store, base_url=None)",
    "FileTokenStore(path)",
    "FileTokenStore.load()",
    "FileTokenStore.save(token)",
    "FileTokenStore.lock()",
    "Limits(reads=500, writes=500, period=60.0, concurrency=32, per_second=100)",
    "Limits.used",
    "Retry(attempts=6, base=0.5, cap=60.0, deadline=300.0)",
    "Routes(unread, unread_of, pack, message, attachments, action_guide)",
    "Database(url, *, key=Ellipsis, schema='mlmessages', name=None, lease=30.0)",
    "Database.add(token)",
    "Database.remove(seller_id)",
    "Database.sellers()",
    "Database.tokens(seller_id)",
    "Database.limits(application_id, **options)",
    "Database.notify(notification)",
    "Database.overview()",
    "Database.check()",
    "Fleet(database, client_id, client_secret, *, api='marketplace', base_url='https://api.mercadolibre.com', limits=None, sellers=None, concurrency=4, handlers=32, settle_time=120.0, retry=None, timeout=30.0, session=None, on_event=None)",
    "Fleet.run(handler, *, attempts=12, grace=10.0, on_error=None)",
    "Fleet.client(seller_id)",
    "Fleet.report",
    "Routes.MARKETPLACE",
    "Routes.DOMESTIC",
    "",
][1:-1]

NAMES = [
    "MessagesClient",
    "Drain",
    "Inbox",
    "Delivery",
    "Notification",
    "Database",
    "Fleet",
    "StaticToken",
    "OAuthToken",
    "FileTokenStore",
    "TokenSource",
    "TokenStore",
    "Limits",
    "Retry",
    "Routes",
    "MessagesError",
    "errors",
    "models",
]


def named(line: str) -> str:
    """The dotted name that a line of the list is about."""
    return line.partition("(")[0]


def found(name: str) -> Any:
    """What a dotted name stands for."""
    owner, _, member = name.partition(".")
    value = getattr(mlmessages, owner)
    return getattr(value, member) if member else value


def signature(name: str, value: Any) -> str:
    """A signature without annotations, as the list spells it; the name alone where it is no call."""
    if not callable(value):
        return name
    parameters = [
        parameter.replace(annotation=inspect.Parameter.empty)
        for parameter in inspect.signature(value).parameters.values()
        if parameter.name != "self"
    ]
    return f"{name}{inspect.Signature(parameters)}"


@pytest.mark.parametrize("line", SIGNATURES, ids=named)
def test_each_public_signature_is_the_stored_one(line: str) -> None:
    """Names, parameters, order, kinds and defaults are those that programs were written against."""
    name = named(line)
    assert signature(name, found(name)) == line


@pytest.mark.parametrize(
    "name",
    [
        "MessagesClient",
        "Drain",
        "Delivery",
        "StaticToken",
        "OAuthToken",
        "TokenSource",
        "TokenStore",
        "Routes",
        "Fleet",
    ],
)
def test_there_is_no_public_member_beside_the_stored_ones(name: str) -> None:
    """A public method or attribute that is not in the list is an interface that nobody decided on."""
    cls = found(name)
    fields = {field.name for field in getattr(cls, "__attrs_attrs__", ())}
    public = {f"{name}.{member}" for member in vars(cls) if not member.startswith("_") and member not in fields}
    assert public <= {named(line) for line in SIGNATURES}


def test_the_names_are_those_of_the_interface() -> None:
    """`__all__` holds the interface's names, sorted."""
    assert set(mlmessages.__all__) == set(NAMES)
    assert list(mlmessages.__all__) == sorted(mlmessages.__all__)
    assert len(set(mlmessages.__all__)) == len(mlmessages.__all__)


def test_every_name_can_be_had_in_each_way() -> None:
    """Attribute, star import and `dir` agree; an unknown name is an `AttributeError`."""
    namespace: dict[str, Any] = {}
    exec("from mlmessages import *", namespace)
    for name in mlmessages.__all__:
        assert namespace[name] is getattr(mlmessages, name)
        assert name in dir(mlmessages)
    assert "__version__" in dir(mlmessages)
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        mlmessages.nonsense  # type: ignore[attr-defined]  # noqa: B018


def test_every_public_thing_says_what_it_is() -> None:
    """Each name and each public member has a docstring."""
    for line in [*mlmessages.__all__, *map(named, SIGNATURES)]:
        value = found(line)
        if callable(value) or isinstance(value, property):
            assert inspect.getdoc(value), line


@pytest.mark.parametrize("name", ["unread", "unread_count", "page", "mark_read", "message_by_id"])
def test_one_request_is_a_coroutine(name: str) -> None:
    """What is one answer is awaited."""
    assert inspect.iscoroutinefunction(getattr(mlmessages.MessagesClient, name))


@pytest.mark.parametrize("name", ["pages", "messages", "drain"])
def test_many_answers_are_a_plain_call(name: str) -> None:
    """What yields is made by a plain call, so that wrong arguments are told at once and not at the first `async for`."""
    method = getattr(mlmessages.MessagesClient, name)
    assert not inspect.iscoroutinefunction(method)
    assert not inspect.isasyncgenfunction(method)


def test_the_models_of_the_interface_are_there() -> None:
    """`mlmessages.models` has the models that the reads of today return."""
    named_today = (
        "UnreadListing UnreadPack MessagePage Paging ConversationStatus Message Attachment Moderation Resource"
    )
    for name in f"{named_today} Conversation PackFailure DrainReport InboxReport FleetReport Reasons Token".split():
        assert inspect.isclass(getattr(models, name))


def test_the_logger_is_quiet_by_default() -> None:
    """The logger `mlmessages` has a NullHandler, and no level of its own."""
    logger = logging.getLogger("mlmessages")
    assert any(isinstance(handler, logging.NullHandler) for handler in logger.handlers)
    assert logger.level == logging.NOTSET
    assert logger.propagate


# -- in a process of its own -------------------------------------------------------------------------------------------


def python(code: str, *first: Path) -> str:
    """What `code` prints in a new interpreter, which looks for packages in `first` before anywhere else."""
    lines = [f"import sys; sys.path[:0] = {[str(path) for path in (*first, PACKAGE.parent)]!r}", code]
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", "\n".join(lines)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_the_version_is_that_of_the_installed_package(tmp_path: Path) -> None:
    """`__version__` comes from the metadata of the distribution, and is written down nowhere else."""
    metadata = tmp_path / "mlmessages-98.7.6.dist-info" / "METADATA"
    metadata.parent.mkdir()
    metadata.write_text("Metadata-Version: 2.1\nName: mlmessages\nVersion: 98.7.6\n")
    assert python("import mlmessages; print(mlmessages.__version__)", tmp_path) == "98.7.6"


def test_importing_the_package_loads_nothing_heavy() -> None:
    """`import mlmessages` alone, the errors and the models cost no aiohttp and no event loop."""
    code = "import mlmessages; print(sorted({'aiohttp', 'asyncio', 'cattrs', 'backoff'} & set(sys.modules)))"
    assert python(code) == "[]"
    code = "from mlmessages import errors, models; print(sorted({'aiohttp', 'asyncio', 'cattrs'} & set(sys.modules)))"
    assert python(code) == "[]"


# -- on every system ---------------------------------------------------------------------------------------------------

ONE_SYSTEM_ALONE = {
    *("fcntl", "grp", "posix", "pty", "pwd", "readline", "resource", "syslog", "termios", "tty", "curses", "uvloop"),
    *("msvcrt", "nt", "winreg", "winsound", "_winapi"),
}


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda path: path.relative_to(PACKAGE).as_posix())
def test_nothing_that_exists_on_one_system_alone_is_imported_at_the_top(path: Path) -> None:
    """Every module can be imported on Linux, macOS and Windows; what one of them lacks is imported where it is used."""
    imported: set[str] = set()
    for statement in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(statement, ast.Import):
            imported |= {alias.name.partition(".")[0] for alias in statement.names}
        elif isinstance(statement, ast.ImportFrom) and not statement.level:
            imported.add((statement.module or "").partition(".")[0])
    assert not imported & ONE_SYSTEM_ALONE
