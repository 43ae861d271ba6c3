"""JSON for pipes and for terminals: ASCII alone, so that no encoding can spoil it and nothing in it acts."""

from __future__ import annotations

import json

import click


def write(value: object) -> None:
    """`value` as one line of JSON on stdout."""
    click.echo(json.dumps(value, ensure_ascii=True))  # escapes every control character too
