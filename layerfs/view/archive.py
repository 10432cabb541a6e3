"""The union of layers as one tar archive, always the same bytes."""

import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Final

from layerfs.errors import StoreDamaged
from layerfs.layer import tarwriter
from layerfs.layer.member import Member, Type
from layerfs.layer.paths import join
from layerfs.store import LayerDir
from layerfs.store.layout import EXTRACTED
from layerfs.view.nodes import FileContent, Node
from layerfs.view.walk import merged_root, walk

Write = Callable[[bytes], object]

_CHUNK: Final = 1 << 20
_TYPES: Final = {
    stat.S_IFREG: Type.FILE,
    stat.S_IFLNK: Type.SYMLINK,
    stat.S_IFCHR: Type.CHARACTER,
    stat.S_IFBLK: Type.BLOCK,
    stat.S_IFDIR: Type.DIRECTORY,
    stat.S_IFIFO: Type.FIFO,
}


def write_tar(layers: list[LayerDir], write: Write) -> None:
    """Write the union of *layers*, base first, as an archive. Raises OSError, StoreDamaged."""
    root = merged_root(layers)
    links: dict[object, bytes] = {}
    for path, node in walk(root) if root else ():
        attributes = node.attributes()
        kind = _TYPES.get(stat.S_IFMT(attributes.mode))
        if kind is None:
            continue  # a socket: an archive cannot hold it
        member = Member(
            name=join(path, b"") if kind is Type.DIRECTORY and path else path or b"./",
            type=kind,
            mode=attributes.mode & 0o7777,
            uid=attributes.uid,
            gid=attributes.gid,
            mtime_ns=attributes.mtime_ns,
            size=0,
            stored=0,
        )
        if attributes.nlink > 1 and kind is not Type.DIRECTORY:
            first = links.setdefault(node.identity, path)
            if first != path:
                member.type, member.link = Type.HARDLINK, first
                write(tarwriter.header(member))
                continue
        _fill(member, node)
        write(tarwriter.header(member))
        if kind is Type.FILE and member.size:
            copy_content(path, node, member.size, write)
            write(tarwriter.padding(member.size))
    write(tarwriter.END)


def _fill(member: Member, node: Node) -> None:
    """Add what only the first name of a file says."""
    attributes = node.attributes()
    member.xattrs = dict(node.xattrs())
    if member.type is Type.FILE:
        member.size = attributes.size
    elif member.type is Type.SYMLINK:
        target = node.readlink()
        assert isinstance(target, bytes)
        member.link = target
    elif member.type in (Type.CHARACTER, Type.BLOCK):
        member.major, member.minor = os.major(attributes.rdev), os.minor(attributes.rdev)


def copy_content(path: bytes, node: Node, size: int, write: Write) -> None:
    """Write the *size* bytes of a file, and no more. Raises StoreDamaged if it has become shorter."""
    content = node.open()
    assert isinstance(content, FileContent)
    fd = os.open(content.path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=content.dir_fd)
    try:
        while size and (chunk := os.read(fd, min(size, _CHUNK))):
            write(chunk)
            size -= len(chunk)
        if size:
            raise StoreDamaged(f"{os.fsdecode(path)}: {size} bytes are missing{_remedy(fd)}")
    finally:
        os.close(fd)


def _remedy(fd: int) -> str:
    """Say how the damaged layer that an open file belongs to is made anew."""
    name = Path(f"/proc/self/fd/{fd}").readlink()
    trees = (parent for parent in name.parents if parent.parent.name == EXTRACTED)
    layer = next(trees, None)
    return "" if layer is None else f"; remove the directory {layer}, and the next access extracts it again"
