"""The texts that the mount makes: lowerdir options, the history of an image, the description of a layer.

Pure: values in, bytes out. Must never ask the store.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from layerfs.layer.record import Extraction
from layerfs.oci import Descriptor, Digest, HistoryEntry, Image
from layerfs.oci.image import ImageLayer

if TYPE_CHECKING:
    from layerfs.catalog.state import LayerStatus

EMPTY: Final = "empty"
_NOTHING: Final[Mapping[str, object]] = MappingProxyType({})

COMMAND_MAX: Final = 4096
"""Characters of a step of the build that are looked at; a config may have megabytes in one."""

_UNITS: Final = ("B", "kB", "MB", "GB", "TB", "PB", "EB")
_ROUNDS_UP: Final = 999.95
"""From here on one decimal would show four digits before it."""
_SHELL: Final = r"(?:RUN )?/bin/sh -c "
_NO_OPERATION: Final = r"/bin/sh -c #\(nop\)\s*"
_BUILDKIT: Final = " # buildkit"


def lower_paths(mountpoint: bytes, image: Image) -> list[bytes]:
    """Return the lowerdirs of an image, topmost first: the cover, then each layer once.

    Known from the manifest alone, so the same before and after anything is fetched.
    """
    ids = [image.stack.short_id, *(digest.short_id for digest in image.lower_order())]
    return [b"%s/lower/%s" % (mountpoint, id_.encode("ascii")) for id_ in ids]


def human_size(size: int) -> str:
    """Return *size* bytes in decimal units, three digits or so: ``29.1 MB``."""
    if size < 1000:
        return f"{size} B"
    value, power = size / 1000, 1
    while value >= _ROUNDS_UP:
        value /= 1000
        power += 1
    return f"{value:.1f} {_UNITS[power]}"


def command_text(entry: HistoryEntry | None) -> str:
    """Return what made a layer as a line of a Dockerfile."""
    if entry is None:
        return ""
    text = " ".join(entry.created_by[:COMMAND_MAX].split()) or " ".join(entry.comment[:COMMAND_MAX].split())
    text = text.removesuffix(_BUILDKIT)
    without = re.sub(_NO_OPERATION, "", text, count=1)
    return without if without != text else re.sub(_SHELL, "RUN ", text, count=1)


def state_text(status: "LayerStatus") -> str:
    """Return the state of a layer as `history_text` has it: of one that is partly here, how much."""
    here = status.here
    if here is None or not here.files:
        return status.state
    files = f"{here.files} of {here.of_files} files"
    return f"{status.state}: {files}, {human_size(here.bytes)} of {human_size(here.of_bytes)}"


def history_text(
    image: Image, state: Callable[[Digest], str], why_whole: Callable[[ImageLayer], str] = lambda _: ""
) -> bytes:
    """Return one line a layer, base first: number, compressed size, state, command.

    Steps of the build that made no layer stand between them, without number and size. At the end of a line
    is why a layer that has a TOC is not lazy, if *why_whole* says so.
    """
    rows: list[tuple[str, str, str, str]] = []
    layers = iter(image.layers)
    steps: Sequence[HistoryEntry | None] = image.config.history
    if sum(not step.empty_layer for step in image.config.history) != len(image.layers):
        steps = [None] * len(image.layers)  # nobody can tell which step made which layer
    width = number_width(len(image.layers))
    for step in steps:
        if step is not None and step.empty_layer:
            rows.append(("-" * width, "-", EMPTY, command_text(step)))
            continue
        layer = next(layers)
        blob = layer.descriptor
        why = why_whole(layer)
        command = command_text(step) + (f"  (not lazy: {why})" if why else "")
        rows.append((f"{layer.number:0{width}d}", human_size(blob.size), state(blob.digest), command))
    sizes = max((len(row[1]) for row in rows), default=0)
    states = max((len(row[2]) for row in rows), default=0)
    lines = (f"{row[0]}  {row[1]:>{sizes}}  {row[2]:<{states}}  {row[3]}".rstrip() for row in rows)
    return "".join(f"{line}\n" for line in lines).encode()


def number_width(layers: int) -> int:
    """Return how many digits name a layer of that many: at least two, so that names sort as numbers."""
    return max(2, len(str(layers - 1)))


def layer_json(
    digest: Digest,
    *,
    state: str,
    lazy: Mapping[str, object] = _NOTHING,
    descriptor: Descriptor | None,
    diff_id: Digest | None,
    command: str,
    extraction: Extraction | None,
) -> bytes:
    """Return what is known of a layer: from the manifest and config now, counts once it is extracted.

    *lazy* is what `layerfs.catalog.state.about_lazy` says of it.
    """
    known: dict[str, object] = {
        "digest": str(digest),
        "diff_id": str(diff_id) if diff_id else None,
        "media_type": descriptor.media_type if descriptor else None,
        "size": descriptor.size if descriptor else None,
        "state": state,
        **lazy,
        "created_by": command,
    }
    if extraction is not None:
        known["diff_id"] = extraction.diff_id
        known["size"] = extraction.blob_size
        known |= {
            "compression": extraction.compression,
            "tar_size": extraction.tar_size,
            "entries": extraction.entries,
            "files": extraction.files,
            "file_bytes": extraction.file_bytes,
            "whiteouts": extraction.whiteouts,
            "opaque_directories": extraction.opaques,
            "implied_directories": extraction.implied,
        }
    import json  # what most who use this module do not need

    return json.dumps(known, indent=2).encode("ascii") + b"\n"


def time_ns(text: str | None) -> int | None:
    """Return an RFC 3339 time as nanoseconds since 1970; None for what is none or before that."""
    try:
        moment = datetime.fromisoformat(text or "")
    except ValueError:
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    seconds = int(moment.timestamp())
    return seconds * 10**9 if seconds >= 0 else None
