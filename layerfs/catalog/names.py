"""Which image of a store a text means: a reference, a digest, or the first 12 digits or more of one."""

import re
from collections.abc import Callable, Iterable
from fnmatch import fnmatchcase
from functools import partial
from typing import Final

from layerfs.catalog.documents import held_document
from layerfs.errors import InvalidReference, NotInStore
from layerfs.oci import Digest, ImageReference, Manifest, documents_below
from layerfs.oci.reference import familiar
from layerfs.store import ImageStorage, RefEntry

_DIGITS: Final = r"(?:(?P<algorithm>sha256|sha512):)?(?P<hex>[0-9a-f]{12,128})"
_OFFERED: Final = 3


Parse = Callable[[str], ImageReference]
"""Reads a reference as its user means it. Raises InvalidReference."""


def named_images(
    storage: ImageStorage, text: str, parse: Parse = ImageReference.parse
) -> list[tuple[ImageReference, RefEntry]]:
    """Return the refs that *text* means: one for a reference, all of an image for its digest or image id.

    Raises InvalidReference, NotInStore with the names that are nearly the same.
    """
    refs = list(storage.refs.all())
    digits = re.fullmatch(_DIGITS, text)
    try:
        wanted = parse(text)
    except InvalidReference:
        if digits is None:
            raise
    else:
        meant = (wanted.repository, wanted.target)
        found = [(name, entry) for name, entry in refs if (name.repository, name.target) == meant]
        if found:
            return found
    if digits is not None:
        prefix = _prefix(digits)
        found = [(name, entry) for name, entry in refs if _document_of(storage, entry, prefix) is not None]
        if found:
            return _of_one_image(text, found)
    raise NotInStore(f"{text}: not in the store{_similar(text, (name for name, _ in refs))}")


def named_reference(storage: ImageStorage, text: str, parse: Parse = ImageReference.parse) -> ImageReference:
    """Return the reference that *text* is, or of digits the image of the store that they mean, by its digest.

    Digits that no image here has are the name of a repository. Raises InvalidReference.
    """
    digits = re.fullmatch(_DIGITS, text)
    if digits is None:
        return parse(text)
    try:
        found = named_images(storage, text, parse)
    except NotInStore:
        return parse(text)
    prefix = _prefix(digits)
    for name, entry in found:
        document = _document_of(storage, entry, prefix)
        if document is not None:
            return name.repository.with_digest(document)
    return found[0][0]


def matching_refs(storage: ImageStorage, pattern: str) -> list[tuple[ImageReference, RefEntry]]:
    """Return the refs that *pattern* is for: a name, or its end behind a ``/``, with or without the tag.

    As for a shell ``*``, ``?`` and ``[]`` stand for others, also for ``/``; digits are those of a digest.
    """
    pattern, digits = pattern.removeprefix("docker://"), re.fullmatch(_DIGITS, pattern)
    prefix = _prefix(digits) if digits else None
    return [
        (name, entry)
        for name, entry in storage.refs.all()
        if _matches(name, pattern)
        or (prefix is not None and _document_of(storage, entry, prefix) is not None)
    ]


def _matches(name: ImageReference, pattern: str) -> bool:
    spelled = (str(name), str(name.repository))
    return any(fnmatchcase(one, pattern) or fnmatchcase(one, f"*/{pattern}") for one in spelled)


def is_id(text: str) -> bool:
    """Say whether *text* may be the first digits of a digest."""
    return re.fullmatch(_DIGITS, text) is not None


def _prefix(digits: re.Match[str]) -> str:
    return f"{digits['algorithm'] or 'sha256'}:{digits['hex']}"


def _of_one_image(
    text: str, found: list[tuple[ImageReference, RefEntry]]
) -> list[tuple[ImageReference, RefEntry]]:
    digests = sorted({str(entry.digest) for _, entry in found})
    if len(digests) > 1:
        raise InvalidReference(
            f"{text!r} is the beginning of several digests ({', '.join(digests)}); write more of it"
        )
    return found


def _document_of(storage: ImageStorage, entry: RefEntry, prefix: str) -> Digest | None:
    """Return the document of an image whose digest, or that of its config, begins so."""
    if str(entry.digest).startswith(prefix):
        return entry.digest
    for document in documents_below(entry.digest, partial(held_document, storage)):
        ids = [document.digest, *((document.config.digest,) if isinstance(document, Manifest) else ())]
        if any(str(digest).startswith(prefix) for digest in ids):
            return document.digest
    return None


def _similar(text: str, names: Iterable[ImageReference]) -> str:
    from difflib import get_close_matches

    spelled = {short: str(name) for name in names for short in (str(name), familiar(str(name)))}
    near = get_close_matches(text, spelled, _OFFERED, 0.7)
    found = dict.fromkeys(spelled[one] for one in near)
    return f" (did you mean {' or '.join(found)}?)" if found else " (layerfs images lists what is)"
