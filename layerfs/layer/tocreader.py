"""Entries of a TOC to members and the places of their bytes: read, and judged like an archive. Pure.

A TOC that breaks a rule is refused as a whole: its layer can be read without it. The rules of members hold
(`layerfs.layer.rules`, `layerfs.layer.paths`, `layerfs.layer.whiteout`), and those of TOCs besides: no name
twice; data in the order of the blob, inside of it, without overlaps; chunks that make up their file; a digest
for all data. What tools do about a TOC that breaks these differs; a layer may not look different to each.
"""

from collections.abc import Iterator
from typing import Final

from layerfs.errors import BudgetExceeded, InvalidLayer, InvalidToc
from layerfs.layer.budgets import Budgets
from layerfs.layer.member import Member, Type
from layerfs.layer.paths import clean, is_plain, shown
from layerfs.layer.pax import check_owner
from layerfs.layer.rules import PERMISSIONS, mode_of, settle
from layerfs.layer.toc import Entry, Toc
from layerfs.layer.tocjson import EntryJson, decode, moment
from layerfs.layer.tocpieces import PieceReader, check_digest, check_nothing
from layerfs.layer.whiteout import WH_PREFIX, is_marker, markers_in
from layerfs.oci.toc import TocKind

_TYPES: Final = {
    "reg": Type.FILE, "hardlink": Type.HARDLINK, "symlink": Type.SYMLINK, "char": Type.CHARACTER,
    "block": Type.BLOCK, "dir": Type.DIRECTORY, "fifo": Type.FIFO,
}  # fmt: skip
ESTARGZ_NAME: Final = b"stargz.index.json"
"""The member of the archive that the TOC of eStargz is. It is not among its entries."""
_CHUNK: Final = "chunk"
_FILE: Final = Type.FILE
"""Finding it in its class takes longer than comparing with it."""
_LOST: Final = "\ufffd"
_RATIO_FREE: Final = 64 << 20
"""Bytes that any layer may hold, however small its blob is."""


def parse_toc(raw: bytes, kind: TocKind, data_end: int, budgets: Budgets) -> Toc:
    """Read the JSON of a TOC; the blob's data is in front of *data_end*, where the TOC begins.

    The digest of *raw* was checked. Raises InvalidToc, BudgetExceeded.
    """
    document = decode(raw, budgets.max_entries)
    if document.tar_split_digest:
        check_digest(document.tar_split_digest, "tarSplitDigest")
    return Toc(_judged(document.entries, kind, data_end, budgets), document.tar_split_digest)


def _judged(found: list[EntryJson], kind: TocKind, data_end: int, budgets: Budgets) -> Iterator[Entry]:
    """Yield what *found* says, judged one by one, at the end all together. Raises as `parse_toc`."""
    reader = _Reader(PieceReader(kind, data_end), budgets)
    if kind is TocKind.ESTARGZ:
        reader.reserve(ESTARGZ_NAME)
    try:
        yield from reader.read(found)
        reader.check_links()
        reader.check_size(data_end)
    except (InvalidToc, BudgetExceeded):
        raise
    except InvalidLayer as exc:
        raise InvalidToc(f"TOC: {exc}") from None


class _Reader:
    """Reads the entries of one TOC."""

    def __init__(self, pieces: PieceReader, budgets: Budgets) -> None:
        self._pieces = pieces
        self._budgets = budgets
        self._types: dict[bytes, Type] = {}
        self._owners: dict[tuple[int, int, int], tuple[int, int, int]] = {}
        self._parents: set[bytes] = set()
        """Directories as entries write them, clean and without markers."""
        self._links: dict[bytes, bytes] = {}
        """Targets of hard links by path."""
        self._size = 0

    def reserve(self, path: bytes) -> None:
        """Know of a file at *path* that no entry may be."""
        self._types[path] = Type.FILE

    def read(self, found: list[EntryJson]) -> Iterator[Entry]:
        """Yield the entries, and use *found* up: both together are more memory. Raises InvalidLayer.

        Where the last bytes of a file end may not be known before the next one is asked for.
        """
        found.reverse()
        while found:
            first = found.pop()
            chunks = []
            while found and found[-1].type == _CHUNK:
                chunks.append(found.pop())
            yield self._entry(first, chunks)
        self._pieces.finish()

    def _entry(self, json: EntryJson, chunks: list[EntryJson]) -> Entry:
        member = self._member(json)
        self._take_name(member)
        if member.type is _FILE and member.size:
            self._size += member.size
            return Entry(member, self._pieces.content(json, chunks))
        if member.type is _FILE:
            check_nothing(json)
        if chunks:
            raise InvalidToc(f"TOC: {shown(member.name)}: a chunk of what has no content")
        return Entry(member, None)

    def _member(self, json: EntryJson) -> Member:
        name = _bytes(json.name)
        kind = _TYPES.get(json.type)
        if kind is None:
            raise InvalidToc(f"TOC: {shown(name)}: type {json.type[:40]!r} (expected {', '.join(_TYPES)})")
        size = json.size
        if not 0 <= size < 1 << 63:
            raise InvalidToc(f"TOC: {shown(name)}: size {size} (expected 0 or more, less than 2^63)")
        owner = json.mode, json.uid, json.gid
        known = self._owners.get(owner)
        if known is None:
            known = mode_of(json.mode), check_owner(json.uid, name), check_owner(json.gid, name)
            self._owners[owner] = known
        member = Member(name, kind, *known, moment(json.modtime), size, 0)
        if kind is _FILE and not json.xattrs and known[0] <= PERMISSIONS:
            return member  # most are, and there is nothing to settle
        member.link, member.major, member.minor = _bytes(json.link_name), json.dev_major, json.dev_minor
        if json.xattrs:
            member.xattrs = {_bytes(key): value for key, value in json.xattrs.items()}
        return settle(member, self._budgets.max_pax_bytes)

    def _take_name(self, member: Member) -> None:
        path = self._path(member.name)
        if path in self._types:
            raise InvalidToc(f"TOC: {shown(path)}: listed twice")
        if not path and member.type is not Type.DIRECTORY:
            raise InvalidToc("TOC: the layer's root is no directory")
        self._types[path] = member.type
        if member.type is Type.HARDLINK and not is_marker(path.rpartition(b"/")[2]):
            self._links[path] = self._path(member.link)

    def _path(self, name: bytes) -> bytes:
        """Return the path of an entry; what is in front of its last component is judged once."""
        raw = name[:-1] if name.endswith(b"/") else name
        parent, _, leaf = raw.rpartition(b"/")
        if parent in self._parents and is_plain(leaf):
            return raw if parent else leaf
        path = clean(name, self._budgets.max_depth)
        if WH_PREFIX in path:
            markers_in(path)
        elif path == raw:
            self._parents.add(parent)
        return path

    def check_links(self) -> None:
        """Raise InvalidToc for hard links that end nowhere, and for entries in what is no directory."""
        for path in self._links:
            self._check_link(path)
        sound = {b""}
        for path in self._types:
            parent = path.rpartition(b"/")[0]
            while parent not in sound:
                if self._types.get(parent, Type.DIRECTORY) is not Type.DIRECTORY:
                    raise InvalidToc(
                        f"TOC: {shown(path)}: an entry in {shown(parent)}, which is no directory"
                    )
                sound.add(parent)
                parent = parent.rpartition(b"/")[0]

    def _check_link(self, path: bytes) -> None:
        target, passed = self._links[path], {path}
        while target in self._links and target not in passed:
            passed.add(target)
            target = self._links[target]
        kind = self._types.get(target, Type.DIRECTORY)
        if target in passed or kind is Type.DIRECTORY:
            why = "a circle" if target in passed else "which is no entry, or a directory"
            raise InvalidToc(f"TOC: {shown(path)}: a hard link to {shown(target)}, {why}")
        for each in passed:
            self._links[each] = target  # so that a long chain is followed once

    def check_size(self, blob: int) -> None:
        """Raise BudgetExceeded for more bytes in all files than a layer may have."""
        budgets = self._budgets
        if self._size > budgets.max_layer_bytes:
            raise BudgetExceeded(
                f"TOC: files of {self._size} bytes (max_layer_bytes is {budgets.max_layer_bytes})"
            )
        if self._size > _RATIO_FREE and self._size > budgets.max_ratio * blob:
            raise BudgetExceeded(f"TOC: {self._size} bytes out of {blob} (max_ratio is {budgets.max_ratio})")


def _bytes(text: str) -> bytes:
    """Return a name, target or key. Raises InvalidToc where the TOC has lost what it was."""
    if _LOST in text:
        raise InvalidToc(f"TOC: {text[:100]!r}: was no UTF-8 in the archive, and what it was is not said")
    return text.encode()
