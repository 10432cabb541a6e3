"""All of a store, or some of its images, checked thing by thing: documents, blobs, layers, then covers.

So each thing is compared with what was found right before. What is wrong with a file is repaired by *fetch*,
which this module is handed: it asks no registry itself, and waits for nothing else.
"""

import os
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

import msgspec

from layerfs.catalog.documents import held_document
from layerfs.catalog.inventory import Held, take_inventory
from layerfs.errors import LayerfsError, StoreError
from layerfs.needs import BlobNeed, DocumentNeed, Need
from layerfs.oci import Digest, ImageReference, Index, Manifest, documents_below, stack_digest
from layerfs.store import ImageStorage, RefEntry
from layerfs.store.checking import Checked, How, Stack
from layerfs.store.layout import StagedName, StoreLayout
from layerfs.store.lazychecking import LazyChecker
from layerfs.store.records import MERGERS
from layerfs.store.stock import Stored, StoredKind
from layerfs.store.verify import Spent, unlimited

Fetch = Callable[[Need], None]
"""Has a file in the store that was taken away. Raises LayerfsError."""

_ORDER: Final[Sequence[StoredKind]] = (
    "manifest", "config", "blob", "toc", "layer", "skeleton", "cover",
)  # fmt: skip


class Finding(msgspec.Struct, frozen=True):
    """What was found of one thing."""

    what: Stored
    checked: Checked
    images: tuple[str, ...]
    """Which images need it."""


class Report(msgspec.Struct):
    """What a verification found."""

    findings: list[Finding] = msgspec.field(default_factory=list)
    records: dict[Path, str] = msgspec.field(default_factory=dict)
    """Refs and leases that say nothing, with the reason."""
    leftovers: dict[Path, Held] = msgspec.field(default_factory=dict)
    """What killed processes left, and downloads that wait to be resumed: no damage."""
    resumed: int = 0
    """Things that an interrupted verification found right."""

    def count(self, verdict: str) -> int:
        """Return how many things got a verdict."""
        return sum(one.checked.verdict == verdict for one in self.findings)

    @property
    def wrong(self) -> int:
        """How many things are wrong, records among them."""
        return self.count("wrong") + len(self.records)


Tell = Callable[[Finding, int, int], None]
"""Is told of each finding, with the bytes that are done of how many."""


class Checkpoint:
    """What was found right, in the store's file ``verified``, until a verification comes to its end.

    A line for each: kind, digest, inode and change time (ns). A thing that changed since is checked again.
    """

    def __init__(self, storage: ImageStorage, *, resume: bool, quick: bool) -> None:
        self._storage = storage
        self._path = StoreLayout(storage.images_dir).verified
        self._writes = not (quick or storage.readonly)
        self._known: frozenset[str] = frozenset()
        if resume:
            with suppress(FileNotFoundError):
                self._known = frozenset(self._path.read_text("ascii", "replace").splitlines())
        elif self._writes:
            self.close()

    def knows(self, what: Stored) -> bool:
        """Say whether a thing was found right, and is the same still."""
        return self._line(what) in self._known

    def note(self, what: Stored) -> None:
        """Remember a thing that is right."""
        line = self._line(what)
        if self._writes and line:
            flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC
            fd = os.open(self._path, flags, 0o600)
            try:
                os.write(fd, f"{line}\n".encode("ascii"))
            finally:
                os.close(fd)

    def close(self) -> None:
        """Forget all: the verification is complete."""
        if self._writes:
            self._path.unlink(missing_ok=True)

    def _line(self, what: Stored) -> str:
        try:
            status = os.lstat(self._storage.stock.path(what))
        except OSError:
            return ""
        return f"{what.kind} {what.digest} {status.st_ino} {status.st_ctime_ns}"


class Verification:
    """One verification of *storage*, by `run`. *fetch* is called for repairs only."""

    def __init__(
        self,
        storage: ImageStorage,
        how: How,
        *,
        spent: Spent = unlimited,
        fetch: Fetch | None = None,
        resume: bool = False,
    ) -> None:
        self._storage = storage
        self._how = how
        self._fetch = fetch
        self._checker = LazyChecker(storage, how, spent)
        self._checkpoint = Checkpoint(storage, resume=resume, quick=how.quick)
        self._found: dict[Stored, Checked] = {}
        self._needs: dict[Stored, tuple[Need, int | None]] = {}
        """How to get a file again, and how large it is."""
        self._stacks: dict[Digest, Stack] = {}
        self._users: dict[Digest, set[str]] = defaultdict(set)
        self._roots: set[Stored] = set()
        """What must be there."""
        self._wrong: set[Digest] = set()
        """Layers that nothing can be compared with."""
        self._skipped: set[Stored] = set()
        self._report = Report()

    def run(self, chosen: Mapping[ImageReference, RefEntry] | None, tell: Tell) -> Report:
        """Check the images *chosen*, or all that is in the store. Raises StoreFull, StoreError."""
        storage, report = self._storage, self._report
        refs = dict(storage.refs.all())
        for name, entry in (refs if chosen is None else chosen).items():
            self._walk(name, entry)
        inventory = take_inventory(storage)
        if chosen is None:
            report.records = dict(_bad_records(storage, refs))
            report.leftovers = inventory.leftovers
        for name, needed in inventory.images.items():
            for digest in needed:
                self._users[digest].add(str(name))
        among = None if chosen is None else {digest for name in chosen for digest in inventory.images[name]}
        things = {
            what: held.size
            for what, held in sorted(inventory.things.items(), key=lambda one: _ORDER.index(one[0].kind))
            if among is None or what.digest in among
        }
        things = dict.fromkeys(self._found, 0) | things
        done, total = 0, sum(things.values())
        for what, size in things.items():
            checked = self._found.get(what) or self._check(what)
            done += size
            if checked is None:
                continue
            finding = Finding(what, checked, tuple(sorted(self._users[what.digest])))
            report.findings.append(finding)
            tell(finding, done, total)
        if report.count("repaired") and not storage.readonly:
            storage.make_durable()
        report.resumed = len(self._skipped)
        self._checkpoint.close()
        return report

    def _walk(self, name: ImageReference, entry: RefEntry) -> None:
        """Check the documents of an image, and learn from them what there is to check."""
        repository = name.repository
        self._roots.add(Stored("manifest", entry.digest))

        def load(each: Digest) -> Manifest | Index | None:
            what, need = Stored("manifest", each), DocumentNeed(repository, each)
            if each == entry.digest or self._is_there(what):
                self._users[each].add(str(name))
                self._needs.setdefault(what, (need, None))
                self._check(what)
            return held_document(self._storage, each)

        for document in documents_below(entry.digest, load):
            if not isinstance(document, Manifest):
                continue
            config = Stored("config", document.config.digest)
            self._needs.setdefault(config, (DocumentNeed(repository, document.digest), document.config.size))
            if self._is_there(config):
                self._check(config)
            for layer in document.layers:
                need = BlobNeed(repository, layer)
                self._needs.setdefault(Stored("blob", layer.digest), (need, layer.size))
            layers = [layer.digest for layer in document.layers]
            for merger in MERGERS:
                self._stacks[stack_digest(layers, merger)] = (layers, merger)

    def _is_there(self, what: Stored) -> bool:
        return os.path.lexists(self._storage.stock.path(what))

    def _check(self, what: Stored) -> Checked | None:
        """Check a thing once; None for one that vanished, or was found right by an earlier verification."""
        if what in self._found:
            return self._found[what]
        if what in self._skipped or self._checkpoint.knows(what):
            self._skipped.add(what)
            return None
        checked: Checked | None
        try:
            checked = self._look(what)
        except LayerfsError as exc:
            checked = Checked("unchecked", (), str(exc))
        if checked is None or not (self._how.repair or what in self._roots or self._is_there(what)):
            return None  # removed meanwhile
        if checked.verdict in ("right", "repaired"):
            self._checkpoint.note(what)
        elif checked.verdict == "wrong":
            self._wrong.add(what.digest)
        self._found[what] = checked
        return checked

    def _look(self, what: Stored) -> Checked | None:
        if not self._is_there(what) and what not in self._roots:
            return None
        if what.kind == "layer":
            return self._checker.layer(what.digest, blob_is_right=what.digest not in self._wrong)
        if what.kind == "skeleton":
            return self._checker.skeleton(what.digest)
        if what.kind == "toc":  # with what was made of it
            return None
        if what.kind == "cover":
            return self._checker.cover(what.digest, self._stacks.get(what.digest), self._wrong)
        return self._file(what)

    def _file(self, what: Stored) -> Checked:
        """Check a blob or a document, and fetch it again if it is wrong and that is wanted."""
        need, size = self._needs.get(what, (None, None))
        problem = self._checker.file(what, size)
        if problem is None:
            return Checked("right")
        if not self._how.repair or self._fetch is None:
            return Checked("wrong", (problem,))
        if self._storage.readonly:
            return Checked("wrong", (problem,), "the store may only be read")
        reason = self._checker.take_away(what)
        if reason:
            return Checked("wrong", (problem,), reason)
        if need is None:
            return Checked("repaired", (problem,), "removed: no image needs it")
        try:
            self._fetch(need)
        except LayerfsError as exc:
            return Checked("wrong", (problem,), f"taken away, and not to be had again: {exc}")
        again = self._checker.file(what, size)
        return Checked("wrong", (problem, again)) if again else Checked("repaired", (problem,))


def _bad_records(
    storage: ImageStorage, refs: Mapping[ImageReference, RefEntry]
) -> Iterator[tuple[Path, str]]:
    """Yield the refs and leases that cannot be read, and what helps."""
    layout = StoreLayout(storage.images_dir)
    known = {layout.ref(name) for name in refs}
    for directory, _, names in os.walk(layout.refs):
        for name in names:
            path = Path(directory) / name
            if path not in known and StagedName.parse(name) is None:
                yield path, "no ref that can be read (expected what an image is pinned to); pull it again"
    try:
        for _ in storage.leases.all():
            pass
    except StoreError as exc:  # at the first that cannot be read
        yield layout.leases, str(exc)
