"""A consent that was asked for, between `mlmessages auth url` and `mlmessages auth exchange`."""

from __future__ import annotations

import json
import secrets
from pathlib import Path
from typing import TYPE_CHECKING

import attrs
import click

from .places import BEGIN_AGAIN

if TYPE_CHECKING:
    from ....auth.source import Secret


@attrs.frozen
class Pending:
    """A consent that was asked for: what the answer must bring back, and what proves that we asked."""

    client_id: str
    redirect_uri: str
    state: Secret = attrs.field(repr=False)
    verifier: Secret = attrs.field(repr=False)

    @classmethod
    def new(cls, client_id: str, redirect_uri: str) -> Pending:
        """Return one with a state and a verifier that cannot be guessed."""
        from ....auth.source import Secret

        return cls(client_id, redirect_uri, Secret(secrets.token_urlsafe(32)), Secret(secrets.token_urlsafe(64)))

    @staticmethod
    def path(token_file: Path) -> Path:
        """Return the file where it is kept, beside the token file."""
        return token_file.with_name(token_file.name + ".pending")

    def save(self, token_file: Path) -> None:
        """Keep it for `exchange`, beside the token file."""
        from ....files import reason, replace_private

        path = self.path(token_file)
        try:
            replace_private(path, json.dumps(attrs.asdict(self)).encode())
        except OSError as error:
            raise click.ClickException(
                f"{path.name} cannot be written beside the token file: {reason(error)}"
            ) from None

    @classmethod
    def load(cls, token_file: Path) -> Pending:
        """Return what `url` kept; raise `click.UsageError` if there is nothing."""
        from ....auth.source import Secret
        from ....files import read_private, reason

        path = cls.path(token_file)
        try:
            value = {name: Secret(text) for name, text in json.loads(read_private(path)).items()}
            return cls(str(value["client_id"]), str(value["redirect_uri"]), value["state"], value["verifier"])
        except FileNotFoundError:
            raise click.UsageError(f"No consent was asked for with this token file. {BEGIN_AGAIN}") from None
        except OSError as error:
            raise click.ClickException(f"{path.name} cannot be read: {reason(error)}. {BEGIN_AGAIN}") from None
        except (ValueError, TypeError, AttributeError, KeyError, RecursionError):
            raise click.ClickException(f"{path.name} cannot be understood. {BEGIN_AGAIN}") from None
