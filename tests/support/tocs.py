"""Layers with a TOC, made of any archive: eStargz as its documentation says, with chunks of any size.

For what a TOC means to layerfs; that real ones are read, real tools' blobs show (tests/layer).
"""

import base64
import gzip
import io
import json
import os
import tarfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from layerfs.oci import Digest
from layerfs.oci.toc import Stretch, TocKind, TocPlace
from layerfs.store.tocs import BlobPlace
from tests.support.images import BuiltLayer, Entry

TOC_NAME = "stargz.index.json"
_END = bytes(1024)
_KINDS = {
    tarfile.REGTYPE: "reg", tarfile.DIRTYPE: "dir", tarfile.SYMTYPE: "symlink", tarfile.LNKTYPE: "hardlink",
    tarfile.CHRTYPE: "char", tarfile.BLKTYPE: "block", tarfile.FIFOTYPE: "fifo",
}  # fmt: skip
_XATTR = "SCHILY.xattr."


@dataclass(frozen=True)
class LazyLayer:
    """A layer that can be read by its TOC."""

    blob: bytes
    archive: bytes
    """What the blob decompresses to."""
    place: TocPlace

    @property
    def toc(self) -> bytes:
        """The bytes of the TOC as they are in the blob."""
        stretch = self.place.stretch
        assert stretch is not None
        return self.blob[stretch.start : stretch.end]

    @property
    def digest(self) -> Digest:
        """That of the blob."""
        return Digest.of(self.blob)

    @property
    def built(self) -> BuiltLayer:
        """It as a layer of an image whose manifest says that it has a TOC."""
        diff_id = Digest.of(self.archive)
        return BuiltLayer(self.blob, self.digest, diff_id, "gzip", "COPY . /", self.annotations)

    @property
    def blob_place(self) -> BlobPlace:
        """Where the TOC is, and in what."""
        return BlobPlace(self.place, str(self.digest), len(self.blob))

    @property
    def annotations(self) -> dict[str, str]:
        """What a manifest says of it."""
        return {"containerd.io/snapshot/stargz/toc.digest": str(self.place.digest)}


def estargz(
    archive: bytes, chunk: int = 1 << 22, changes: Mapping[str, dict[str, Any] | None] | None = None
) -> LazyLayer:
    """Return *archive* as eStargz, files in chunks of *chunk* bytes.

    *changes* are values of the TOC's entries, by name: ``{"etc/a": {"mode": 0}}``; None for no entry.
    """
    blob = bytearray()
    listed: list[dict[str, Any]] = []
    with tarfile.open(fileobj=io.BytesIO(archive), encoding="utf-8", errors="surrogateescape") as opened:
        members = opened.getmembers()
        for info in members:
            blob += gzip.compress(archive[info.offset : info.offset_data], mtime=0)
            listed += _entries(info, archive, chunk, blob)
    end = max(
        (info.offset_data + info.size + -info.size % 512 for info in members if info.isreg()), default=0
    )
    end = max(end, *(info.offset_data for info in members)) if members else 0
    wanted: Mapping[str, dict[str, Any] | None] = {entry["name"]: {} for entry in listed} | dict(
        changes or {}
    )
    listed = [entry | change for entry in listed if (change := wanted[entry["name"]]) is not None]
    text = json.dumps({"version": 1, "entries": listed}).encode()
    last = tar_member(TOC_NAME, text) + _END
    start, packed = len(blob), gzip.compress(last, mtime=0)
    footer = _footer(start)
    place = TocPlace(TocKind.ESTARGZ, Digest.of(text), Stretch(start, len(packed)))
    return LazyLayer(bytes(blob) + packed + footer, archive[:end] + last, place)


def _entries(info: tarfile.TarInfo, archive: bytes, chunk: int, blob: bytearray) -> Iterator[dict[str, Any]]:
    """Yield what the TOC says of a member; its content and padding go to *blob*."""
    entry = listed_as(info)
    if not info.isreg() or not info.size:
        yield entry
        return
    content = archive[info.offset_data : info.offset_data + info.size]
    common = {"size": info.size, "digest": str(Digest.of(content))}
    for at in range(0, info.size, chunk):
        part = content[at : at + chunk]
        place = {
            "offset": len(blob),
            "chunkOffset": at,
            "chunkSize": len(part) if info.size > chunk else 0,
            "chunkDigest": str(Digest.of(part)),
        }
        yield (entry | common if at == 0 else {"name": info.name, "type": "chunk"}) | place
        is_last = at + chunk >= info.size
        blob += gzip.compress(part + bytes(-info.size % 512) if is_last else part, mtime=0)


def listed_as(info: tarfile.TarInfo) -> dict[str, Any]:
    """Return what a TOC says of a member, but where its bytes are."""
    return {
        "name": info.name + ("/" if info.isdir() else ""),
        "type": _KINDS[info.type],
        "mode": info.mode,
        "uid": info.uid,
        "gid": info.gid,
        "modtime": _moment(float(info.pax_headers.get("mtime", info.mtime))),
        "xattrs": {
            key.removeprefix(_XATTR): base64.b64encode(os.fsencode(value)).decode()
            for key, value in info.pax_headers.items()
            if key.startswith(_XATTR)
        },
        "linkName": info.linkname,
        "devMajor": info.devmajor,
        "devMinor": info.devminor,
    }


def _moment(seconds: float) -> str:
    moment = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=seconds)
    return moment.strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def tar_member(name: str, content: bytes) -> bytes:
    """Return a file of an archive: header, content and padding."""
    info = tarfile.TarInfo(name)
    info.size = len(content)
    return info.tobuf(tarfile.USTAR_FORMAT) + content + bytes(-len(content) % 512)


def _footer(offset: int) -> bytes:
    """Return the 51 bytes that say where the TOC is: an empty member of gzip with an extra field."""
    field = b"%016xSTARGZ" % offset
    extra = b"SG" + len(field).to_bytes(2, "little") + field
    head = b"\x1f\x8b\x08\x04\0\0\0\0\0\xff" + len(extra).to_bytes(2, "little") + extra
    return head + b"\x01\0\0\xff\xff" + bytes(8)


def tellable(entries: Iterable[Entry]) -> list[Entry]:
    """Return *entries* without the second of a name, and in names of UTF-8: no TOC can tell others."""
    found: dict[bytes, Entry] = {}
    for entry in entries:
        name, target = (
            os.fsencode(text).replace(b"\xff", b"\xc3\xa9") for text in (entry.name, entry.target)
        )
        found.setdefault(os.path.normpath(name), entry.with_(name=name, target=target))
    return list(found.values())
