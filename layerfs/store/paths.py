"""The paths of a store under their public names; a path says nothing about what is there.

Does no I/O. Base of `layerfs.store.ImageStorage`, which embedders see.
"""

import os
from collections.abc import Sequence
from pathlib import Path

from layerfs.oci import Digest, stack_digest
from layerfs.store.layout import StoreLayout
from layerfs.store.records import Merger


class StorePaths:
    """Where things lie. A digest is a `Digest` or its text; text is parsed first (InvalidDigest)."""

    def __init__(self, layout: StoreLayout) -> None:
        self._layout = layout

    @property
    def images_dir(self) -> Path:
        """The directory of the whole store, absolute."""
        return self._layout.root

    @property
    def layer_dir(self) -> Path:
        """The directory of compressed blobs."""
        return self._layout.layers

    def manifest_path(self, digest: Digest | str) -> Path:
        """``manifests/sha256-<hex>.json``, whether it is there or not."""
        return self._layout.manifest(digest)

    def config_path(self, digest: Digest | str) -> Path:
        """``configs/sha256-<hex>.json``, whether it is there or not."""
        return self._layout.config(digest)

    def layer_tarball_path(self, digest: Digest | str) -> Path:
        """``layers/sha256-<hex>.tar.gz``, whatever the compression, whether it is there or not."""
        return self._layout.blob(digest)

    def layer_extracted_path(self, digest: Digest | str) -> Path:
        """``extracted/sha256-<hex>``, whether it is there or not; `open_layer` says if it is complete."""
        return self._layout.tree(digest)

    def cover_path(self, layers: Sequence[Digest], merger: Merger = "") -> Path:
        """``covers/sha256-<hex>`` of a stack, base first, whether it is there or not."""
        return self._layout.covers / stack_digest(layers, merger).name

    def local_bundle_cache_dir(
        self, bundle_path: str | os.PathLike[str], manifest_digest: Digest | str
    ) -> Path:
        """``local/<8 hex of the path's sha256>-<8 hex of the digest>``; not created."""
        return self._layout.bundle_cache(Path(bundle_path), manifest_digest)
