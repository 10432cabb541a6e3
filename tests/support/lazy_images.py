"""Images with tables of contents, as Debian's programs wrote them: `load`, `push_lazy`.

``tests/support/lazy/<kind>`` is the output of ``scripts/make-lazy-images``: manifest, config and layers, by
their digests. The script has this module write the images that these were made from.
"""

import json
import random
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Final

from layerfs.oci import Digest, Platform, Tag
from tests.support import images
from tests.support.images import BuiltImage, BuiltLayer, Compression
from tests.support.registry import Registry

DATA: Final = Path(__file__).parent / "lazy"

CHUNKED: Final = ("debian12-skopeo", "debian12-podman", "debian13-skopeo", "debian13-podman")
"""zstd:chunked of containers/storage. Debian 12's has no tar-split, and annotations under an older name."""
ESTARGZ: Final = ("debian12-estargz", "debian13-estargz", "debian13-estargz-packed")
"""Written by ctr-remote: chunks of 4096 bytes; small files packed together, some for prefetching."""
STARGZ_ZSTD: Final = ("debian12-stargz-zstd", "debian13-stargz-zstd")
"""zstd:chunked as ctr-remote writes it."""
LAZY: Final = (*CHUNKED, *ESTARGZ, *STARGZ_ZSTD)
"""All that are lazy. Their two layers hold the same files, those of `source`."""

EXTERNAL: Final = "debian13-estargz-external"
"""Its TOCs are in another image, so nothing in it is lazy."""
LATIN: Final = "debian13-latin1"
"""Made from an archive with a name that is no UTF-8, which its TOC has lost."""
SPARSE: Final = "debian13-sparse"
"""Made from an archive with a sparse file: its archive is broken, and tar-split tells."""
REFUSED: Final = (EXTERNAL, LATIN, SPARSE)

SPARSE_OLD: Final = "debian12-sparse"
"""The same without tar-split: the blob's archive has another diff_id, and is broken."""
EMPTY_XATTR: Final = "debian12-empty-xattr"
"""The archive has an attribute with an empty value, the TOC has not."""
DIFFERENT: Final = (SPARSE_OLD, EMPTY_XATTR)
"""Look sound until the whole layer is here. Nobody meant harm: skopeo 1.9 has faults."""


@cache
def load(kind: str) -> BuiltImage:
    """Return the image of one kind, ready to be pushed."""
    directory = DATA / kind
    raw = (directory / "manifest.json").read_bytes()
    manifest = json.loads(raw)
    config = (directory / Digest.parse(manifest["config"]["digest"]).hex).read_bytes()
    diff_ids = json.loads(config)["rootfs"]["diff_ids"]
    layers = []
    for described, diff_id in zip(manifest["layers"], diff_ids, strict=True):
        digest = Digest.parse(described["digest"])
        compression: Compression = "zstd" if described["mediaType"].endswith("zstd") else "gzip"
        blob = (directory / digest.hex).read_bytes()
        layers.append(BuiltLayer(blob, digest, Digest.parse(diff_id), compression, "COPY . /"))
    return BuiltImage(tuple(layers), Platform.of("linux", "amd64"), config, raw, manifest["mediaType"])


def push_lazy(registry: Registry, kind: str, path: str = "lazy") -> Tag:
    """Put the image of one kind into *registry*, at ``path:kind``; return its name."""
    return registry.push(path, kind, load(kind))


def source() -> BuiltImage:
    """Build the image that all of `LAZY` were made from."""
    noise = random.Random(1)
    few = bytes(noise.choice(b"ab") for _ in range(30_000))
    """Has many of the places where zstd:chunked cuts, and is small when compressed."""
    base = [
        images.directory("bin/"),
        images.file("bin/su", b"#!/bin/sh\n" * 20, mode=0o4755),
        images.hardlink("bin/sudo", "bin/su", mode=0o4755),
        images.symlink("bin/sh", "su"),
        images.directory("dev/"),
        images.chardev("dev/null", 1, 3, mode=0o666),
        images.Entry(name="dev/disk", kind=b"4", device=(8, 1), mode=0o660, gid=6),
        images.fifo("dev/log"),
        images.directory("etc/", mtime=1_700_000_001),
        images.file("etc/hostname", b"lazy\n", mtime=1_700_000_000.75),
        images.file("etc/empty"),
        images.file("etc/secret", b"root only\n", mode=0o600, uid=1000, gid=2000, mtime=1_700_000_000.25),
        images.directory("tmp/", mode=0o1777),
        images.file("usr/implied/parents", b"of no entry\n", xattrs={"user.comment": b"a value"}),
        images.file(
            "usr/ping", b"capable", xattrs={"security.capability": b"\x01\0\0\x02\0\x20" + bytes(14)}
        ),
        images.file("usr/chunks", noise.randbytes(9000)),
        images.file("usr/equal", b"the same bytes twice\n"),
        images.file("usr/equal-too", b"the same bytes twice\n", uid=7),
        images.file("usr/holes", noise.randbytes(1500) + bytes(40_000) + noise.randbytes(1500)),
        images.file("usr/long", few),
        images.file("usr/zeros", bytes(6000)),
        images.file("usr/" + "deep/" * 40 + "f\u00fcr", b"a long name\n"),
        images.directory("var/lib/", uid=5, gid=6),
        images.file("var/lib/gone", b"hidden by a whiteout"),
        images.file("var/lib/opaque/gone", b"hidden by an opaque directory"),
    ]
    upper = [
        images.file("etc/hostname", b"lazier\n"),
        images.whiteout("var/lib/gone", mode=0o600),
        images.opaque("var/lib/opaque"),
        images.file("var/lib/opaque/new", b"new\n"),
        images.hardlink("var/lib/opaque/again", "var/lib/opaque/new"),
    ]
    return images.image(_layer(base), _layer(upper), platform=Platform.of("linux", "amd64"))


def _layer(entries: list[images.Entry]) -> BuiltLayer:
    """Build a layer that ends with two blocks of zeros, as those of Go do: skopeo 1.9 drops any more."""
    archive = images.tar(entries)
    content = len(archive.rstrip(b"\0"))
    return images.layer(archive=archive[: content + -content % 512 + 1024])


def _write_sources(directory: Path) -> None:
    sparse = images.layer(archive=_sparse_archive(directory))
    latin = _layer([images.file(b"caf\xe9", b"latin 1\n"), images.file("plain", b"UTF-8\n")])
    xattr = _layer([images.file("file", b"content", xattrs={"user.empty": b"", "user.full": b"value"})])
    for name, built in (
        ("plain", source()), ("sparse", images.image(sparse)), ("latin", images.image(latin)),
        ("xattr", images.image(xattr)),
    ):  # fmt: skip
        images.write_layout(directory / f"{name}-image", built)
        sys.stdout.write(f"{name} {built.digest}\n")


def _sparse_archive(directory: Path) -> bytes:
    """Return what GNU tar makes of a file with a hole."""
    with (directory / "sparse").open("wb") as file:
        file.write(b"begin")
        file.seek(1 << 20)
        file.write(b"end")
    told = ["--sparse", "--format=posix", "--pax-option=delete=atime,delete=ctime", "--mtime=@1700000000"]
    command = ["tar", *told, "--owner=0", "--group=0", "-C", str(directory), "-c", "sparse"]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout


if __name__ == "__main__":
    _write_sources(Path(sys.argv[1]))
