"""Directories of ``skopeo copy … dir:DIR``: a manifest and blobs named by their hex."""

from pathlib import Path
from typing import Final

from layerfs.errors import InvalidDocument, NotFound, UnsupportedImage
from layerfs.local.contents import SourceImage
from layerfs.local.pieces import FilePart, whole_file
from layerfs.oci import Digest
from layerfs.oci.documents import MAX_DOCUMENT_SIZE

_VERSION: Final = b"Directory Transport Version: 1."


class SkopeoDirectory:
    """The one image of a directory."""

    def __init__(self, path: Path, what: str) -> None:
        """Read version and manifest. Raises NotFound, Denied, UnsupportedImage, InvalidDocument."""
        self._path = path
        version = _file(path / "version")
        if version is not None and not version.read(4096).startswith(_VERSION):
            raise UnsupportedImage(f"{what}: its 'version' is unknown (expected '{_VERSION.decode()}1')")
        manifest = _file(path / "manifest.json")
        if manifest is None:
            raise InvalidDocument(f"{what}: no manifest.json (expected a directory that skopeo wrote)")
        self._raw = manifest.read(MAX_DOCUMENT_SIZE)
        self.images = [SourceImage(Digest.of(self._raw), ())]

    def find(self, digest: Digest) -> FilePart | bytes | None:
        """Return where the bytes named *digest* are."""
        if Digest.of(self._raw, digest.algorithm) == digest:
            return self._raw
        # Manifests of an index have a suffix; skopeo copy --all writes them.
        return _file(self._path / digest.hex) or _file(self._path / f"{digest.hex}.manifest.json")


def _file(path: Path) -> FilePart | None:
    try:
        return whole_file(path)
    except NotFound:
        return None
