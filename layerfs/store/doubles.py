"""Objects whose bytes a whole layer has, too: they go as soon as it is whole, unless a mount may need them.

A file of the extracted layer has an owner, a mode and times of its own, and attributes that an object must
not have, so the two cannot be one inode; and few filesystems share the bytes of two. Where containers use the
skeleton the kernel reads its objects, so these stay. Blocking.
"""

from contextlib import suppress

from layerfs.errors import NotInStore
from layerfs.oci import Digest
from layerfs.store.storage import ImageStorage
from layerfs.store.usage import Usage


def remove_doubles(storage: ImageStorage, toc: Digest) -> int:
    """Remove the objects of a skeleton whose layer is whole, and equal; return how many.

    Not those that another skeleton may need. Raises NotInStore, StoreError.
    """
    usage = storage.usage()
    if storage.blind(usage) or usage.uses(toc):
        return 0
    lazy = storage.lazy
    going = {id_ for id_ in lazy.object_ids(toc) if lazy.objects.has(id_)}
    _, records = lazy.skeletons.names()
    for other in records - {toc}:
        if going and _needs_objects(storage, usage, other):
            with suppress(NotInStore):  # removed just now
                going.difference_update(lazy.object_ids(other))
    return sum(map(lazy.objects.discard, going))


def _needs_objects(storage: ImageStorage, usage: Usage, toc: Digest) -> bool:
    """Say whether files of a skeleton are read from objects, or may be."""
    tocs = storage.lazy.tocs
    stored = tocs.find(toc)
    place = None if stored is None else stored.place()
    if usage.uses(toc) or place is None:
        return True
    blob = Digest.parse(place.blob)
    return not tocs.is_equal(toc, blob) or storage.open_layer(blob) is None
