"""One thing of a store, looked at again and made anew: a file, a layer directory, a cover.

What it is compared with is made beside it, so a repair is a publication. Nothing that a mount uses is taken
away. The network is not asked here: a file is taken away, and somebody else fetches it.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from typing import TYPE_CHECKING, Any, Final, Literal

import msgspec

from layerfs.errors import StoreError
from layerfs.host import boot_id
from layerfs.layer.record import LayerRecord
from layerfs.layer.tables import rows
from layerfs.oci import Digest
from layerfs.store.covering import make_cover
from layerfs.store.disk import file_size, opened_file
from layerfs.store.locks import ByteLock
from layerfs.store.records import (
    CoverRecord,
    Merger,
    Record,
    decode_record,
    read_head,
    read_tables,
    vouches,
)
from layerfs.store.stock import Stored
from layerfs.store.trees import TreeShelf
from layerfs.store.verify import Spent, file_problem, layer_differences, tree_differences

if TYPE_CHECKING:
    from layerfs.store.storage import ImageStorage

Verdict = Literal["right", "wrong", "repaired", "unchecked"]
Stack = tuple[Sequence[Digest], Merger]
"""The layers of a cover, base first, and whom it is for."""

MOST: Final = 10
"""Differences of one tree that are named."""


VOID: Final = "made before this boot, and maybe not all on the disk: it is made anew when it is needed"


class Checked(msgspec.Struct, frozen=True):
    """What was found of one thing."""

    verdict: Verdict
    problems: tuple[str, ...] = ()
    """What is wrong, or was."""
    note: str = ""
    """Why it was not checked, or not repaired; or what was done with it."""


class How(msgspec.Struct, frozen=True):
    """How much is done about each thing."""

    quick: bool = False
    """Look at sizes, records and attributes of directories, and read no content."""
    repair: bool = False
    force: bool = False
    """Take away what a mount might use, as far as it cannot be seen."""


class Checker:
    """Checks things of one store. *spent* is told what is read."""

    def __init__(self, storage: "ImageStorage", how: How, spent: Spent) -> None:
        self._storage = storage
        self._how = how
        self._spent = spent

    def file(self, what: Stored, size: int | None) -> str | None:
        """Say what is wrong with a blob or a document of *size* bytes; None if nothing is found."""
        path = self._storage.stock.path(what)
        found = file_size(path)
        if found is None:
            return f"not a regular file, or not there ({path})"
        if size is not None and found != size:
            return f"{found} bytes (expected {size}) ({path})"
        if self._how.quick and what.kind == "blob":
            return None
        return file_problem(path, what.digest, f"the {what.kind}", self._spent)

    def layer(self, digest: Digest, *, blob_is_right: bool) -> Checked:
        """Check a layer directory, against its blob unless that is wrong, and repair it from that."""
        storage, shelf = self._storage, self._storage.stock.shelves["layer"]
        problem = shelf_problem(shelf, digest)
        if problem is None and self._how.quick:
            return self._blob_size(shelf, digest)
        if problem and not self._how.repair and is_void(shelf, LayerRecord, digest):
            return Checked("unchecked", (), VOID)
        blob = storage.open_blob(digest)
        if blob is None or not blob_is_right or storage.readonly:
            return unread(storage, problem, "its blob is not here, or wrong")
        with self._present(digest) as presence, storage.second_extraction(digest) as (again, extraction):
            self._spent(blob.size + extraction.file_bytes)
            record, path = shelf.read_record(digest), shelf.directory / digest.name
            found: Iterator[str] = iter([problem or "its record vanished"])
            if problem is None and record is not None:
                found = islice(layer_differences(path, record, again, extraction, self._spent), MOST)
            return self._repaired(
                Stored("layer", digest),
                tuple(found),
                lambda: storage.publish(again, blob, extraction),
                presence,
            )

    def cover(self, digest: Digest, stack: Stack | None, wrong: "set[Digest]") -> Checked:
        """Check a cover against what its layers, none of them *wrong*, make of it.

        *stack* is what an image says that its layers are.
        """
        storage, shelf = self._storage, self._storage.stock.shelves["cover"]
        problem, record = shelf_problem(shelf, digest), shelf.read_record(digest)
        if problem is None and self._how.quick:
            return Checked("right")
        if problem and not self._how.repair and is_void(shelf, CoverRecord, digest):
            return Checked("unchecked", (), VOID)
        if record is not None:
            stack = tuple(map(Digest.parse, record.layers)), record.merger
        whole = storage.stock.shelves["layer"].is_complete
        if stack is None or storage.readonly or any(one in wrong or not whole(one) for one in stack[0]):
            return unread(storage, problem, "a layer of it is not here, or wrong")
        layers, merger = stack
        with self._present(digest) as presence:
            found = [problem] if problem else islice(self._cover_differences(digest, stack), MOST)
            return self._repaired(
                Stored("cover", digest),
                tuple(found),
                lambda: storage.publish_cover(layers, merger),
                presence,
            )

    def take_away(self, what: Stored) -> str:
        """Remove a thing, or say why it stays. Raises StoreReadOnly, StoreError."""
        storage, force = self._storage, self._how.force

        def needed() -> Callable[[Stored], str]:
            usage = storage.usage()
            blind = "" if force else storage.blind(usage)

            def reason(one: Stored) -> str:
                if one.kind not in storage.stock.shelves:
                    return ""
                use = usage.use_of(one.digest)
                return f"in use by {use}" if use else f"maybe in use: {blind}; see --force" if blind else ""

            return reason

        kept = storage.remover.remove([what], needed).kept
        return next((f"{reason}; it stays, repair it when that has ended" for _, reason in kept), "")

    def _repaired(
        self, what: Stored, problems: tuple[str, ...], publish: Callable[[], object], presence: ByteLock
    ) -> Checked:
        """Put what *publish* publishes in the place of what has *problems*, if that is wanted and can be."""
        if not problems:
            return Checked("right")
        if not self._how.repair:
            return Checked("wrong", problems)
        presence.release()  # it keeps away who removes
        reason = self.take_away(what)
        if reason:
            return Checked("wrong", problems, reason)
        publish()
        return Checked("repaired", problems)

    @contextmanager
    def _present(self, digest: Digest) -> Iterator[ByteLock]:
        """Keep a thing from being set aside while it is read. Raises StoreError if somebody does that now."""
        presence = self._storage.locks.presence(digest)
        if not presence.try_acquire():
            raise StoreError("somebody removes it just now")
        try:
            yield presence
        finally:
            presence.release()

    def _cover_differences(self, digest: Digest, stack: Stack) -> Iterator[str]:
        storage, shelf = self._storage, self._storage.stock.shelves["cover"]
        opened = [storage.layer_extracted_path(layer) for layer in stack[0]]
        tables = [read_tables(storage.stock.shelves["layer"].record_path(layer)) for layer in stack[0]]
        size = sum(len(t.whiteouts) + len(t.opaques) + len(t.implied) + len(t.lost) for t in tables)
        with shelf.stage(digest) as again:
            make_cover(again.path, opened, size, form=storage.capabilities, merger=stack[1])
            # Nobody gave these a time: they have that of an extraction, maybe of one before the last.
            untimed = {path for table in tables for path in rows(table.implied)}
            yield from tree_differences(shelf.directory / digest.name, again.path, untimed, self._spent)

    def _blob_size(self, shelf: TreeShelf[Any], digest: Digest) -> Checked:
        """Compare the record with the size of the blob, if that is here."""
        record, blob = shelf.read_record(digest), self._storage.open_blob(digest)
        if record is None or blob is None or record.layer.blob_size == blob.size:
            return Checked("right")
        return Checked("wrong", (f"made of {record.layer.blob_size} bytes (expected a blob of {blob.size})",))


def shelf_problem(shelf: TreeShelf[Any], digest: Digest) -> str | None:
    """Say why a tree is not used, or what is wrong with its record; None if nothing is."""
    path = shelf.record_path(digest)
    record = shelf.read_record(digest)
    if record is None:
        return f"it has no record that can be believed ({path})"
    if not (shelf.directory / digest.name).is_dir():
        return "not a directory"
    try:
        if isinstance(record, LayerRecord):
            read_tables(path)
    except StoreError as exc:
        return str(exc)
    return shelf.problem(digest)


def is_void(shelf: TreeShelf[Any], kind: type[Record], digest: Digest) -> bool:
    """Say whether a loss of power may have hit a tree: its record is good, but of another boot."""
    try:
        with opened_file(shelf.record_path(digest)) as file:
            record = None if file is None else decode_record(read_head(file), kind, digest)
    except StoreError:
        return False
    return record is not None and not vouches(record, boot_id())


def unread(storage: "ImageStorage", problem: str | None, reason: str) -> Checked:
    """Return what is known of a tree that there is nothing to compare with."""
    note = "the store may only be read" if storage.readonly else reason
    return Checked("wrong", (problem,), note) if problem else Checked("unchecked", (), note)
