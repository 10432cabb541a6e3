"""How a file says what layers and images may cost: the table ``[budgets]``, with the values of `Budgets`."""

from typing import Annotated

import msgspec

Count = Annotated[int, msgspec.Meta(ge=1)]


def about(text: str) -> msgspec.Meta:
    """Return the annotation that says what a key is for."""
    return msgspec.Meta(description=text)


class BudgetsSection(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The table ``[budgets]``: what a layer and an image may cost; what is beyond is refused."""

    max_layer_bytes: Annotated[Count | None, about("Bytes of the uncompressed archive.")] = None
    max_entries: Annotated[Count | None, about("Entries of the archive.")] = None
    max_image_bytes: Annotated[Count | None, about("Bytes of the archives of all layers.")] = None
    max_image_entries: Annotated[Count | None, about("Entries of all layers of an image.")] = None
    max_depth: Annotated[Count | None, about("Components of one path.")] = None
    max_ratio: Annotated[Count | None, about("Uncompressed to compressed size, of large layers.")] = None
    max_cpu_seconds: Annotated[
        Count | None, about("Seconds of a processor for inflating a layer, and for writing it.")
    ] = None
    max_pax_bytes: Annotated[Count | None, about("Bytes of one extended header or of an entry's xattrs.")] = (
        None
    )
    max_record_bytes: Annotated[
        Count | None,
        about("Bytes that are kept beside a tree: markers, what no disk holds."),
    ] = None
