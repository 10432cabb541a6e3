"""A skeleton, looked at again and made anew from its TOC; and the files of it that are here."""

import os
from itertools import islice
from typing import TYPE_CHECKING

from layerfs.errors import ImageError
from layerfs.layer.record import LayerRecord
from layerfs.oci import Digest
from layerfs.store.checking import MOST, VOID, Checked, Checker, How, is_void, shelf_problem, unread
from layerfs.store.likeness import holds
from layerfs.store.stock import Stored
from layerfs.store.verify import Spent, skeleton_differences

if TYPE_CHECKING:
    from layerfs.store.storage import ImageStorage


class LazyChecker(Checker):
    """Checks lazy layers, too."""

    def __init__(self, storage: "ImageStorage", how: How, spent: Spent) -> None:
        super().__init__(storage, how, spent)
        self._objects: set[str] = set()
        """Those that were looked at: many skeletons may name one."""

    def skeleton(self, digest: Digest) -> Checked:
        """Check a skeleton against its TOC, and the files of it that are here against their digests."""
        storage, shelf = self._storage, self._storage.stock.shelves["skeleton"]
        problem = shelf_problem(shelf, digest)
        if problem is None and self._how.quick:
            return Checked("right")
        if problem and not self._how.repair and is_void(shelf, LayerRecord, digest):
            return Checked("unchecked", (), VOID)
        toc = storage.lazy.tocs.find(digest)
        place = None if toc is None else toc.place()
        if toc is None or place is None or storage.readonly:
            return unread(storage, problem, "its TOC is not here")
        try:
            with self._present(digest) as presence, storage.lazy.second_skeleton(toc, place) as made:
                again, extraction = made
                record, path = shelf.read_record(digest), shelf.directory / digest.name
                found: list[str] = [problem or "its record vanished"]
                if problem is None and record is not None:
                    found = [*islice(skeleton_differences(path, record, again, extraction), MOST)]
                return self._with_objects(
                    digest,
                    self._repaired(
                        Stored("skeleton", digest),
                        tuple(found),
                        lambda: storage.lazy.publish_skeleton(again, extraction),
                        presence,
                    ),
                )
        except ImageError as exc:
            return self._without_toc(digest, f"its TOC is not what it was: {exc}")

    def _without_toc(self, digest: Digest, problem: str) -> Checked:
        """Take a TOC away whose bytes have changed, with what was made of it."""
        if not self._how.repair:
            return Checked("wrong", (problem,))
        reason = self.take_away(Stored("skeleton", digest)) or self.take_away(Stored("toc", digest))
        if reason:
            return Checked("wrong", (problem,), reason)
        return Checked("repaired", (problem,), "removed: it is fetched again when it is needed")

    def _with_objects(self, digest: Digest, checked: Checked) -> Checked:
        """Add to what was found of a skeleton what is wrong with its files; each is looked at once."""
        if checked.verdict == "wrong":
            return checked
        objects, problems = self._storage.lazy.objects, []
        for id_, content in self._storage.lazy.contents(digest):
            if id_ in self._objects or (one := objects.find(id_)) is None:
                continue
            self._objects.add(id_)
            self._spent(one.size)
            if one.size != content.size or not holds(os.fsencode(one.path), content):
                problems.append(f"object {id_}: other bytes than the TOC says ({one.path})")
                if self._how.repair:
                    objects.discard(id_)
        if not problems:
            return checked
        shown = (*checked.problems, *problems[:MOST])
        if not self._how.repair:
            return Checked("wrong", shown)
        return Checked("repaired", shown, "removed: fetched again when they are opened")
