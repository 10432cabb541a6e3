"""From the name of a local source to its contents."""

import functools
from pathlib import Path

from layerfs.errors import Denied, InvalidArchive, NotFound
from layerfs.local import dockersave, layout
from layerfs.local.archive import Archive
from layerfs.local.contents import Contents
from layerfs.local.dockersave import DockerSave
from layerfs.local.layout import ImageLayout
from layerfs.local.name import SourceName
from layerfs.local.pieces import FilePart, whole_file
from layerfs.local.skopeodir import SkopeoDirectory


def open_source(source: SourceName) -> Contents:
    """Read what *source* holds: names and documents, no layers.

    Raises NotFound, Denied, InvalidDocument, InvalidArchive, UnsupportedImage, StoreError.
    """
    what = f"{source.transport}:{source.path}"
    if source.transport in ("oci", "dir"):
        _require_directory(source.path, what)
        if source.transport == "dir":
            return SkopeoDirectory(source.path, what)
        return ImageLayout(functools.partial(_in_directory, source.path), what)
    archive = Archive(source.path)
    has_list = archive.find(dockersave.MANIFEST) is not None
    # Since version 25, what docker saves is a layout too, and tells more.
    if source.transport == "oci-archive" or archive.find(layout.MARKER) is not None:
        found = ImageLayout(archive.find, what)
        # What it saves by ID has no name, and Docker leaves it out of the index of the layout.
        if found.images or not has_list:
            return found
    return DockerSave(archive, what)


def _in_directory(directory: Path, name: str) -> FilePart | None:
    try:
        return whole_file(directory / name)
    except NotFound:
        return None


def _require_directory(path: Path, what: str) -> None:
    try:
        if path.is_dir():
            return
        exists = path.exists()
    except PermissionError as exc:
        raise Denied(f"{what}: {exc.strerror}") from exc
    if exists:
        raise InvalidArchive(f"{what}: not a directory (is it an archive? then say {_archive_of(what)})")
    raise NotFound(f"{what}: no such directory")


def _archive_of(what: str) -> str:
    return f"oci-archive:{what.partition(':')[2]} or docker-archive:{what.partition(':')[2]}"
