"""docs/store.md against a store that holds everything: each path and each field, both ways."""

import errno
import fcntl
import gzip
import hashlib
import json
import os
import re
import shutil
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import pytest

from layerfs.oci import Digest, stack_digest
from layerfs.oci.reference import ImageReference
from layerfs.settings import ROWS
from layerfs.store import ImageStorage
from layerfs.store.layout import StagedKind, StoreLayout, staged
from layerfs.store.scratch import make_scratch
from tests.store.helpers import download
from tests.support.images import directory, file, image, layer, opaque, tar, whiteout
from tests.support.tocs import estargz

_TEXT = (Path(__file__).parents[1] / "docs/store.md").read_text(encoding="utf-8")
BASE = layer(directory("etc"), file("etc/gone"), file("implied/file"))
TOP = layer(whiteout("etc/gone"), opaque("etc"))
IMAGE = image(BASE, TOP)
LAZY = estargz(tar([file("a", b"content")]))
STACK = [BASE.digest, TOP.digest]

_HEX = r"[0-9a-f]"
_PLACES = {
    "DIGEST": rf"(?:sha256-{_HEX}{{64}}|sha512-{_HEX}{{128}})",
    "RANDOM": rf"{_HEX}{{32}}",
    "PLACE-HEX": rf"{_HEX}{{8}}-{_HEX}{{8}}",
    "REGISTRY": r"[^/]+",
    "REPOSITORY": r"[^:@]+",
    "TAG": r"[^/:@]+",
    "NAME.RANDOM.KIND": rf"(?:[^/]+/)*[^/]*\.{_HEX}{{32}}\.(?:{'|'.join(get_args(StagedKind))})",
    "NAME": r"[^/.]+",
    "SHORT-ID": r"[a-z2-7]{26}",
    "OBJECT": r"[A-Za-z0-9_-]{2}/[A-Za-z0-9_-]{20}",
}


def table(header: str) -> list[list[str]]:
    """Return the cells of the table that begins with *header*."""
    rows = _TEXT.partition(f"\n{header}\n")[2].split("\n\n")[0].splitlines()[1:]
    assert rows, header
    return [[cell.strip() for cell in row.strip("|").split(" | ")] for row in rows]


def pattern(name: str) -> re.Pattern[str]:
    """Return what a name of the table stands for."""
    found = re.escape(name.removesuffix("/")).replace(r"\-", "-")
    for word, regex in sorted(_PLACES.items(), key=lambda one: -len(one[0])):
        found = found.replace(re.escape(word).replace(r"\-", "-"), regex)
    return re.compile(found)


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ImageStorage]:
    """A store with something of each kind."""
    root = tmp_path_factory.mktemp("full") / "store"
    layout = StoreLayout(root)
    with ImageStorage(root) as storage:
        storage.save_manifest(IMAGE.manifest, IMAGE.digest)
        storage.save_config(IMAGE.config, IMAGE.config_digest)
        for built in IMAGE.layers:
            storage.extract_layer(built.digest, download(storage, built.blob).path)
        cover = storage.publish_cover(STACK)
        make_lazy(storage)
        name = ImageReference.parse("registry.example/team/app:1")
        storage.refs.write(name, IMAGE.digest)
        storage.refs.keep(name.repository, IMAGE.digest)
        storage.lease("build", [IMAGE.digest], pid=os.getpid())
        scratch = make_scratch(root, b"/nowhere", cover)
        for kind in get_args(StagedKind):
            staged(layout.layers, f"{BASE.digest.name}.tar.gz", kind).touch()
        layout.staged_ref().touch()
        ImageStorage(layout.bundle_cache(Path("/archive.tar"), IMAGE.digest)).close()
        layout.verified.touch()
        yield storage
        scratch.remove()


def make_lazy(storage: ImageStorage) -> None:
    """Have a lazy layer, one file of it, and a word on a blob that differs."""
    toc = LAZY.place.digest
    with storage.lazy.stage_toc(toc) as staged:
        staged.write(LAZY.toc, b"not looked at for this kind of TOC")
        storage.lazy.make_skeleton(staged, LAZY.blob_place)
    storage.lazy.tocs.note_difference(toc, LAZY.digest, "a: missing")
    storage.lazy.tocs.note_equal(toc, BASE.digest)
    content = storage.lazy.content(toc, Digest.of(b"content").object_id)
    with storage.lazy.objects.stage(content) as staged_object:
        staged_object.write(content.pieces[0], b"content")
        staged_object.commit()


def things(root: Path) -> Iterator[str]:
    """Yield what has a name in a store: files, and directories of which the inside is content."""
    for path in sorted(root.rglob("*")):
        relative = path.relative_to(root)
        if relative.parts[0] in ("extracted", "covers", "skeletons", "overlays", "local"):
            if len(relative.parts) == 2:
                yield str(relative)
        elif not path.is_dir():
            yield str(relative)


def test_each_path_is_in_the_table_once_and_each_row_is_in_a_store(full: ImageStorage) -> None:
    rows = {name.strip("`"): pattern(name.strip("`")) for name, _ in table("| name | what it is |")}
    used = set()
    for thing in things(full.images_dir):
        fits = [name for name, regex in rows.items() if regex.fullmatch(thing)]
        assert len(fits) == 1, thing
        used.add(fits[0])
    assert used == set(rows)
    assert {path.name for path in (full.images_dir / "overlays").glob("*/*")} == {"upper", "work", "target"}


def test_each_kind_of_staged_name_is_in_the_table() -> None:
    rows = table("| kind | what it is | if its process was killed |")
    assert [kind.strip("`") for kind, *_ in rows] == list(get_args(StagedKind))


def fields(value: dict[str, Any], prefix: str = "") -> Iterator[str]:
    """Yield the names of all values, those of objects with a dot between."""
    for name, one in value.items():
        if isinstance(one, dict):
            yield from fields(one, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}"


def test_each_field_is_in_the_table_and_in_a_file(full: ImageStorage) -> None:
    root = full.images_dir
    files = {
        "`owner.json`": root / "owner.json",
        "ref": root / "refs/registry.example/team/app:1",
        "layer": root / "extracted" / f"{TOP.digest.name}.json",
        "cover": root / "covers" / f"{stack_digest(STACK).name}.json",
        "lease": root / "leases/build.json",
    }
    written = {
        (what, name, str(value.get(name)) if name == "version" else "")
        for what, path in files.items()
        for value in [json.loads(path.read_bytes().partition(b"\n")[0])]
        for name in fields(value)
    }
    said = {
        (what, name.strip("`"), about if name == "`version`" else "")
        for what, name, about in table("| file | field | what it says |")
    }
    assert said == written


def test_the_tables_of_a_layer_follow_its_line(full: ImageStorage) -> None:
    raw = (full.images_dir / "extracted" / f"{TOP.digest.name}.json").read_bytes()
    head, _, rest = raw.partition(b"\n")
    sizes = json.loads(head)["layer"]["tables"]
    assert len(rest) == sum(sizes)
    assert rest[: sizes[0]] == b"etc/.wh.gone\0"
    assert rest[sizes[0] : sizes[0] + sizes[1]] == b"etc\0"


def test_the_fifth_table_of_a_skeleton_says_what_the_text_does(full: ImageStorage) -> None:
    path = full.lazy.skeletons.record_path(LAZY.place.digest)
    head, _, rest = path.read_bytes().partition(b"\n")
    said = json.loads(head)["layer"]
    table_ = rest[sum(said["tables"]) :]
    rows = [row.split(b"\t") for row in table_.split(b"\0")[:-1]]
    assert (len(rows), len(table_)) == (said["objects"], said["contents"])
    digest = str(Digest.of(b"content"))
    found = {id_.decode(): json.loads(value) for id_, value in rows}[Digest.of(b"content").object_id]
    assert found[:2] == [digest, 7]
    offset, end, *others = found[2][0]
    assert others == [0, 0, 7, digest]
    assert gzip.decompress(LAZY.blob[offset:end]).startswith(b"content")


def test_a_stub_leads_to_its_object(full: ImageStorage) -> None:
    stub = full.images_dir / "skeletons" / LAZY.place.digest.name / "a"
    redirect = os.getxattr(stub, "trusted.overlay.redirect").decode()
    assert os.getxattr(stub, "trusted.overlay.metacopy") == b""
    assert (full.images_dir / f"objects{redirect}").read_bytes() == b"content"


def test_a_stack_digest_is_what_the_text_says() -> None:
    text = "".join(f"{digest}\n" for digest in STACK)
    assert stack_digest(STACK) == Digest.of(text.encode())
    assert stack_digest(STACK, "fuse-overlayfs") == Digest.of(f"fuse-overlayfs\n{text}".encode())


def test_each_lock_is_on_the_byte_that_the_table_says(full: ImageStorage) -> None:
    locks, name = full.locks, full.images_dir / "layers/some.name"
    held = {
        "work": locks.work(BASE.digest),
        "work from a source": locks.work(BASE.digest, "registry.example"),
        "publication": locks.publication(BASE.digest),
        "presence": locks.presence(BASE.digest),
        "serving": locks.serving(),
        "name": locks.name(name),
    }
    rows = table("| lock | hash | bit | who holds it |")
    assert [row[0] for row in rows] == list(held)
    for what, cell, bit, _ in rows:
        text = cell.strip("`")
        hashed = bytes.fromhex(BASE.digest.hex)
        if text != "DIGEST":
            for word, value in (
                ("SOURCE", "registry.example"), ("DIGEST", str(BASE.digest)), ("NAME", name.name)
            ):  # fmt: skip
                text = text.replace(word, value)
            hashed = hashlib.sha256(text[len("sha256(") : -1].encode()).digest()
        offset = (int.from_bytes(hashed[:8], "big") >> 3) * 2 + int(bit)
        assert not is_locked(full.images_dir / "lock", offset), what
        assert held[what].try_acquire()
        assert is_locked(full.images_dir / "lock", offset), what
        held[what].release()


def is_locked(path: Path, offset: int) -> bool:
    """Say whether somebody holds a byte, as a tool in another language would find out."""
    fd = os.open(path, os.O_RDWR)
    try:
        fcntl.fcntl(fd, fcntl.F_OFD_SETLK, struct.pack("hhqqi0q", fcntl.F_WRLCK, os.SEEK_SET, offset, 1, 0))
    except OSError as exc:
        if exc.errno in (errno.EAGAIN, errno.EACCES):
            return True
        raise
    finally:
        os.close(fd)
    return False


@pytest.mark.parametrize("lost", ["owner.json", "lock", "extracted", "covers", "layers"])
def test_what_is_removed_costs_what_the_text_says(store: Path, lost: str) -> None:
    with ImageStorage(store) as storage:
        storage.extract_layer(BASE.digest, download(storage, BASE.blob).path)
        storage.make_durable()
    path = store / lost
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink()
    with ImageStorage(store) as storage:
        assert (storage.open_layer(BASE.digest) is None) == (lost == "extracted")
        assert (storage.open_blob(BASE.digest) is None) == (lost == "layers")
        if lost == "extracted":
            storage.extract_layer(BASE.digest, storage.layer_tarball_path(BASE.digest))


def test_the_settings_of_the_size_are_settings() -> None:
    assert {name.strip("`") for name, _ in table("| setting | what it does |")} <= set(ROWS)
