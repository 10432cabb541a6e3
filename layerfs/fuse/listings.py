"""Listings that callers have open: the parts of replies to READDIR, each entry counted that the kernel took.

A short one is a sequence that was taken at OPENDIR, so offsets stay good while the directory changes. A long
one is read from the disk as the caller goes, and the kernel is told names without nodes.
"""

from collections.abc import Coroutine
from itertools import count
from typing import Any, Final

import pyfuse3
import trio
from pyfuse3 import ReaddirToken

from layerfs.fuse.passing import KnownNames
from layerfs.fuse.prepared import entry_of, passing_entry
from layerfs.fuse.served import Inodes
from layerfs.view.nodes import Entries, LongEntries, Node

_LISTED_AT_ONCE: Final = 128
_DOTS: Final = 2
"""Entries before those of the listing: ``.`` and ``..``."""


class OpenListings:
    """The listings of one mount by handle."""

    def __init__(self, inodes: Inodes, names: KnownNames) -> None:
        self._inodes = inodes
        self._names = names
        self._listings: dict[int, tuple[Node, Entries | LongEntries]] = {}
        self._handles = count(1)

    def __len__(self) -> int:
        """Return how many are open."""
        return len(self._listings)

    def open(self, directory: Node, listing: Entries | LongEntries) -> int:
        """Return a handle for *listing*."""
        handle = next(self._handles)
        self._listings[handle] = (directory, listing)
        return handle

    def close(self, handle: int) -> None:
        """Drop one listing."""
        self._listings.pop(handle, None)

    def close_all(self) -> None:
        """Drop all."""
        self._listings.clear()

    def read(self, handle: int, start_id: int, token: ReaddirToken) -> Coroutine[Any, Any, None] | None:
        """Answer as much as fits, from *start_id* on. Raises OSError if not even one entry can be had."""
        directory, listing = self._listings[handle]
        position = start_id
        # The kernel never counts these two, and takes only the number and the type.
        while position < _DOTS:
            name = b".." if position else b"."
            if not pyfuse3.readdir_reply(token, name, entry_of(directory), position + 1):
                return None
            position += 1
        if isinstance(listing, LongEntries):
            return self._read_long(directory, listing, position, start_id, token)
        self._read_kept(directory, listing, position, start_id, token)
        return None

    def _read_kept(
        self, directory: Node, listing: Entries, position: int, start_id: int, token: ReaddirToken
    ) -> None:
        remember, met = self._inodes.remember, self._names.met
        reply = pyfuse3.readdir_reply
        while position - _DOTS < len(listing):
            for name, node in listing[position - _DOTS : position - _DOTS + _LISTED_AT_ONCE]:
                try:
                    entry = entry_of(node)
                except Exception:
                    if position > start_id:
                        return  # what was accepted must reach the kernel; the next request fails here
                    raise
                position += 1
                if not reply(token, name, entry, position):
                    return
                remember(node)
                met(directory, name, node, entry)

    async def _read_long(
        self, directory: Node, listing: LongEntries, position: int, start_id: int, token: ReaddirToken
    ) -> None:
        """Answer a part of a listing that nobody keeps; others are served while it is searched for."""
        while not listing.seek(position - _DOTS):
            await trio.lowlevel.checkpoint()
        while (found := listing.next_entries()) is not None:
            for taken, (name, node) in enumerate(found):
                try:
                    entry, counts = passing_entry(node)
                except Exception:
                    if position > start_id:
                        listing.advance(taken)
                        return
                    raise
                position += 1
                if not pyfuse3.readdir_reply(token, name, entry, position):
                    listing.advance(taken)
                    return
                if counts:
                    self._inodes.remember(node)
                    self._names.met(directory, name, node, entry)
            listing.advance(len(found))
            await trio.lowlevel.checkpoint()
