"""Where a pull says what it does: streams of this command or, in a daemon, of the one that it is for."""

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Final, Protocol

import click

from layerfs.cli import terminal
from layerfs.cli.failures import told
from layerfs.errors import LayerfsError

Draw = Callable[[Sequence[str]], None]
"""Puts lines in the place of those that it drew before."""


class Screen(Protocol):
    """A standard output and a standard error."""

    def say(self, text: str) -> None:
        """Write *text*, one line or several, to standard output."""

    def complain(self, text: str) -> None:
        """Write *text*, one line or several, to standard error."""

    def fail(self, error: LayerfsError) -> None:
        """Say that something cannot be had."""

    def columns(self) -> int | None:
        """Return how wide standard output is; None if it is no terminal."""

    def canvas(self) -> tuple[int, int] | None:
        """Return columns and lines of standard error; None if nothing can be drawn there."""

    def draws_unicode(self) -> bool:
        """Say whether there are more characters than ASCII's."""

    def drawing(self) -> AbstractContextManager[Draw]:
        """Have lines drawn during the block; they are gone at its end."""


class OwnScreen:
    """The streams of this process."""

    def say(self, text: str) -> None:
        """Write *text*. Raises OutputLost."""
        click.echo(text)

    def complain(self, text: str) -> None:
        """Write *text*, if that can be."""
        click.echo(text, err=True)

    def fail(self, error: LayerfsError) -> None:
        """Say that something cannot be had."""
        self.complain(told(error))

    def columns(self) -> int | None:
        """Return how wide standard output is now."""
        return terminal.output_width()

    def canvas(self) -> tuple[int, int] | None:
        """Return how large standard error is now."""
        return terminal.drawable(sys.stderr)

    def draws_unicode(self) -> bool:
        """Say what the locale has."""
        return terminal.draws_unicode()

    @contextmanager
    def drawing(self) -> Iterator[Draw]:
        """Draw on standard error."""
        from rich.console import Console
        from rich.live import Live
        from rich.text import Text

        console = Console(file=sys.stderr, highlight=False)
        with Live(console=console, auto_refresh=False, transient=True, vertical_overflow="crop") as live:

            def draw(lines: Sequence[str]) -> None:
                text = Text("\n".join(lines), no_wrap=True)
                text.highlight_regex("[━#]+", "green")
                live.update(text, refresh=True)

            yield draw


OWN: Final = OwnScreen()
