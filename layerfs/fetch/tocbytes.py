"""The bytes of TOCs: which of a blob are asked for first, and what they say of where the rest is.

What comes is judged by whoever makes a skeleton of it.
"""

import trio

from layerfs.errors import InvalidLayer
from layerfs.fetch.parts import BlobParts, read_span
from layerfs.fetch.spans import Span
from layerfs.flights import SingleFlight
from layerfs.layer import footer
from layerfs.oci import Descriptor, Digest, Repository
from layerfs.oci.toc import Stretch, TocPlace
from layerfs.store.parts import Part
from layerfs.store.tocs import StagedToc


class TocBytes:
    """Asks for them, each once, in *nursery*."""

    def __init__(self, nursery: trio.Nursery, parts: BlobParts) -> None:
        self._parts = parts
        self._flights: SingleFlight[tuple[str, Digest, TocPlace], list[Part]] = SingleFlight(nursery)

    async def begin(self, repository: Repository, blob: Descriptor, place: TocPlace) -> list[Part]:
        """Have what is asked for first: the TOC, or the end of the blob; return the parts that hold it.

        Raises InvalidLayer, LayerfsError, as NoRanges.
        """

        async def first() -> list[Part]:
            return await self._parts.have(repository, blob, _first(blob, place))

        return await self._flights.do((repository.registry, blob.digest, place), first)

    async def fetch(
        self, repository: Repository, blob: Descriptor, place: TocPlace, toc: StagedToc
    ) -> TocPlace:
        """Have the bytes of a TOC, and of its tar-split, in *toc*; return *place* with where they are.

        Raises InvalidLayer, LayerfsError, as NoRanges.
        """
        parts, spans = await self.begin(repository, blob, place), _first(blob, place)
        if place.stretch is None:
            (tail,) = spans
            raw = await trio.to_thread.run_sync(read_span, parts, tail)
            place = footer.locate(place, raw, blob.size)
            spans = _first(blob, place)
            parts = await self._parts.have(repository, blob, spans)

        def write() -> None:
            toc.write(*(read_span(parts, span) for span in spans))

        await trio.to_thread.run_sync(write)
        return place


def _first(blob: Descriptor, place: TocPlace) -> list[Span]:
    """Return what is to be asked for, as far as *place* says where the TOC is. Raises InvalidLayer."""
    if place.stretch is None:
        return [Span(blob.size - footer.tail_of(blob.size), blob.size)]
    spans = [_span(place.stretch), *([_span(place.split)] if place.split else [])]
    for span in spans:
        if span.end > blob.size:
            raise InvalidLayer(f"TOC: bytes {span.start} to {span.end} of a blob of {blob.size}")
    return spans


def _span(stretch: Stretch) -> Span:
    return Span(stretch.start, stretch.end)
