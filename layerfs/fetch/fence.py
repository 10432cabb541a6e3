"""An origin that is asked about some registries only.

For mounts that other users may read: a path below ``images/`` names any host, and walking into it must not
lend the daemon's network, or its logins, to whoever does. Decides by name, before anything is sent.
"""

from collections.abc import Iterable

from layerfs.errors import Denied
from layerfs.fetch.origin import Arrived, Origin, Resolved, Target
from layerfs.oci import Descriptor, Digest, Repository


class Fenced:
    """*origin*, for these *registries* alone; for all others every method raises Denied."""

    def __init__(self, origin: Origin, registries: Iterable[str]) -> None:
        self._origin = origin
        self._registries = frozenset(registries)

    async def resolve(self, repository: Repository, tag: str) -> Resolved:
        """Say what *tag* names now."""
        self._check(repository)
        return await self._origin.resolve(repository, tag)

    async def fetch_manifest(
        self, repository: Repository, digest: Digest, expected_size: int | None = None
    ) -> tuple[bytes, str]:
        """Return the verified bytes of a manifest or index, and its media type where that is known."""
        self._check(repository)
        return await self._origin.fetch_manifest(repository, digest, expected_size)

    async def fetch_config(self, repository: Repository, descriptor: Descriptor) -> bytes:
        """Return the verified bytes of a config."""
        self._check(repository)
        return await self._origin.fetch_config(repository, descriptor)

    async def receive(
        self, repository: Repository, descriptor: Descriptor, target: Target, arrived: Arrived
    ) -> None:
        """Write what is missing of a blob."""
        self._check(repository)
        await self._origin.receive(repository, descriptor, target, arrived)

    def _check(self, repository: Repository) -> None:
        if repository.registry not in self._registries:
            allowed = ", ".join(sorted(self._registries)) or "none"
            raise Denied(
                f"{repository}: the mount may not contact {repository.registry} (only: {allowed}); "
                f"mount with --registries {repository.registry}"
            )
