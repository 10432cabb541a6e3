"""Which image of a store a text means: a reference, a digest, or the first 12 digits or more of one."""

import re
from collections.abc import Iterable
from difflib import get_close_matches
from typing import Final

from layerfs.errors import InvalidReference, LayerfsError, NotInStore
from layerfs.oci import Digest, ImageReference, Index, Manifest, documents_below
from layerfs.store import ImageStorage, RefEntry

_DIGITS: Final = re.compile(r"(?:(?P<algorithm>sha256|sha512):)?(?P<hex>[0-9a-f]{12,128})")
_OFFERED: Final = 3


def named_images(storage: ImageStorage, text: str) -> list[tuple[ImageReference, RefEntry]]:
    """Return the refs that *text* means: one for a reference, all of an image for its digest or image id.

    Raises InvalidReference, NotInStore with the names that are nearly the same.
    """
    refs = list(storage.refs.all())
    digits = _DIGITS.fullmatch(text)
    try:
        wanted = ImageReference.parse(text)
    except InvalidReference:
        if digits is None:
            raise
    else:
        meant = (wanted.repository, wanted.target)
        found = [(name, entry) for name, entry in refs if (name.repository, name.target) == meant]
        if found:
            return found
    if digits is not None:
        prefix = f"{digits['algorithm'] or 'sha256'}:{digits['hex']}"
        found = [(name, entry) for name, entry in refs if _has_id(storage, entry, prefix)]
        if found:
            return _of_one_image(text, found)
    raise NotInStore(f"{text}: not in the store{_similar(text, (name for name, _ in refs))}")


def _of_one_image(
    text: str, found: list[tuple[ImageReference, RefEntry]]
) -> list[tuple[ImageReference, RefEntry]]:
    digests = sorted({str(entry.digest) for _, entry in found})
    if len(digests) > 1:
        raise InvalidReference(
            f"{text!r} is the beginning of several digests ({', '.join(digests)}); write more of it"
        )
    return found


def _has_id(storage: ImageStorage, entry: RefEntry, prefix: str) -> bool:
    """Say whether an image has a digest that begins so: its own, its manifest's or its config's."""
    if str(entry.digest).startswith(prefix):
        return True

    def load(digest: Digest) -> Manifest | Index | None:
        try:
            return storage.load_manifest(digest)
        except LayerfsError:
            return None

    return any(
        str(digest).startswith(prefix)
        for document in documents_below(entry.digest, load)
        for digest in (
            document.digest,
            *((document.config.digest,) if isinstance(document, Manifest) else ()),
        )
    )


def _similar(text: str, names: Iterable[ImageReference]) -> str:
    spelled = {short: str(name) for name in names for short in (str(name), _short(str(name)))}
    near = get_close_matches(text, spelled, _OFFERED, 0.7)
    found = dict.fromkeys(spelled[one] for one in near)
    return f" (did you mean {' or '.join(found)}?)" if found else " (layerfs images lists what is)"


def _short(name: str) -> str:
    return name.removeprefix("docker.io/").removeprefix("library/")
