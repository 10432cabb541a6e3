"""Settings and shorthands for tests that use the registry client."""

from typing import Any

from layerfs.oci import Descriptor, Repository
from layerfs.registry import RegistrySettings, RetryPolicy
from layerfs.registry.client import RegistryClient

QUICK = RetryPolicy(attempts=3, base=0.002)
"""Retries that cost a test no time."""


def quick(**changes: Any) -> RegistrySettings:
    """Make settings that know nothing of this machine's credentials and proxies."""
    values: dict[str, Any] = {"environment": {}, "retry": QUICK, "certs_dirs": ()}
    return RegistrySettings(**(values | changes))


async def download(
    client: RegistryClient, repository: Repository, descriptor: Descriptor, offset: int = 0
) -> tuple[int, bytes]:
    """Read a whole blob; return where it started, and the bytes."""
    async with client.stream_blob(repository, descriptor, offset) as stream:
        return stream.offset, b"".join([chunk async for chunk in stream])
