"""Fixtures of the tests of collection."""

from tests.cli.conftest import _fork_server, layerfs

__all__ = ["_fork_server", "layerfs"]
