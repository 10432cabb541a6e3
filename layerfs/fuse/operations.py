"""FUSE requests on the nodes of a tree: each one answers, or awaits what the node needs and asks it again.

Counts exactly what the kernel owes us forgets for: each successful lookup and each entry that a listing
reply accepted. Must never decide what the tree looks like. The package says which request may wait, and why.
"""

import logging
import os
from collections.abc import Callable, Coroutine, Mapping, Sequence
from errno import EIO, ENODATA, ENOENT, EOPNOTSUPP, EROFS, ESTALE
from stat import S_IFDIR, S_IFMT, S_IFREG
from typing import Any, Final, NoReturn, TypeVar

import pyfuse3
import trio
from pyfuse3 import EntryAttributes, FileInfo, FUSEError, ReaddirToken, RequestContext, StatvfsData

from layerfs.fuse.errnos import fuse_request, translate
from layerfs.fuse.files import Bytes, OpenFiles
from layerfs.fuse.listings import OpenListings
from layerfs.fuse.passing import FILES, PAUSE, KnownNames
from layerfs.fuse.prepared import (
    BLOCK_SIZE,
    absent_entry,
    entry_of,
    kept_listing,
    prepared,
)
from layerfs.fuse.prepared import forget as forget_prepared
from layerfs.fuse.served import Inodes, ServedTree
from layerfs.fuse.tallies import tally_of
from layerfs.fuse.waiting import Waits
from layerfs.host.namespaces import in_initial_user_namespace
from layerfs.needs import Need, Provider
from layerfs.view.nodes import Entries, LongEntries, Node

log = logging.getLogger(__name__)
_lookups: Final = tally_of("lookup")

T = TypeVar("T")

ROUNDS: Final = 8
"""Needs that one request may have in turn: a tag, its manifest, its platform's, a layer, and spare."""

_NAME_BYTES: Final = 255
_FORGETS: Final = 128

# Unsupported, not missing, where there is none: ls asks once for each mount, not once for each file. Never
# ENOSYS, which the kernel takes for all attributes of the mount: overlays would see none any more.
_ACL_PREFIX: Final = b"system.posix_acl_"
_SELINUX: Final = b"security.selinux"
_TRUSTED_PREFIX: Final = b"trusted."
_USER_PREFIX: Final = b"user."


async def _refuse(*_: Any) -> NoReturn:
    raise FUSEError(EROFS)


class ReadOnly(pyfuse3.Operations):
    """Everything that would change something, refused; with ``ro`` the kernel does so before it asks."""

    setattr: Any = _refuse
    mknod = mkdir = unlink = rmdir = symlink = rename = link = setattr
    write = create = setxattr = removexattr = setattr


class Operations(ReadOnly):
    """The requests of one mount."""

    supports_dot_lookup = False  # for NFS exports only
    enable_acl = False
    enable_writeback_cache = False

    def __init__(
        self,
        tree: ServedTree,
        provider: Provider,
        waits: Waits,
        *,
        disk: str | None = None,
        files: int = FILES,
    ) -> None:
        """Serve *tree*; statfs(2) describes the filesystem of the path *disk*.

        The kernel is asked to forget all files but the last *files*.
        """
        assert tree.root.ino == pyfuse3.ROOT_INODE
        self._inodes = tree.inodes
        self._provider = provider
        self._waits = waits
        self._disk = disk
        self._files = OpenFiles()
        self._names = KnownNames(self._files.is_open, files=files)
        self._listings = OpenListings(tree.inodes, self._names)

    def _node(self, ino: int) -> Node:
        try:
            return self._inodes.get(ino)
        except KeyError:
            raise OSError(ESTALE, f"inode {ino} is not known to the kernel") from None

    async def _settle(self, ask: Callable[[], T | Need], ctx: RequestContext) -> T:
        """Ask until the answer is no need, obtaining each; the caller may be interrupted meanwhile."""
        with self._waits.of(ctx.pid):
            for _ in range(ROUNDS):
                answer = ask()
                if not isinstance(answer, Need):
                    return answer
                await self._provider.obtain(answer)
            answer = ask()
        if isinstance(answer, Need):
            raise OSError(EIO, f"still needed after {ROUNDS} rounds: {answer}")
        return answer

    @fuse_request
    def lookup(
        self, parent_inode: int, name: bytes, ctx: RequestContext
    ) -> EntryAttributes | Coroutine[Any, Any, EntryAttributes]:
        """Answer a name; the only place, with readdir, that makes an inode known to the kernel."""
        parent = self._node(parent_inode)
        node = parent.lookup(name)
        if isinstance(node, Need):
            return self._look_up_later(parent, name, ctx)
        if self._names.asked and node and not node.lookups and self._names.are_too_many:
            return self._found_slowly(parent, name, node)
        return self._found(parent, name, node)

    async def _found_slowly(self, parent: Node, name: bytes, node: Node) -> EntryAttributes:
        await trio.sleep(PAUSE)
        return self._found(parent, name, node)

    async def _look_up_later(self, parent: Node, name: bytes, ctx: RequestContext) -> EntryAttributes:
        node = await self._settle(lambda: parent.lookup(name), ctx)
        return self._found(parent, name, node)

    def _found(self, parent: Node, name: bytes, node: Node | None) -> EntryAttributes:
        if node is None:
            timeout = parent.negative_timeout
            if timeout > 0:
                _lookups.refused(ENOENT)
                return absent_entry(timeout)
            raise FUSEError(ENOENT)
        entry = entry_of(node)  # everything that can fail is above this line
        self._inodes.remember(node)
        self._names.met(parent, name, node, entry)
        return entry

    async def forget(self, inode_list: Sequence[tuple[int, int]]) -> None:
        """Take back counts; nobody waits for a reply, so nothing may be raised."""
        inodes = self._inodes
        for done, (ino, times) in enumerate(inode_list, 1):
            if done % _FORGETS == 0:
                await trio.lowlevel.checkpoint()  # a batch of 65,000 would hold up everybody else
            try:
                node = inodes.get(ino)
                inodes.forget(ino, times)
                if node.ino != pyfuse3.ROOT_INODE and not _is_known(inodes, ino):
                    forget_prepared(node)
            except Exception as error:  # noqa: BLE001 - forget has no caller to tell; logged
                translate("forget", error)

    @fuse_request
    def getattr(self, inode: int, ctx: RequestContext) -> EntryAttributes:
        """Answer attributes, from memory or the local disk."""
        return entry_of(self._node(inode))

    @fuse_request
    def readlink(self, inode: int, ctx: RequestContext) -> bytes | Coroutine[Any, Any, bytes]:
        """Answer the target of a link; for an unknown tag this is what resolves it."""
        node = self._node(inode)
        target = node.readlink()
        if isinstance(target, Need):
            return self._settle(node.readlink, ctx)
        return target

    @fuse_request
    def open(self, inode: int, flags: int, ctx: RequestContext) -> FileInfo | Coroutine[Any, Any, FileInfo]:
        """Open a file; what is not here yet is fetched now, since a read has no caller to interrupt."""
        node = self._node(inode)
        info = self._files.reopen(node)
        if info is not None:
            return info
        content = node.open()
        if isinstance(content, Need):
            return self._open_later(node, ctx)
        try:
            return self._files.open(node, content)
        except FileNotFoundError:  # a collection took it between look and use
            return self._open_later(node, ctx)

    async def _open_later(self, node: Node, ctx: RequestContext) -> FileInfo:
        return self._files.open(node, await self._settle(node.open, ctx))

    @fuse_request
    def read(  # type: ignore[override]  # any buffer will do
        self, fh: int, off: int, size: int
    ) -> Bytes | Coroutine[Any, Any, Bytes]:
        """Answer bytes of an open file."""
        return self._files.read(fh, off, size)

    @fuse_request
    def release(self, fh: int) -> None:
        """Take back one open."""
        self._files.release(fh)

    @fuse_request
    def opendir(self, inode: int, ctx: RequestContext) -> int | Coroutine[Any, Any, int]:
        """Take the listing for one handle: offsets stay good while the directory changes."""
        node = self._node(inode)
        found = node.entries()  # though a listing may be kept: its layers may have gone
        if isinstance(found, Need):
            return self._list_later(node, ctx)
        kept = kept_listing(node)
        return self._listed(node, found if kept is None else kept)

    async def _list_later(self, node: Node, ctx: RequestContext) -> int:
        return self._listed(node, await self._settle(node.entries, ctx))

    def _listed(self, node: Node, listing: Entries | LongEntries) -> int:
        if not isinstance(listing, LongEntries) and node.negative_timeout > 0:
            kept = prepared(node)
            if kept is not None:
                kept.listing = listing
        return self._listings.open(node, listing)

    @fuse_request
    def readdir(self, fh: int, start_id: int, token: ReaddirToken) -> Coroutine[Any, Any, None] | None:
        """Answer a part of a listing with attributes: ``.``, ``..``, then the entries."""
        return self._listings.read(fh, start_id, token)

    @fuse_request
    def releasedir(self, fh: int) -> None:
        """Drop the listing of one handle."""
        self._listings.close(fh)

    @fuse_request
    def getxattr(self, inode: int, name: bytes, ctx: RequestContext) -> bytes:
        """Answer one attribute; never waits."""
        if name == _SELINUX:
            raise FUSEError(EOPNOTSUPP)
        found = self._xattrs(self._node(inode))
        value: bytes | None = found.get(name)
        if value is None:
            # A directory may have a default ACL alone; cp and tar ask for that only if ACLs are supported.
            no_acls = name.startswith(_ACL_PREFIX) and not any(key.startswith(_ACL_PREFIX) for key in found)
            raise FUSEError(EOPNOTSUPP if no_acls else ENODATA)
        return value

    @fuse_request
    def listxattr(self, inode: int, ctx: RequestContext) -> Sequence[bytes]:
        """Answer the names of all attributes that the kernel lets the caller read.

        As on ext4, only root sees those of ``trusted.``, and that of a user namespace is not it. Those of
        ``user.`` can be read of files and directories alone (xattr(7)).
        """
        node = self._node(inode)
        names = [name for name in self._xattrs(node) if name != _SELINUX]  # that of the store on its disk
        if names and (ctx.uid != 0 or not in_initial_user_namespace()):
            names = [name for name in names if not name.startswith(_TRUSTED_PREFIX)]
        if names and S_IFMT(entry_of(node).st_mode) not in (S_IFREG, S_IFDIR):
            names = [name for name in names if not name.startswith(_USER_PREFIX)]
        return names

    def _xattrs(self, node: Node) -> Mapping[bytes, bytes]:
        kept = prepared(node)
        if kept is None:
            return node.xattrs()
        if kept.xattrs is None:
            kept.xattrs = node.xattrs()
        return kept.xattrs

    @fuse_request
    def statfs(self, ctx: RequestContext) -> StatvfsData:
        """Describe the disk below the store, with nothing free to those who cannot write."""
        reply = StatvfsData()
        reply.f_bsize = reply.f_frsize = BLOCK_SIZE
        reply.f_namemax = _NAME_BYTES
        if self._disk is not None:
            below = os.statvfs(self._disk)
            reply.f_bsize, reply.f_frsize = below.f_bsize, below.f_frsize
            reply.f_blocks, reply.f_files = below.f_blocks, below.f_files
            reply.f_bfree, reply.f_ffree = below.f_bfree, below.f_ffree
        return reply

    def close(self) -> None:
        """Close what callers left open; the mount is gone."""
        self._files.close()
        self._listings.close_all()


def _is_known(inodes: Inodes, ino: int) -> bool:
    try:
        inodes.get(ino)
    except KeyError:
        return False
    return True
