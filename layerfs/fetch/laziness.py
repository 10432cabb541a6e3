"""What the user said of lazy layers: of which repositories they may be shown before they are whole."""

from fnmatch import fnmatchcase
from typing import Final

import msgspec

from layerfs.oci import Repository


class Laziness(msgspec.Struct, frozen=True, kw_only=True):
    """What the user said of lazy layers."""

    on: bool = True
    whole: tuple[str, ...] = ()
    """Patterns of repositories whose layers must be whole before they are seen, as ``registry/*``."""

    def allows(self, repository: Repository) -> bool:
        """Say whether layers of *repository* may be lazy."""
        return self.on and not any(fnmatchcase(str(repository), pattern) for pattern in self.whole)


LAZY: Final = Laziness()
