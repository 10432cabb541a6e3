"""Bytes from the network: the client of OCI registries.

The only package that imports httpx. That costs a quarter of the start of a daemon, so this file imports
nothing that needs it: the client is `layerfs.registry.client`.
"""

from layerfs.registry.retry import RetryPolicy
from layerfs.registry.settings import RegistrySettings

__all__ = ["RegistrySettings", "RetryPolicy"]
