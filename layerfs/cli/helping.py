"""How ``--help`` looks: verbs in groups, lines that fit the terminal, the same with every version of Click.

Click finds the options and keeps the texts; what of them is said, and how, is said here.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from importlib import import_module
from typing import Any, Final, TypeVar

import click

from layerfs.cli.switches import SwitchCommand
from layerfs.cli.takes import parameters_of
from layerfs.cli.terminal import columns, wrapped

GROUPS: Final = {
    "Browse": ("images", "inspect", "history", "tree", "digest", "tags"),
    "Fetch": ("pull", "import", "push", "login", "logout"),
    "Run": ("mount", "umount", "status", "events", "serve", "overlay", "lowerdir", "export", "save"),
    "Store": ("df", "rm", "gc", "lease", "verify"),
    "Set up": ("config", "doctor", "completion", "man"),
}
"""Where each verb stands in ``layerfs --help``."""

V = TypeVar("V", bound=Callable[..., None])

Row = tuple[str, str]
"""A term and what it means."""

_WIDEST: Final = 78
_NARROW: Final = 60
"""Columns; below that a term and its text stand below each other."""
_LONG_TERM: Final = 24
"""Columns; a longer one has a line of its own."""
_SENTENCE: Final = r"\.(?=\s|$)"
_WORD: Final = r"""(?:'[^']*'|"[^"]*"|[^\s'"])+"""
"""A word of a shell; what is quoted is not broken."""
_JOINTS: Final = ("&&", "||", "|")
"""Behind these a command line of a shell goes on by itself."""


class _Page:
    """What Click asks of a verb and of a group of verbs, in our own words."""

    params: list[Any]
    help: str | None
    epilog: str | None

    def get_usage(self, ctx: Any) -> str:
        return "\n".join(self._usage(ctx))

    def get_help(self, ctx: Any) -> str:
        import inspect  # nothing but help needs it

        width = _width()
        about = inspect.cleandoc(self.help or "")
        options = [(flags(one), _described(one)) for one in self._of("option", ctx)]
        blocks = [
            self._usage(ctx),
            *(wrapped(" ".join(text.split()), width, "  ") for text in re.split(r"\n\s*\n", about)),
            _section("Arguments", [(placeholder(one), one.help or "") for one in self._of("argument", ctx)]),
            _section("Options", options),
            *self.verbs(),
            list(_ending(self.epilog or "", width)),
        ]
        return "\n\n".join("\n".join(block) for block in blocks if block)

    def get_short_help_str(self, limit: int = 0) -> str:
        """Return the first sentence; *limit* would cut it."""
        return summary(self.help or "")

    def usage_pieces(self, ctx: Any) -> list[str]:
        """Return what stands behind the options in a command line."""
        return [placeholder(one) for one in self._of("argument", ctx)]

    def verbs(self) -> Iterator[list[str]]:
        """Yield the sections of the verbs below this one."""
        yield from ()

    def _usage(self, ctx: Any) -> list[str]:
        line = " ".join(["Usage:", ctx.command_path, "[OPTION]...", *self.usage_pieces(ctx)])
        return wrapped(line, _width(), "", " " * len("Usage: "))

    def _of(self, kind: str, ctx: Any) -> list[Any]:
        found: list[Any] = self.get_params(ctx)  # type: ignore[attr-defined]  # of the class beside this one
        return [one for one in found if one.param_type_name == kind]


class Verb(_Page, SwitchCommand):
    """A verb."""


class Verbs(_Page, click.Group):
    """A verb that others follow."""

    def verb(self, name: str = "", *, epilog: str, hidden: bool = False) -> Callable[[V], V]:
        """Make a function, which stays what it is, a verb below this one, by its own name or *name*."""

        def register(function: V) -> V:
            called = name or function.__name__.rstrip("_")
            about: dict[str, Any] = {"help": function.__doc__, "epilog": epilog, "hidden": hidden}
            self.add_command(Verb(called, callback=function, params=parameters_of(function), **about))
            return function

        return register

    def usage_pieces(self, ctx: Any) -> list[str]:
        """Return what stands behind the options in a command line."""
        return ["VERB", "[ARGUMENT]..."]

    def verbs(self) -> Iterator[list[str]]:
        """Yield the sections of the verbs below this one, all of whose texts begin in one column."""
        shown = {name: one for name, one in self.commands.items() if not one.hidden}
        for heading, names in self.groups(shown).items():
            rows = [(name, summary(shown[name].help or "")) for name in names]
            yield _section(heading, rows, max(map(len, shown)))

    def groups(self, shown: dict[str, Any]) -> dict[str, tuple[str, ...]]:
        """Return the names of the verbs that are *shown*, by heading."""
        return {"Verbs": tuple(shown)}


class Program(Verbs):
    """The program itself. It imports the module of a verb when that is asked for."""

    def __init__(self, root: Callable[..., None], modules: Mapping[str, str], epilog: str) -> None:
        super().__init__(
            "layerfs",
            callback=root,
            params=parameters_of(root),
            help=root.__doc__,
            epilog=epilog,
            no_args_is_help=True,
            context_settings={"help_option_names": ["-h", "--help"]},
        )
        self._modules = modules

    def load(self, wanted: str = "") -> None:
        """Import the module of a verb, which registers itself; whatever is no verb stands for all of them."""
        modules = self._modules
        for module in [modules[wanted]] if wanted in modules else dict.fromkeys(modules.values()):
            import_module(module)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return a verb."""
        if cmd_name not in self.commands:
            self.load(cmd_name)
        return super().get_command(ctx, cmd_name)

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names of all verbs."""
        self.load()
        return super().list_commands(ctx)

    def verbs(self) -> Iterator[list[str]]:
        """Yield the sections of all verbs."""
        self.load()
        yield from super().verbs()

    def groups(self, shown: dict[str, Any]) -> dict[str, tuple[str, ...]]:
        """Return the verbs as people look for them."""
        return {heading: tuple(filter(shown.__contains__, names)) for heading, names in GROUPS.items()}


def summary(text: str) -> str:
    """Return the first sentence of a help text, as one line without a full stop."""
    return " ".join(re.split(_SENTENCE, text, maxsplit=1)[0].split())


def placeholder(argument: Any) -> str:
    """Return what stands for an argument in a command line: ``[NAME]...`` for instance."""
    name: str = argument.metavar or argument.name.upper()
    shown = name if argument.required else f"[{name}]"
    return f"{shown}..." if argument.nargs == -1 and " " not in name else shown


def flags(option: Any) -> str:
    """Return how an option is written, with what stands for its value."""
    names = " / ".join(
        ", ".join(sorted(spelled, key=len)) for spelled in (option.opts, option.secondary_opts) if spelled
    )
    return names if option.is_flag else f"{names} {option.metavar or option.name.upper()}"


def _described(option: Any) -> str:
    text: str = option.help or ""
    return f"{text} [${option.envvar}]" if option.envvar else text


def _width() -> int:
    return min(columns(), _WIDEST)


def _section(heading: str, rows: list[Row], least: int = 0) -> list[str]:
    """Return the lines of *rows*, whose terms have *least* columns or more; none without rows."""
    width = _width()
    terms = max((len(term) for term, _ in rows if len(term) <= _LONG_TERM), default=0)
    margin = 6 if width < _NARROW else 2 + max(terms, least) + 2
    lines = [f"{heading}:"] if rows else []
    for term, text in rows:
        first, *rest = wrapped(text, width, " " * margin)
        if len(term) + 4 <= margin:
            first = f"  {term}".ljust(margin) + first.lstrip()
        else:
            lines.append(f"  {term}")
        lines += [first, *rest]
    return lines


def _ending(epilog: str, width: int) -> Iterator[str]:
    """Yield the lines of an example, as shells read them, or of another text."""
    _, is_example, command = epilog.partition("Example: ")
    if not is_example or len(epilog) + 2 <= width:
        yield from wrapped(epilog, width, "  ")
        return
    yield "  Example:"
    line = "   "
    for word in re.findall(_WORD, command):
        joint = line.endswith(_JOINTS)
        if joint or (line.strip() and len(line) + len(word) + 3 > width):
            yield line if joint else f"{line} \\"
            line = "     "
        line += f" {word}"
    yield line
