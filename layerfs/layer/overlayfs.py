r"""How layers speak to kernel overlayfs: its names, its overlay form, the text of its options. Pure.

overlayfs (the kernel's Documentation/filesystems/overlayfs.rst) knows two statements about lower directories:

- a **whiteout**, a character device with the number 0:0, hides one name of the directories below;
- an **opaque** directory, one with the extended attribute ``overlay.opaque`` of value ``y``, hides all of
  them.

The attribute is ``trusted.overlay.opaque``, which only root of the machine can set. A mount with the option
``userxattr``, the only kind that a user namespace can make, looks at ``user.overlay.opaque`` instead. Each
kind of mount looks at one of the two names only.

An archive says the same with markers: ``.wh.foo``, ``.wh..wh..opq``. The **overlay form** of a layer is
what its markers stand for there:

- for ``.wh.foo`` a whiteout ``foo``; but if the layer itself has a directory ``foo``, that one is opaque,
  and if it has another file ``foo``, which hides what is below anyway, nothing;
- for ``.wh..wh..opq`` an opaque directory. It needs no whiteouts in it or below it, and gets none: overlayfs
  does not hide a whiteout in a directory that only one layer has, it lists a name that cannot be looked up.

A **stub** is a file of such a directory without content. The attribute ``overlay.metacopy`` says that it is
one, ``overlay.redirect`` which file of the data-only layers has the content (ibid., "Data-only lower
layers").

The text of an option list escapes ``\`` and ``,``, in lower directories ``:`` too, each by ``\``.
"""

import re
from collections.abc import Callable, Container, Iterable, Iterator, Mapping
from itertools import groupby
from typing import Final

import msgspec

from layerfs.errors import UsageError
from layerfs.layer.kinds import Kind
from layerfs.layer.names import to_text
from layerfs.layer.paths import split
from layerfs.layer.record import OwnerKind

XATTR_PREFIXES: Final = (b"trusted.overlay.", b"user.overlay.")
"""Begin the names of all attributes that are between overlayfs and its directories."""

OPAQUE_VALUE: Final = b"y"
OPAQUE_XATTRS: Final[Mapping[bytes, bytes]] = dict.fromkeys(
    [prefix + b"opaque" for prefix in XATTR_PREFIXES], OPAQUE_VALUE
)

_LOWER_SPECIAL: Final = rb"([\\:,])"
_SPECIAL: Final = rb"([\\,])"
_REDIRECT: Final = rb"/([A-Za-z0-9_-]{2})/([A-Za-z0-9_-]{20})"


def opaque_xattr(owner: OwnerKind) -> str:
    """Name the attribute that makes a directory opaque for the overlays that *owner* can mount."""
    return "trusted.overlay.opaque" if owner == "root" else "user.overlay.opaque"


def object_path(id_: str) -> str:
    """Return where the object *id_* is among the objects: the first two characters name a directory."""
    return f"{id_[:2]}/{id_[2:]}"


def object_redirect(id_: str) -> bytes:
    """Return the redirect of a stub to the object *id_*: 24 bytes.

    With one more the attributes of a stub do not fit into an inode of ext4, and each stub takes a block.
    """
    return b"/" + object_path(id_).encode("ascii")


def object_of(redirect: bytes) -> str | None:
    """Return the object that a *redirect* leads to; None for what `object_redirect` cannot have written."""
    found = re.fullmatch(_REDIRECT, redirect)
    return None if found is None else (found[1] + found[2]).decode("ascii")


def stub_xattrs(owner: OwnerKind) -> tuple[str, str]:
    """Name the attributes of a stub, metacopy and redirect, for the overlays that *owner* can mount."""
    namespace = "trusted" if owner == "root" else "user"
    return f"{namespace}.overlay.metacopy", f"{namespace}.overlay.redirect"


class OverlayForm(msgspec.Struct, frozen=True):
    """What the markers of one layer stand for, asked path by path: a layer may have very many.

    The same as `opaques_and_whiteouts` says of all. Paths are relative, the root is empty.
    """

    hidden: Container[bytes]
    """Paths that whiteout markers hide."""
    opaque: Container[bytes]
    """Directories that hold an opaque marker."""
    kind: Callable[[bytes], Kind | None]
    """What the layer itself has at a path, as for `opaques_and_whiteouts`."""

    def is_opaque(self, path: bytes) -> bool:
        """Say whether the directory *path* is opaque."""
        return path in self.opaque or (path in self.hidden and self.kind(path) is Kind.DIRECTORY)

    def has_whiteout(self, path: bytes) -> bool:
        """Say whether a whiteout stands at *path*."""
        if path not in self.hidden or self.kind(path) is not None:
            return False
        return not any(map(self.is_opaque, with_ancestors(split(path)[0])))


def opaques_and_whiteouts(
    hidden: Iterable[bytes], opaque: Iterable[bytes], kind: Callable[[bytes], Kind | None]
) -> tuple[frozenset[bytes], Iterator[bytes]]:
    """Return the opaque directories of a layer's overlay form, and the paths of its whiteouts, sorted.

    *hidden* are the paths that its whiteout markers hide, *opaque* the directories that hold an opaque
    marker, and *kind* says what the layer itself has at a hidden path: None for nothing, or for a whiteout
    that is the overlay form of the marker already (`layerfs.layer.kinds.kind_of`).

    The writer of a layer takes the paths one by one: a layer may have as many as `max_record_bytes` lets it,
    and its memory is bounded.
    """
    opaques, missing = set(opaque), []
    for path in hidden:
        found = kind(path)
        if found is None:
            missing.append(path)
        elif found is Kind.DIRECTORY:
            opaques.add(path)
    missing.sort()
    judged = frozenset(opaques)
    return judged, (path for path, _ in groupby(missing) if judged.isdisjoint(with_ancestors(split(path)[0])))


def with_ancestors(path: bytes) -> Iterator[bytes]:
    """Yield *path* and all directories above it, the root last."""
    yield path
    while path:
        path = split(path)[0]
        yield path


def lowerdir_option(paths: Iterable[bytes], data: Iterable[bytes] = ()) -> bytes:
    r"""Return ``lowerdir=a:b``, escaped as mount(2) and mount(8) want it; spaces stay as they are.

    With data-only directories it is ``lowerdir=a:b::c::d``.
    """
    lowers = b":".join(re.sub(_LOWER_SPECIAL, rb"\\\1", path) for path in paths)
    return b"::".join([b"lowerdir=" + lowers, *(re.sub(_LOWER_SPECIAL, rb"\\\1", path) for path in data)])


def fuse_lowerdir_option(paths: Iterable[bytes]) -> bytes:
    r"""Return ``lowerdir=a:b`` for fuse-overlayfs, escaped as libfuse wants it. Raises UsageError.

    fuse-overlayfs knows no escape for a colon.
    """
    listed = list(paths)
    for path in listed:
        if b":" in path:
            raise UsageError(
                f"{to_text(path)}: fuse-overlayfs takes no path with ':' (expected another --store)"
            )
    return b"lowerdir=" + b":".join(re.sub(_SPECIAL, rb"\\\1", path) for path in listed)


def directory_option(key: bytes, path: bytes) -> bytes:
    """Return ``upperdir=…`` or ``workdir=…``, escaped."""
    return key + b"=" + re.sub(_SPECIAL, rb"\\\1", path)


def split_lowerdir(value: bytes) -> list[bytes]:
    r"""Split the value of ``lowerdir=`` at its colons, and undo ``\:``, ``\,`` and ``\\``.

    Kernels 6.5 to 6.7 show paths without these escapes; where the two readings differ, both are returned.
    """
    escaped = [re.sub(rb"\\(.)", rb"\1", part, flags=re.DOTALL) for part in _split_escaped(value)]
    plain = value.split(b":")
    return [part for part in dict.fromkeys([*escaped, *plain]) if part]


def _split_escaped(value: bytes) -> list[bytes]:
    return re.findall(rb"(?:[^:\\]|\\.|\\$)+", value, flags=re.DOTALL)
