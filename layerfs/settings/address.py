"""Where a server listens, as users write it."""

from pathlib import Path
from typing import Final, Self

import msgspec

from layerfs.errors import InvalidSettings
from layerfs.settings.kinds import ValueKind, absolute


class Address(msgspec.Struct, frozen=True):
    """Where a server listens: at a host's port, or at a socket of this machine."""

    host: str = ""
    """A name or an IP address; empty for all of this machine."""
    port: int = 0
    """0 for any that is free."""
    path: Path | None = None

    @classmethod
    def parse(cls, text: str, what: str) -> Self:
        """Read ``HOST:PORT`` or ``unix:PATH``. Raises InvalidSettings."""
        scheme, _, path = text.partition(":")
        if scheme == "unix" and path:
            return cls(path=absolute(Path(path), what))
        host, _, port = text.rpartition(":")
        if not (port.isascii() and port.isdecimal() and len(port) <= 5 and int(port) <= 65535):
            raise InvalidSettings(
                f"{what}: {text[:300]!r} (expected HOST:PORT, as 127.0.0.1:5000 or [::1]:5000, or unix:PATH)"
            )
        return cls(host.removeprefix("[").removesuffix("]"), int(port))

    def __str__(self) -> str:
        if self.path is not None:
            return f"unix:{self.path}"
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


ADDRESS: Final = ValueKind(
    toml=str, option=str, of_file=Address.parse, of_option=Address.parse, example="127.0.0.1:5000"
)
