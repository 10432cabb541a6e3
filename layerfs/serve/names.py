"""Which repositories of the store a name means, and what strangers may have of them. Blocking, thread-safe.

Names of the store are registry/repository. A name that is asked for without its registry means the one
repository of that path which the store knows at some registry, and nothing where several do.
"""

import time
from contextlib import suppress
from fnmatch import fnmatchcase
from typing import Final

import msgspec

from layerfs.catalog.inventory import needs_of
from layerfs.errors import InvalidReference
from layerfs.oci import Digest, Repository
from layerfs.serve.asks import Name
from layerfs.serve.replies import Refused
from layerfs.store import ImageStorage

_AGAIN: Final = 10
"""What a repository leads to is not looked up again for so many times what looking took: so names for which
that is much cost little."""
_REMEMBERED: Final = 256
"""Repositories."""


class _Reach(msgspec.Struct, frozen=True):
    digests: frozenset[Digest]
    until: float


class Names:
    """The repositories of *storage* that *patterns*, as those of a shell, allow; all of them without any."""

    def __init__(self, storage: ImageStorage, patterns: tuple[str, ...] = ()) -> None:
        self._storage = storage
        self._patterns = patterns
        self._reached: dict[Repository, _Reach] = {}

    def meant(self, name: Name) -> Repository:
        """Return the repository that *name* means; with a registry it need not be known. Raises Refused."""
        found = [one for one in self._candidates(name) if self._allows(one)]
        if len(found) > 1:
            raise Refused(
                404,
                "NAME_UNKNOWN",
                f"{name}: {len(found)} registries have it here (expected ?ns=REGISTRY, or "
                f"/v2/REGISTRY/{name.path}/)",
            )
        if not found:
            raise Refused(404, "NAME_UNKNOWN", f"{name}: not served here")
        return found[0]

    def refuse_others(self, name: Name, digest: Digest) -> None:
        """Raise Refused unless strangers may have *digest* under *name*.

        Without patterns they may have whatever the store has, under any name. With some, a digest has to be
        one that the repository's tags and kept images lead to: else the name of one that is served would open
        all others.
        """
        if self._patterns and digest not in self.reach(self.meant(name)):
            raise Refused(404, "NAME_UNKNOWN", f"{name}: {digest} is not served here")

    def reach(self, repository: Repository) -> frozenset[Digest]:
        """Return what the refs of *repository* lead to, whether it is here or not."""
        known, now = self._reached.get(repository), time.monotonic()
        if known is not None and now < known.until:
            return known.digests
        digests: set[Digest] = set()
        for target in self._storage.refs.targets(repository):
            digests |= needs_of(self._storage, target, digests)
        ended = time.monotonic()
        if len(self._reached) >= _REMEMBERED:
            self._reached.clear()
        self._reached[repository] = _Reach(frozenset(digests), ended + _AGAIN * (ended - now))
        return self._reached[repository].digests

    def forget(self, repository: Repository) -> None:
        """Look up what *repository* leads to when it is asked for next."""
        self._reached.pop(repository, None)

    def _candidates(self, name: Name) -> list[Repository]:
        if name.registry:
            return [name.at(name.registry)]
        found = []
        for registry in self._storage.refs.registries():
            with suppress(InvalidReference):  # both together are too long
                found.append(name.at(registry))
        return [one for one in found if self._storage.refs.has(one)]

    def _allows(self, repository: Repository) -> bool:
        return not self._patterns or any(fnmatchcase(str(repository), one) for one in self._patterns)
