"""Values whose repr leaves fields out: what is secret, and what is long and says nothing.

A dataclass could do it, and takes forty times as long to be made when a command starts.
"""

from typing import Any, ClassVar

import msgspec


class Discreet(msgspec.Struct, frozen=True):
    """A value that shows all of its fields but those in *hidden*, to rich and pytest as well."""

    hidden: ClassVar[frozenset[str]] = frozenset()

    def __repr__(self) -> str:
        """Return the text for logs and tracebacks."""
        shown = ", ".join(f"{name}={value!r}" for name, value in self.__rich_repr__())
        return f"{type(self).__name__}({shown})"

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        """Return what is shown; msgspec's own would return everything."""
        return [(name, getattr(self, name)) for name in self.__struct_fields__ if name not in self.hidden]
