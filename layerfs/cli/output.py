"""What verbs print: lines and tables for people, JSON for scripts. Cut and awk can read the tables."""

import sys
from collections.abc import Sequence

import click

from layerfs.cli.tables import fitted
from layerfs.cli.terminal import cut, output_width, squeeze, wrapped
from layerfs.foreign import encode_json, escape_json, printable


def print_json(value: object) -> None:
    """Print *value*, exactly, as indented JSON on stdout."""
    click.echo(encode_json(value))


def print_document(raw: bytes) -> None:
    """Print a JSON document byte for byte; on a terminal, with escapes for what would control it."""
    if sys.stdout.isatty():
        click.echo(escape_json(raw.decode("utf-8", "replace").replace("\r\n", "\n")))
    else:
        sys.stdout.buffer.write(raw)
        sys.stdout.flush()


def print_line(text: str) -> None:
    """Print *text* as one line, whatever of it came from elsewhere; spaces in front stay."""
    line = text.lstrip(" ")
    click.echo(" " * (len(text) - len(line)) + printable(line))


def print_cut(line: str) -> None:
    """Print a line, on a terminal no more of it than fits."""
    width = output_width()
    click.echo(line if width is None else cut(line, width))


def print_text(text: str, indent: str = "", behind: str | None = None, *, squeezed: bool = False) -> None:
    """Print *text* behind *indent*, one line; on a terminal several, broken at spaces, the rest *behind*.

    There a word that is too long for a line sticks out, so that it can be copied, or is *squeezed*.
    """
    click.echo(fitting(text, output_width(), indent, behind, squeezed=squeezed))


def fitting(
    text: str, width: int | None, indent: str = "", behind: str | None = None, *, squeezed: bool = False
) -> str:
    """Return the lines that `print_text` prints on a terminal of *width* columns; None: where none is."""
    line = printable(text)
    if width is None:
        return indent + line
    if squeezed:
        room = width - len(indent if behind is None else behind)
        line = " ".join(squeeze(word, room) for word in line.split(" "))
    return "\n".join(wrapped(line, width, indent, behind))


def print_table(
    header: Sequence[str], rows: Sequence[Sequence[str]], *, spare: Sequence[str] = (), whole: bool = False
) -> None:
    """Print *rows* in columns under *header*, two spaces apart, as podman and docker do.

    On a terminal that is too narrow the columns in *spare* go, the first first, and the first column of the
    table is shortened, unless the *whole* is asked for.
    """
    cells = [[printable(cell) for cell in row] for row in rows]
    click.echo("\n".join(fitted(header, cells, None if whole else output_width(), spare)))
