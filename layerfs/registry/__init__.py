"""Bytes from the network: the client of OCI registries.

Imports only `errors` and `oci`, and is the only package that imports httpx.
"""

from layerfs.registry.blob import BlobStream
from layerfs.registry.client import RegistryClient, Resolved
from layerfs.registry.retry import Backoff, RetryPolicy
from layerfs.registry.settings import RegistrySettings

__all__ = ["Backoff", "BlobStream", "RegistryClient", "RegistrySettings", "Resolved", "RetryPolicy"]
