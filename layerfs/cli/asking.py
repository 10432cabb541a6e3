"""What a person is asked for on the terminal. On standard error: standard output is for what came of it."""

import sys

import click

from layerfs.cli import interrupts
from layerfs.errors import UsageError


def ask(what: str, advice: str, *, hidden: bool = False) -> str:
    """Return the answer to *what*, *hidden* while it is typed.

    Raises UsageError where nobody can be asked; *advice* begins its text, and has opened a parenthesis.
    """
    if not sys.stdin.isatty():
        raise UsageError(f"{advice}, or run it on a terminal)")
    with interrupts.undoing():  # a terminal that does not echo
        answer: str = click.prompt(what, hide_input=hidden, err=True)
    return answer


def ask_password(option: str) -> str:
    """Return the password that belongs to *option*, ``--creds USER``. Raises UsageError."""
    advice = f"{option}: no password (write {option}:PASSWORD, keep a login by layerfs login"
    return ask("Password", advice, hidden=True)
