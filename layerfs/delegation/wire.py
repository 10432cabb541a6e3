"""What a command and a daemon say to each other: one request, then frames until one says how it ended.

A request is fields with NUL between them, as no argument and no variable has one. It says what was typed, and
what of the environment decides how a pull goes; who asks, the kernel says (`layerfs.delegation.peers`). Later
the command sends sizes of its terminal, and nothing else.

The daemon's frames are what the command writes: it needs to understand nothing of it. A connection that ends
without `END` means that the command goes on by itself.
"""

from collections.abc import Mapping, Sequence
from typing import Final, Literal, NamedTuple

REQUEST_MAX: Final = 256 << 10
"""Bytes of a request."""
WORDS_MAX: Final = 1000
"""Words of a command line."""
FRAME_MAX: Final = 64 << 20
"""Bytes of a frame: the JSON of many images."""
HEAD: Final = 5
"""Bytes in front of a frame's own: the kind, and how many they are."""

TAKEN: Final = b"+"
"""The daemon does it."""
REFUSED: Final = b"-"
"""It does not; why, for whoever looks."""
OUTPUT: Final = b"o"
"""Text for standard output."""
COMPLAINT: Final = b"e"
"""Text for standard error."""
DRAWING: Final = b"d"
"""Lines that take the place of those drawn last; none at all at the end."""
NOTE: Final = b"n"
"""What the command has to know to go on by itself, for the verb to read."""
ALIVE: Final = b"."
"""The daemon goes on, and there is nothing else to say."""
END: Final = b"x"
"""All is done: the exit code, one byte."""
KINDS: Final = (TAKEN, REFUSED, OUTPUT, COMPLAINT, DRAWING, NOTE, ALIVE, END)
ALIVE_SECONDS: Final = 5.0
"""Between two such frames."""

OWN: Final = "LAYERFS_"
"""How the variables begin that are ours: all of them are sent."""
FOUND_BY: Final = frozenset(
    {
        "CONTAINERS_REGISTRIES_CONF", "CREDENTIALS_DIRECTORY", "DOCKER_CONFIG", "HOME", "LAYERFS_CONFIG",
        "REGISTRY_AUTH_FILE", "XDG_CONFIG_HOME", "XDG_DATA_HOME", "XDG_RUNTIME_DIR",
    }
)  # fmt: skip
"""Variables by which files are found: what these say is compared, and not the variables."""
COMPARED: Final = frozenset(
    {
        "ALL_PROXY", "HOSTALIASES", "HTTPS_PROXY", "HTTP_PROXY", "LOCALDOMAIN", "NO_PROXY", "OPENSSL_CONF",
        "OPENSSL_MODULES", "REQUEST_METHOD", "RES_OPTIONS", "SSLKEYLOGFILE", "SSL_CERT_DIR", "SSL_CERT_FILE",
        "TMPDIR", "all_proxy", "http_proxy", "https_proxy", "no_proxy",
    }
)  # fmt: skip
"""Other variables that decide who is believed, and which way the bytes take."""
VARIABLES: Final = FOUND_BY | COMPARED


def is_sent(name: str) -> bool:
    """Say whether the variable *name* goes with a request."""
    return name in VARIABLES or name.startswith(OWN)


Form = Literal["lines", "digests", "json"]
"""What standard output gets."""

_FORMS: Final[dict[str, Form]] = {"-q": "digests", "--quiet": "digests", "--json": "json"}
_VALUES: Final = ("--platform", "--store")


class ScreenSize(NamedTuple):
    """What the command's standard streams can show; 0 for what is no terminal."""

    columns: int = 0
    """Columns of standard output."""
    width: int = 0
    """Columns of standard error; 0, too, if nothing can be drawn there."""
    height: int = 0
    unicode: bool = False


class PullWords(NamedTuple):
    """The command line of a pull, where it can be read without any doubt."""

    references: tuple[str, ...]
    form: Form
    every: bool
    """All platforms."""
    options: dict[str, str]
    """Values of options, by the names of their settings."""


class PullRequest(NamedTuple):
    """What a command asks for."""

    version: str
    """The version of layerfs, and where its code is: both ends have to mean the same."""
    screen: ScreenSize
    words: tuple[str, ...]
    """What follows ``layerfs pull``."""
    variables: dict[str, str]

    def packed(self) -> bytes:
        """Return it as it is sent."""
        parts = [
            self.version,
            ",".join(str(int(one)) for one in self.screen),
            str(len(self.words)),
            *self.words,
        ]
        parts += [f"{name}={value}" for name, value in self.variables.items()]
        raw = "\0".join(parts).encode("utf-8", "surrogateescape")
        return len(raw).to_bytes(4, "big") + raw

    @classmethod
    def parse(cls, raw: bytes) -> "PullRequest":
        """Read what follows the length. Raises ValueError."""
        version, screen, count, *rest = raw.decode("utf-8", "surrogateescape").split("\0")
        columns, width, height, unicode = map(size_of, screen.split(","))
        number = size_of(count)
        if number > min(len(rest), WORDS_MAX):
            raise ValueError(f"{number} words (expected {WORDS_MAX} at most, and {len(rest)} are there)")
        variables = dict(_pair(one) for one in rest[number:])
        if not all(map(is_sent, variables)):
            raise ValueError("variables that nobody asked for")
        return cls(
            version, ScreenSize(columns, width, height, bool(unicode)), tuple(rest[:number]), variables
        )


def size_of(text: str) -> int:
    """Return the number that *text* is, of columns for instance. Raises ValueError."""
    if not (text.isascii() and text.isdecimal() and len(text) < 6):
        raise ValueError(f"{text[:20]!r} is no size")
    return int(text)


def _pair(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals:
        raise ValueError(f"{text[:20]!r} is no variable")
    return name, value


def variables_of(environ: Mapping[str, str]) -> dict[str, str]:
    """Return what of *environ* is sent, and compared."""
    return {name: value for name, value in environ.items() if is_sent(name)}


def wanted(words: Sequence[str]) -> PullWords | None:
    """Read what follows ``layerfs pull``; None for what Click has to read, or complain of."""
    references: list[str] = []
    options: dict[str, str] = {}
    forms: set[Form] = set()
    every = False
    rest = iter(words)
    for word in rest:
        name, equals, value = word.partition("=")
        if word in _FORMS:
            forms.add(_FORMS[word])
        elif word == "--all-platforms":
            every = True
        elif name in _VALUES:
            value = value if equals else next(rest, "")
            if not value or value.startswith("-"):
                return None
            options[name.removeprefix("--")] = value
        elif word.startswith("-") or not word:
            return None
        else:
            references.append(word)
    if not references or len(forms) > 1:
        return None
    return PullWords(tuple(references), forms.pop() if forms else "lines", every, options)


def framed(kind: bytes, payload: bytes = b"") -> bytes:
    """Return a frame as it is sent."""
    return kind + len(payload).to_bytes(4, "big") + payload
