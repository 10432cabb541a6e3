"""The writing process: takes archives from the ring, one after another, and makes trees of them.

Drives `layer.tar` and `placing`, and settles at the end what needs all members. A fork of the worker, made
before that has threads; it ends when the worker does, whose end of the pipe it reads.
"""

import gc
import os
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Final, TypeVar

import msgspec

from layerfs import errors
from layerfs.errors import BudgetExceeded, LayerfsError
from layerfs.extract import overlayform
from layerfs.extract.directories import Directories, open_max, open_root
from layerfs.extract.job import ExtractJob, Listed
from layerfs.extract.overlayform import FoundMarkers
from layerfs.extract.ownership import Ownership
from layerfs.extract.placing import Placer
from layerfs.extract.remembered import Remembered
from layerfs.extract.ring import Aborted, PartnerDied, Ring, RingSource
from layerfs.host.oserrors import store_error
from layerfs.layer.lost import Lost
from layerfs.layer.names import to_text
from layerfs.layer.tar import TarReader

_IMPLIED_MODE = 0o755
_WARNINGS_MAX = 50
_PIECE: Final = 1000

_T = TypeVar("_T")


class Written(msgspec.Struct, frozen=True, tag="written"):
    """What the writer counted: a part of `layerfs.layer.record.Extraction`."""

    entries: int
    files: int
    file_bytes: int
    markers: int
    warnings: tuple[str, ...]


class Unwritten(msgspec.Struct, frozen=True, tag="unwritten"):
    """Why there is no tree."""

    error: str
    """Name of a class in `layerfs.errors`."""
    message: str
    warnings: tuple[str, ...] = ()


_JOB = msgspec.json.Decoder(ExtractJob)


def serve(ring: Ring) -> None:
    """Write trees until the worker closes its end of the pipe."""
    gc.disable()  # nothing here should make circles, and collecting costs a tenth of the time
    os.umask(0)
    source = RingSource(ring)
    try:
        while (body := source.next_job()) is not None:
            result = write_tree(_JOB.decode(body), source)
            source.answer(msgspec.json.encode(result))
            del body, result
            source.leave()
            gc.collect()
    except (PartnerDied, BrokenPipeError):
        pass  # so nobody waits for this tree


def write_tree(job: ExtractJob, source: RingSource) -> Written | Unwritten:
    """Write one tree. Raises PartnerDied."""
    tree = None
    try:
        tree = TreeWriter(job, source)
        tree.fill()
        return tree.finish()
    except Aborted:
        return Unwritten("LayerfsError", "aborted")
    except LayerfsError as exc:
        return Unwritten(errors.name_of(exc), str(exc), tree.warnings() if tree else ())
    except OSError as exc:
        name = exc.filename or "write"
        error = store_error(exc, to_text(name) if isinstance(name, bytes) else str(name))
        return Unwritten(errors.name_of(error), str(error), tree.warnings() if tree else ())
    finally:
        if tree:
            tree.close()


class TreeWriter:
    """One tree in the making."""

    def __init__(self, job: ExtractJob, source: RingSource) -> None:
        self._job = job
        self._source = source
        self._entries = 0
        self._ownership = Ownership(job.owner)
        remembered = Remembered(job.budgets.max_record_bytes)
        self._directories = Directories(
            open_root(job.target), _IMPLIED_MODE, remembered, open_max(job.budgets.max_depth)
        )
        self._reader = TarReader(source, job.budgets)
        self._placer = Placer(source, self._directories, self._ownership, job.budgets, remembered)

    def fill(self) -> None:
        """Put all members in their place. Raises LayerfsError, OSError, Aborted."""
        root = self._directories.root
        root.set_mode(_IMPLIED_MODE)
        if self._job.owner == "root":
            os.chown(root.fd, 0, 0)
        most = self._job.budgets.max_entries
        place = self._placer.place
        read = self._reader.next
        entries = 0
        while (member := read()) is not None:
            place(member)
            entries += 1
            if entries > most:
                raise BudgetExceeded(f"more than {most} entries (max_entries)")
        self._entries = entries
        self._source.drain()  # what stands behind the end of the archive is hashed, nothing else

    def finish(self) -> Written:
        """Settle what needs all members, close the directories, and say what was written."""
        directories = self._directories
        self._placer.links.make(directories, self._ownership.share)
        marks = overlayform.settle(directories, self._placer.markers)
        if self._job.whiteout_devices:
            overlayform.write_overlay_form(directories, marks, self._job.owner)
        directories.close()
        for listed in _pieces(marks, directories.implied, self._ownership.lost):
            self._source.part(msgspec.json.encode(listed))
        return Written(
            entries=self._entries,
            files=self._placer.files,
            file_bytes=self._placer.file_bytes,
            markers=len(marks.whiteouts) + len(marks.opaques),
            warnings=self.warnings(),
        )

    def warnings(self) -> tuple[str, ...]:
        """Return what was odd, not too much of it."""
        found = self._reader.warnings + self._placer.warnings
        if len(found) > _WARNINGS_MAX:
            found[_WARNINGS_MAX:] = ["and more"]
        return tuple(found)

    def close(self) -> None:
        """Close what is still open; settles nothing."""
        self._directories.drop()


def _pieces(marks: FoundMarkers, implied: Iterable[bytes], lost: dict[str, Lost]) -> Iterator[Listed]:
    """Say what the record lists in pieces small enough to forget; sorted here, where nobody else waits."""
    for whiteouts in _batches(marks.whiteouts):
        yield Listed(whiteouts=_texts(whiteouts))
    for opaques in _batches(marks.opaques):
        yield Listed(opaques=_texts(opaques))
    for paths in _batches(sorted(implied)):
        yield Listed(implied=_texts(paths))
    for names in _batches(sorted(lost)):
        yield Listed(lost={name: str(lost[name]) for name in names})


def _batches(items: Iterable[_T]) -> Iterator[list[_T]]:
    iterator = iter(items)
    while batch := list(islice(iterator, _PIECE)):
        yield batch


def _texts(paths: Iterable[bytes]) -> tuple[str, ...]:
    return tuple(map(to_text, paths))
