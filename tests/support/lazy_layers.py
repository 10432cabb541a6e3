"""Layers with TOCs, read in memory: the TOC, the archive, and files made of pieces of the blob alone."""

import io
import json
from collections.abc import Callable, Iterator
from dataclasses import replace

import zstandard

from layerfs.compression.formats import sniff
from layerfs.extract.tocs import MemoryArchive, read_toc
from layerfs.layer.budgets import Budgets
from layerfs.layer.footer import locate, tail_of
from layerfs.layer.member import Member
from layerfs.layer.tar import TarReader
from layerfs.layer.toc import Content, Entry
from layerfs.oci import Digest, Manifest, parse_manifest
from layerfs.oci.toc import TocKind, TocPlace, toc_place
from tests.support.images import BuiltImage, to_json

SECOND = 10**9


def place_of(built: BuiltImage, number: int) -> TocPlace:
    """Return where the TOC of a layer is, as whoever asks a registry finds it."""
    manifest = parse_manifest(built.manifest, built.digest)
    assert isinstance(manifest, Manifest)
    place = toc_place(manifest.layers[number])
    assert place is not None
    blob = built.layers[number].blob
    return locate(place, blob[-tail_of(len(blob)) :], len(blob))


def toc_of(built: BuiltImage, number: int) -> list[Entry]:
    """Return the entries of a layer's TOC."""
    place, blob = place_of(built, number), built.layers[number].blob
    assert place.stretch is not None
    split = blob[place.split.start : place.split.end] if place.split else b""
    return list(read_toc(blob[place.stretch.start : place.stretch.end], place, len(blob), Budgets(), split))


def archive_of(blob: bytes) -> bytes:
    """Return the archive that a blob holds."""
    stream = sniff(blob).open(io.BytesIO(blob))
    found, buffer = bytearray(), memoryview(bytearray(1 << 16))
    while size := stream.readinto(buffer):
        found += buffer[:size]
    return bytes(found)


def members_of(archive: bytes) -> Iterator[tuple[Member, bytes]]:
    """Yield the members of an archive, with their content."""
    source = MemoryArchive(archive)
    reader = TarReader(source, Budgets())
    while (member := reader.next()) is not None:
        content = source.read(member.stored)
        member.stored = 0
        yield member, content


def bytes_of(content: Content, blob: bytes) -> bytes:
    """Return the bytes of a file, made from the pieces of the blob alone and checked one by one."""
    found = b""
    for piece in content.pieces:
        if not piece.digest:
            part = bytes(piece.size)
        else:
            part = archive_of(blob[piece.offset : piece.end])[piece.skip : piece.skip + piece.size]
            assert str(Digest.of(part)) == piece.digest
        assert piece.start == len(found)
        found += part
    return found


def rounded(member: Member, kind: TocKind) -> Member:
    """Return *member* with the time that a TOC can hold: stargz-snapshotter rounds to seconds."""
    if kind is not TocKind.ZSTD_CHUNKED:
        member.mtime_ns = (member.mtime_ns + SECOND // 2) // SECOND * SECOND
    return member


def retold(built: BuiltImage, change: Callable[[bytes], bytes]) -> BuiltImage:
    """Return an image of containers/storage whose first layer's TOC is *change* of the JSON that it was."""
    place, layer = place_of(built, 0), built.layers[0]
    stretch = place.stretch
    assert stretch is not None
    before, after = layer.blob[: stretch.start - 8], layer.blob[stretch.end :]
    text = change(zstandard.decompress(layer.blob[stretch.start : stretch.end]))
    toc = zstandard.compress(text)
    blob = before + b"\x50\x2a\x4d\x18" + len(toc).to_bytes(4, "little") + toc + after
    manifest = json.loads(built.manifest)
    told = manifest["layers"][0]
    told |= {"digest": str(Digest.of(blob)), "size": len(blob)}
    (prefix,) = (key.removesuffix("checksum") for key in told["annotations"] if key.endswith("checksum"))
    told["annotations"] = {
        f"{prefix}checksum": str(Digest.of(toc)),
        f"{prefix}position": f"{stretch.start}:{len(toc)}:{len(text)}:1",
    }
    layers = (replace(layer, blob=blob, digest=Digest.of(blob)), *built.layers[1:])
    return replace(built, layers=layers, manifest=to_json(manifest))
