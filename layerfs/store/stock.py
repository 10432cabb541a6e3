"""The things of a store that have their final names: where each is, what it takes, when it was last used."""

import os
from pathlib import Path
from typing import Any, Literal

import msgspec

from layerfs.oci import Digest
from layerfs.store.layout import StoreLayout
from layerfs.store.measure import disk_usage, tree_usage
from layerfs.store.trees import TreeShelf

StoredKind = Literal["layer", "cover", "skeleton", "toc", "blob", "manifest", "config"]


class Stored(msgspec.Struct, frozen=True):
    """One thing: a layer directory, a cover or a skeleton with its record, a TOC, a blob, a document."""

    kind: StoredKind
    digest: Digest


class Stock:
    """All things of one store."""

    def __init__(
        self,
        layout: StoreLayout,
        layers: TreeShelf[Any],
        covers: TreeShelf[Any],
        skeletons: TreeShelf[Any],
    ) -> None:
        self._layout = layout
        self.shelves: dict[StoredKind, TreeShelf[Any]] = {
            "layer": layers,
            "cover": covers,
            "skeleton": skeletons,
        }
        """Where the trees are, by their kind."""

    def path(self, what: Stored) -> Path:
        """Return the final name of a thing."""
        shelf = self.shelves.get(what.kind)
        if shelf is not None:
            return shelf.directory / what.digest.name
        find = {
            "toc": self._layout.toc,
            "blob": self._layout.blob,
            "manifest": self._layout.manifest,
            "config": self._layout.config,
        }
        return find[what.kind](what.digest)

    def measure(self, what: Stored) -> int:
        """Return the bytes that a thing takes of the disk, its record included; 0 if it is not there."""
        shelf = self.shelves.get(what.kind)
        if shelf is None:
            return disk_usage(self.path(what))

        def settled() -> bool:
            record = shelf.read_record(what.digest)
            return record is not None and record.state == "durable"

        return tree_usage(self.path(what), shelf.record_path(what.digest), settled)

    def used_at(self, what: Stored) -> float:
        """Return when a thing was last used, as seconds since the epoch, exact to the hour; 0 if unknown."""
        shelf = self.shelves.get(what.kind)
        path = self.path(what) if shelf is None else shelf.record_path(what.digest)
        try:
            return os.lstat(path).st_mtime
        except OSError:
            return 0.0
