"""Objects that may go: what no skeleton names, and when room is short, what was not used for longest.

Blocking. An object that goes while somebody is about to open it is fetched again: so nothing is set aside.
"""

from collections.abc import Collection, Mapping
from contextlib import suppress

from layerfs.catalog.inventory import Held
from layerfs.errors import NotInStore
from layerfs.oci import Digest
from layerfs.store import ImageStorage


def unnamed_objects(
    storage: ImageStorage, objects: Mapping[str, Held], going: Collection[Digest] = ()
) -> dict[str, Held]:
    """Return those *objects* that no skeleton names, those of the TOCs that are *going* not counted.

    None of them as long as it is not known what a TOC names: its skeleton was lost with the power, say, and
    will be made anew. Raises StoreError.
    """
    lazy = storage.lazy
    trees, records = lazy.skeletons.names()
    tocs = lazy.tocs.names() | trees
    unknown = tocs - records - set(going)
    if not objects or unknown:
        return {}
    left = dict(objects)
    for toc in records - set(going):
        with suppress(NotInStore):  # removed just now
            for id_ in lazy.object_ids(toc):
                left.pop(id_, None)
    return left


def only_named_by(
    storage: ImageStorage, objects: Mapping[str, Held], going: Collection[Digest]
) -> dict[str, Held]:
    """Return those *objects* that the TOCs that are *going* name, and no other. Raises StoreError."""
    named: set[str] = set()
    for toc in going:
        with suppress(NotInStore):
            named.update(id_ for id_ in storage.lazy.object_ids(toc) if id_ in objects)
    return unnamed_objects(storage, {id_: objects[id_] for id_ in named}, going)


def oldest_objects(
    storage: ImageStorage, objects: Mapping[str, Held], protected: Collection[Digest], goal: int
) -> dict[str, Held]:
    """Choose objects that were not used for longest, *goal* bytes of them; none that a *protected* TOC names.

    Raises StoreError.
    """
    _, records = storage.lazy.skeletons.names()
    left = dict(objects)
    for toc in records & set(protected):
        with suppress(NotInStore):
            for id_ in storage.lazy.object_ids(toc):
                left.pop(id_, None)
    chosen: dict[str, Held] = {}
    for id_, held in sorted(left.items(), key=lambda one: (one[1].used_at, one[0])):
        if goal <= 0:
            break
        chosen[id_] = held
        goal -= held.size
    return chosen


def remove_objects(storage: ImageStorage, going: Mapping[str, Held]) -> dict[str, Held]:
    """Remove objects; return those that are gone. Raises StoreReadOnly, StoreError."""
    return {id_: held for id_, held in going.items() if storage.lazy.objects.discard(id_)}
