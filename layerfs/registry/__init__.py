"""Bytes from the network: the client of OCI registries.

Imports only `errors`, `oci` and `host.files`, and is the only package that imports httpx. That, and all that
speaks HTTP, is imported when somebody first wants it from here: it takes a quarter of the start of a daemon,
and one whose store has everything never asks.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

from layerfs.registry.retry import Backoff, RetryPolicy
from layerfs.registry.settings import RegistrySettings

if TYPE_CHECKING:
    from layerfs.registry.blob import BlobStream
    from layerfs.registry.client import RegistryClient, Resolved
    from layerfs.registry.keychain import registries_with_logins

_ON_DEMAND: Final = {
    "BlobStream": "blob",
    "RegistryClient": "client",
    "Resolved": "client",
    "registries_with_logins": "keychain",
}
"""The module of each name that is imported on demand."""


def __getattr__(name: str) -> Any:
    """Import what is on demand (PEP 562)."""
    if name not in _ON_DEMAND:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_ON_DEMAND[name]}"), name)


__all__ = [
    "Backoff",
    "BlobStream",
    "RegistryClient",
    "RegistrySettings",
    "Resolved",
    "RetryPolicy",
    "registries_with_logins",
]
