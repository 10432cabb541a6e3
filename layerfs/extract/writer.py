"""The writing process: takes archives from the ring, one after another, and makes trees of them.

Drives `layer.tar` and `placing`, and settles at the end what needs all members. A fork of the worker, made
before that has threads; it ends when the worker does, whose end of the pipe it reads. Each tree is
written by a child that can write there and nowhere else; it is forked ahead, for that takes milliseconds.
"""

import gc
import logging
import os
from collections.abc import Iterable
from typing import Final

import msgspec

from layerfs import errors
from layerfs.errors import BudgetExceeded, LayerfsError, OutOfMemory
from layerfs.extract import overlayform
from layerfs.extract.directories import Directories, open_max, open_root
from layerfs.extract.job import Listed, SkeletonJob, TreeJob
from layerfs.extract.ownership import Ownership
from layerfs.extract.placing import Placer
from layerfs.extract.remembered import Remembered
from layerfs.extract.ring import Aborted, PartnerDied, Ring, RingSource
from layerfs.extract.stubs import StubPlacer, StubReader
from layerfs.host import confine
from layerfs.host.oserrors import store_error
from layerfs.layer.escaping import escaped, unchanged, unescaped
from layerfs.layer.paths import shown
from layerfs.layer.tables import lost_row, path_row
from layerfs.layer.tar import TarReader
from layerfs.processes.spawning import how_it_ended

_IMPLIED_MODE = 0o755
_WARNINGS_MAX = 50
_PIECE: Final = 64 << 10
"""Bytes of a table that are said at a time."""

_CAPABILITIES: Final = (
    confine.CAP_CHOWN,
    confine.CAP_DAC_OVERRIDE,
    confine.CAP_DAC_READ_SEARCH,
    confine.CAP_FOWNER,
    confine.CAP_FSETID,
    confine.CAP_SYS_ADMIN,  # for attributes named trusted.
    confine.CAP_MKNOD,
    confine.CAP_SETFCAP,
)

_NO_MORE: Final = 3
"""The exit status of a child that got no job."""

log = logging.getLogger(__name__)


class Written(msgspec.Struct, frozen=True, tag="written"):
    """What the writer counted: a part of `layerfs.layer.record.Extraction`."""

    entries: int
    files: int
    file_bytes: int
    rows: tuple[int, int, int, int]
    """How many rows each of the four tables has."""
    tables: tuple[int, int, int, int]
    """Bytes of the four tables."""
    warnings: tuple[str, ...]


class Unwritten(msgspec.Struct, frozen=True, tag="unwritten"):
    """Why there is no tree."""

    error: str
    """Name of a class in `layerfs.errors`."""
    message: str
    warnings: tuple[str, ...] = ()


_JOB: Final = msgspec.json.Decoder(TreeJob)


def serve(ring: Ring) -> None:
    """Write trees until the worker closes its end of the pipe."""
    gc.disable()  # nothing here should make circles, and collecting costs a tenth of the time
    os.umask(0)
    confine_writer()
    source = RingSource(ring)
    keeper = os.getpid()
    while True:
        child = os.fork()  # before there is a job: it need not wait for this
        if child == 0:
            _write_one_and_exit(source, keeper)
        _, status = os.waitpid(child, 0)
        if os.waitstatus_to_exitcode(status) == _NO_MORE:
            return
        if status:
            raise ChildProcessError(
                f"the writer of a tree: {how_it_ended(os.waitstatus_to_exitcode(status))}"
            )


def _write_one_and_exit(source: RingSource, keeper: int) -> None:
    """Be the process that writes one tree: it can write there alone, and its memory goes with it."""
    status = _NO_MORE
    try:
        confine.end_with_parent(keeper)
        body = source.next_job()
        if body is not None:
            source.answer(msgspec.json.encode(write_tree(_JOB.decode(body), source)))
            source.leave()
            status = 0
    except (PartnerDied, BrokenPipeError):
        pass  # nobody waits for this tree
    except BaseException:
        log.exception("the writer failed in a way nobody thought of")
        status = 1
    finally:
        os._exit(status)


def confine_writer() -> None:
    """Give up what a process does not need that makes a tree with owners, devices and attributes."""
    confine.keep_capabilities(_CAPABILITIES)
    confine.refuse_calls((*confine.SYSTEM, *confine.NETWORK, *confine.PROGRAMS))


def write_tree(job: TreeJob, source: RingSource) -> Written | Unwritten:
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
    except MemoryError:
        what = "the writer lacks memory (the image is not at fault)"
        return Unwritten(OutOfMemory.__name__, what, tree.warnings() if tree else ())
    except OSError as exc:
        name = exc.filename or "write"
        error = store_error(exc, shown(name) if isinstance(name, bytes) else str(name))
        return Unwritten(errors.name_of(error), str(error), tree.warnings() if tree else ())
    finally:
        if tree:
            tree.close()


class TreeWriter:
    """One tree in the making: the process can write nowhere else from now on."""

    def __init__(self, job: TreeJob, source: RingSource) -> None:
        self._job = job
        self._source = source
        self._entries = 0
        remembered = Remembered(job.budgets.max_record_bytes)
        self._ownership = Ownership(job.owner, remembered)
        root = open_root(job.target)
        confine.write_only_below(root.fd)
        self._directories = Directories(root, _IMPLIED_MODE, remembered, open_max(job.budgets.max_depth))
        source.budgets = job.budgets
        placing = (source, self._directories, self._ownership, job.budgets, remembered)
        self._reader: TarReader | StubReader
        self._placer: Placer
        self._spelled = unchanged
        if isinstance(job, SkeletonJob):
            self._reader, self._placer = StubReader(source), StubPlacer(job.owner, *placing)
        else:
            self._spelled = unchanged if job.marker_names else escaped
            self._reader, self._placer = TarReader(source, job.budgets), Placer(*placing, self._spelled)

    def fill(self) -> None:
        """Put all members in their place. Raises LayerfsError, OSError, Aborted."""
        root = self._directories.root
        root.set_mode(_IMPLIED_MODE)
        self._ownership.begin(root.fd)
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
        marks = overlayform.settle(directories, self._placer.markers, self._spelled)
        if self._job.whiteout_devices:
            overlayform.write_overlay_form(directories, marks, self._job.owner)
        directories.close()
        implied, lost = directories.implied, self._ownership.lost
        if self._spelled is escaped:
            implied = set(map(unescaped, implied))
            lost = {unescaped(path): text for path, text in lost.items()}
        # Sorted here, where nobody else waits.
        tables = (
            self._list(map(path_row, marks.whiteouts)),
            self._list(map(path_row, marks.opaques)),
            self._list(map(path_row, sorted(implied))),
            self._list(lost_row(path, lost[path]) for path in sorted(lost)),
        )
        return Written(
            entries=self._entries,
            files=self._placer.files,
            file_bytes=self._placer.file_bytes,
            rows=(len(marks.whiteouts), len(marks.opaques), len(implied), len(lost)),
            tables=tables,
            warnings=self.warnings(),
        )

    def _list(self, rows: Iterable[bytes]) -> int:
        """Say a table in pieces small enough to forget; return its bytes."""
        said, piece = 0, bytearray()
        for row in rows:
            piece += row
            if len(piece) >= _PIECE:
                said += self._say(piece)
                piece = bytearray()
        return said + self._say(piece)

    def _say(self, piece: bytearray) -> int:
        if piece:
            self._source.part(msgspec.json.encode(Listed(bytes(piece))))
        return len(piece)

    def warnings(self) -> tuple[str, ...]:
        """Return what was odd, not too much of it."""
        found = self._reader.warnings + self._placer.warnings
        if len(found) > _WARNINGS_MAX:
            found[_WARNINGS_MAX:] = ["and more"]
        return tuple(found)

    def close(self) -> None:
        """Close what is still open; settles nothing."""
        self._directories.drop()
