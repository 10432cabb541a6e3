"""Flags that take ``=true`` and ``=false``, as those of podman and skopeo do: ``--tls-verify=false``."""

from collections.abc import Iterator
from typing import Any, Final

import click

_TRUTH: Final = {
    **dict.fromkeys(("1", "t", "T", "true", "TRUE", "True"), True),
    **dict.fromkeys(("0", "f", "F", "false", "FALSE", "False"), False),
}
"""What Go's strconv.ParseBool reads."""


class SwitchCommand(click.Command):
    """A verb whose flags may be given a value."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Read the command line."""
        forms = {
            option: (option, param.secondary_opts[0] if param.secondary_opts else None)
            for param in self.get_params(ctx)
            if getattr(param, "is_flag", False)
            for option in param.opts
        }
        return super().parse_args(ctx, list(_without_values(args, forms)))


def _without_values(args: list[str], forms: dict[str, tuple[str, str | None]]) -> Iterator[str]:
    """Write flags with a value as the flag for yes, or as that for no, which may be none at all."""
    words = iter(args)
    for word in words:
        if word == "--":
            yield word
            yield from words
            return
        name, equals, value = word.partition("=")
        if not equals or name not in forms or value not in _TRUTH:
            yield word
            continue
        yes, no = forms[name]
        if _TRUTH[value]:
            yield yes
        elif no is not None:
            yield no
