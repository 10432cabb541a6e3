"""What verbs print: tables for people, JSON for scripts. Tables are plain text that cut and awk can read."""

from collections.abc import Sequence

import msgspec
import typer


def print_json(value: object) -> None:
    """Print *value* as indented JSON on stdout."""
    typer.echo(msgspec.json.format(msgspec.json.encode(value), indent=2).decode())


def print_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print *rows* in columns under *header*, two spaces apart, as podman and docker do."""
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
    for row in (header, *rows):
        typer.echo("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
