"""``.layerfs/bell/``: where the kernel asks for the bytes of lazy layers that a container opens.

An overlay on skeletons names two directories of the mount among its data-only ones, around the objects of the
store: ``ring``, objects, ``direct``. The first file that it opens of an object is looked up in them in turn:
the lookup in ``ring`` makes the object exist and finds nothing there; then the objects have it. ``direct`` is
reached only if that failed, and says why. So no request of a running program that reads ever gets here.

Only objects that a TOC in this store names are answered. Lists nothing.
"""

import os
import re
from collections.abc import Sequence
from errno import ENOENT
from typing import Final

import msgspec

from layerfs.layer.overlayfs import object_path
from layerfs.needs import FileNeed, Need
from layerfs.view.nodes import Attributes, FileContent, Node
from layerfs.view.virtual import TEXT_MODE, FixedDirectory, MountContext, VirtualDirectory, VirtualNode

KEY: Final = b".layerfs/bell"
_ID: Final = re.compile(rb"[A-Za-z0-9_-]{22}")
_PREFIX: Final = re.compile(rb"[A-Za-z0-9_-]{2}")


def bell(context: MountContext) -> FixedDirectory:
    """Return the directory."""
    ring = context.node(KEY + b"/ring", lambda ino: Bell(ino, context, answers=False))
    direct = context.node(KEY + b"/direct", lambda ino: Bell(ino, context, answers=True))
    entries: dict[bytes, Node] = {b"ring": ring, b"direct": direct}
    return context.node(KEY, lambda ino: FixedDirectory(ino, context, entries))


class Bell(VirtualDirectory):
    """``ring/``, or ``direct/`` if it *answers*."""

    __slots__ = ("_answers",)

    def __init__(self, ino: int, context: MountContext, *, answers: bool) -> None:
        super().__init__(ino, context)
        self._answers = answers

    def lookup(self, name: bytes) -> Node | None:
        """Return the directory of the objects whose ids begin with *name*."""
        if not _PREFIX.fullmatch(name):
            return None
        context, answers = self.context, self._answers
        key = b"%s/%d/%s" % (KEY, answers, name)
        return context.node(key, lambda ino: Clapper(ino, context, name, answers=answers))

    def entries(self) -> Sequence[tuple[bytes, Node]]:
        """List nothing."""
        return []


class Clapper(VirtualDirectory):
    """The objects whose ids begin with *prefix*."""

    __slots__ = ("_answers", "_prefix")

    def __init__(self, ino: int, context: MountContext, prefix: bytes, *, answers: bool) -> None:
        super().__init__(ino, context)
        self._prefix = prefix
        self._answers = answers

    @property
    def negative_timeout(self) -> float:
        """Nothing: the next one who opens the file rings again."""
        return 0.0

    def lookup(self, name: bytes) -> Node | Need | None:
        """Return what is needed for an object that is not here; a file of ``direct`` once it is.

        Raises StoreError, ImageError.
        """
        id_ = self._prefix + name
        if not _ID.fullmatch(id_):
            return None
        text = id_.decode("ascii")
        if self.context.storage.lazy.objects.find(text) is None:
            need = self.context.known.views.object_need(text)
            if isinstance(need, FileNeed) and not self._answers:  # what fails is asked of both
                return msgspec.structs.replace(need, is_rung=True)
            return need
        return self._file(text) if self._answers else None

    def entries(self) -> Sequence[tuple[bytes, Node]]:
        """List nothing."""
        return []

    def _file(self, id_: str) -> "ObjectFile":
        context = self.context
        return context.node(
            b"%s/file/%s" % (KEY, id_.encode("ascii")), lambda ino: ObjectFile(ino, context, id_)
        )


class ObjectFile(VirtualNode):
    """An object that came between the two looks of the kernel."""

    __slots__ = ("_id",)

    def __init__(self, ino: int, context: MountContext, id_: str) -> None:
        super().__init__(ino, context)
        self._id = id_

    def attributes(self) -> Attributes:
        """Return a file of the object's size."""
        return self.context.attributes(TEXT_MODE, self._size())

    def open(self) -> FileContent:
        """Return the object. Raises FileNotFoundError."""
        objects = self.context.storage.lazy.objects
        directory = self.context.trees.directory(os.fsencode(objects.directory))
        return FileContent(directory.fd, object_path(self._id).encode("ascii"), self._size())

    def _size(self) -> int:
        found = self.context.storage.lazy.objects.find(self._id)
        if found is None:
            raise FileNotFoundError(ENOENT, f"object {self._id}: removed again")
        return found.size
