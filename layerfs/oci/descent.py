"""From a document to what it leads to: an index to the manifest of a platform, or to all documents below it.

Decides without I/O: the caller's *load* says which documents it has, and a document that it lacks is named in
the answer, to be fetched before the next question.
"""

from collections.abc import Callable, Iterator
from typing import Final

from layerfs.errors import InvalidDocument
from layerfs.oci.descriptor import Descriptor
from layerfs.oci.digest import Digest
from layerfs.oci.manifest import Index, Manifest
from layerfs.oci.platform import Platform

MAX_INDEX_DEPTH: Final = 4
"""Indexes inside each other, the outermost included; image-spec sets no limit, hostile images need one."""

Load = Callable[[Digest], Manifest | Index | None]
"""Return a document, None if it is not here."""


def descend(document: Manifest | Index, platform: Platform, load: Load) -> Manifest | Descriptor:
    """Return the manifest for *platform* below *document*, or the descriptor of the first that *load* lacks.

    Raises PlatformMissing, and InvalidDocument for more than `MAX_INDEX_DEPTH` indexes inside each other.
    """
    outermost = document.digest
    for _ in range(MAX_INDEX_DEPTH):
        if isinstance(document, Manifest):
            return document
        chosen = document.choose(platform)
        below = load(chosen.digest)
        if below is None:
            return chosen
        document = below
    if isinstance(document, Manifest):
        return document
    raise InvalidDocument(f"index {outermost}: more than {MAX_INDEX_DEPTH} indexes inside each other")


def documents_below(digest: Digest, load: Load) -> Iterator[Manifest | Index]:
    """Yield the document *digest* and all that its indexes lead to, each once, as far as *load* has them."""
    seen = {digest}
    level = [digest]
    for depth in range(MAX_INDEX_DEPTH + 1):
        below: list[Digest] = []
        for each in level:
            document = load(each)
            if document is None:
                continue
            yield document
            if isinstance(document, Index) and depth < MAX_INDEX_DEPTH:
                new = [entry.digest for entry in document.manifests if entry.digest not in seen]
                seen.update(new)
                below += dict.fromkeys(new)
        level = below
