"""``layers/``, ``lower/`` and what is below them: two forms of one directory on disk."""

import json
import os
import stat
from collections.abc import Iterator, Sequence
from errno import EACCES, EIO, ENODATA, ENOTSUP
from pathlib import Path

import msgspec
import pytest
import xattr

from layerfs.layer.lost import Lost
from layerfs.layer.tables import lost_row
from layerfs.layer.whiteout import is_marker
from layerfs.needs import LayersNeed
from layerfs.oci import Digest, Image, ImageConfig, Manifest, parse_manifest
from layerfs.store.records import encode_record
from layerfs.store.xattrs import NO_XATTRS, read_all
from layerfs.view import tree as tree_module
from layerfs.view.content import attributes_of, restored
from layerfs.view.diff import DiffDirectory
from layerfs.view.directory import Listing
from layerfs.view.nodes import FOREVER, FileContent, Node
from tests.extract.overlay_shapes import SHAPES
from tests.support.images import (
    Entry,
    chardev,
    directory,
    fifo,
    file,
    hardlink,
    image,
    opaque,
    symlink,
    whiteout,
)
from tests.view.scene import AMD64, DEMO, MOUNTPOINT, Scene, Status, made, names, read, stack_id

LAYER = made(
    directory("etc", 0o750, uid=1, gid=2, mtime=7),
    file("etc/motd", b"hello", 0o640, uid=3, gid=4, mtime=8, xattrs={"user.note": b"x"}),
    hardlink("etc/copy", "etc/motd"),
    symlink("etc/up", "../../../etc/shadow"),
    fifo("pipe"),
    chardev("null", 1, 3),
    file(b"\xff\xfe", b"bytes"),
    whiteout("gone"),
    whiteout("kept"),
    file("kept", b"kept"),
    whiteout("renewed"),
    directory("renewed"),
    whiteout("renewed/hidden"),
    directory("renewed/deeper"),
    whiteout("renewed/deeper/hidden"),
    directory("clear", xattrs={"user.note": b"y"}),
    opaque("clear"),
    whiteout("clear/hidden"),
    file("clear/file"),
    file(".wh..wh.plnk"),
    whiteout("implied/gone"),
)
IMAGE = image(LAYER.built, platform=AMD64)

ON_TOP = {b"etc", b"pipe", b"null", b"\xff\xfe", b"kept", b"renewed", b"clear", b"implied"}
MARKERS = {b".wh.gone", b".wh.kept", b".wh.renewed", b".wh..wh.plnk"}


@pytest.fixture
def held(scene: Scene) -> Scene:
    scene.knows(IMAGE)
    scene.has(LAYER)
    return scene


def test_diff_shows_what_the_archive_has(held: Scene) -> None:
    assert set(names(held.layer(LAYER, "diff").entries())) == ON_TOP | MARKERS
    assert set(names(held.layer(LAYER, "diff", "clear").entries())) == {
        b"file",
        b".wh..wh..opq",
        b".wh.hidden",
    }
    assert held.layer(LAYER, "diff").lookup(b"gone") is None, "the device beside the marker is for the kernel"


def test_lower_shows_what_overlayfs_wants(held: Scene) -> None:
    assert set(names(held.layer(LAYER, "lower").entries())) == ON_TOP | {b"gone"}
    assert names(held.layer(LAYER, "lower", "clear").entries()) == [b"file"]
    assert names(held.layer(LAYER, "lower", "renewed").entries()) == [b"deeper"]
    assert names(held.layer(LAYER, "lower", "renewed", "deeper").entries()) == []
    assert names(held.layer(LAYER, "lower", "implied").entries()) == [b"gone"]


def test_a_whiteout_is_a_device_that_has_one_number(held: Scene) -> None:
    lower = held.layer(LAYER, "lower")
    node = lower.lookup(b"gone")
    assert isinstance(node, Node)
    assert (node.attributes().mode, node.attributes().rdev) == (stat.S_IFCHR, 0)
    assert node.attributes().mtime_ns == lower.attributes().mtime_ns
    assert held.layer(LAYER, "lower", "implied", "gone").ino != node.ino
    lower.entries()
    assert lower.lookup(b"gone") is node
    with pytest.raises(OSError, match="not a regular file"):
        node.open()


@pytest.mark.parametrize("name", sorted(MARKERS))
def test_lower_has_no_markers(held: Scene, name: bytes) -> None:
    lower = held.layer(LAYER, "lower")
    assert lower.lookup(name) is None
    lower.entries()
    assert lower.lookup(name) is None


def test_opaque_directories_say_so_under_both_names_in_lower_alone(held: Scene) -> None:
    names_of = {b"trusted.overlay.opaque": b"y", b"user.overlay.opaque": b"y"}
    assert held.layer(LAYER, "lower", "clear").xattrs() == names_of | {b"user.note": b"y"}
    assert held.layer(LAYER, "lower", "renewed").xattrs() == names_of
    assert held.layer(LAYER, "lower", "renewed", "deeper").xattrs() == {}
    assert held.layer(LAYER, "diff", "clear").xattrs() == {b"user.note": b"y"}
    assert held.layer(LAYER, "diff", "renewed").xattrs() == {}


def test_an_opaque_root_says_so(scene: Scene) -> None:
    layer = made(opaque(""), whiteout("a"), file("b"))
    scene.has(layer)
    assert scene.layer(layer, "lower").xattrs()[b"trusted.overlay.opaque"] == b"y"
    assert names(scene.layer(layer, "lower").entries()) == [b"b"]


@pytest.mark.needs_root
@pytest.mark.parametrize(
    "entries",
    [*(pytest.param(row.values[0], id=row.id) for row in SHAPES), pytest.param(LAYER.entries, id="all")],
)
def test_lower_and_the_extracted_tree_have_one_overlay_form(scene: Scene, entries: Sequence[Entry]) -> None:
    """The daemon computes for `lower/` what the extractor wrote: a stack may be made of either."""
    layer = made(*entries)
    scene.knows(image(layer.built, platform=AMD64))
    scene.has(layer)
    on_disk = dict(form_on_disk(os.fsencode(scene.storage.layer_extracted_path(layer.digest))))
    assert dict(form_of(scene.layer(layer, "lower"))) == on_disk


def form_on_disk(top: bytes, path: bytes = b"") -> Iterator[tuple[bytes, str]]:
    """Yield what overlayfs of root would take each file below *top* for; it does not know markers."""
    where = os.path.join(top, path)
    status = os.lstat(where)
    opaque_value = read_all(where).get(b"trusted.overlay.opaque")
    yield path, form(status.st_mode, status.st_rdev, opaque_value)
    for name in os.listdir(where) if stat.S_ISDIR(status.st_mode) else ():
        if not is_marker(name):
            yield from form_on_disk(top, os.path.join(path, name))


def form_of(node: Node, path: bytes = b"") -> Iterator[tuple[bytes, str]]:
    """Yield the same of a node."""
    found = node.attributes()
    yield path, form(found.mode, found.rdev, node.xattrs().get(b"trusted.overlay.opaque"))
    if stat.S_ISDIR(found.mode):
        entries = node.entries()
        assert isinstance(entries, Sequence | Listing)
        for name, child in entries:
            yield from form_of(child, os.path.join(path, name))


def form(mode: int, rdev: int, opaque_value: bytes | None) -> str:
    if stat.S_ISDIR(mode):
        return "opaque" if opaque_value == b"y" else "directory"
    return "whiteout" if stat.S_ISCHR(mode) and rdev == 0 else f"file {stat.S_IFMT(mode):o}"


def walk(node: Node, path: bytes = b"") -> list[tuple[bytes, Node]]:
    found = [(path, node)]
    if stat.S_ISDIR(node.attributes().mode):
        entries = node.entries()
        assert isinstance(entries, Sequence | Listing)
        for name, child in entries:
            found += walk(child, path + b"/" + name)
    return found


def test_attributes_are_those_of_the_archive(held: Scene) -> None:
    etc = held.layer(LAYER, "diff", "etc").attributes()
    assert (etc.mode, etc.uid, etc.gid, etc.mtime_ns) == (stat.S_IFDIR | 0o750, 1, 2, 7 * 10**9)
    node = held.layer(LAYER, "lower", "etc", "motd")
    motd = node.attributes()
    assert (motd.mode, motd.uid, motd.gid, motd.mtime_ns) == (stat.S_IFREG | 0o640, 3, 4, 8 * 10**9)
    assert (motd.size, motd.blocks, motd.nlink) == (5, 1, 2)
    assert node.xattrs() == {b"user.note": b"x"}
    node.forgotten()
    assert node.xattrs() == {b"user.note": b"x"}
    null = held.layer(LAYER, "diff", "null").attributes()
    assert (stat.S_IFMT(null.mode), null.rdev) == (stat.S_IFCHR, os.makedev(1, 3))


def test_files_are_opened_below_one_descriptor_without_following(held: Scene) -> None:
    motd, other = (held.layer(LAYER, "diff", *path) for path in (("etc", "motd"), (b"\xff\xfe",)))
    assert read(motd) == b"hello"
    assert read(other) == b"bytes"
    contents = motd.open(), other.open()
    assert all(isinstance(content, FileContent) for content in contents)
    assert contents[0].dir_fd == contents[1].dir_fd  # type: ignore[union-attr]  # checked above
    assert held.layer(LAYER, "diff", "etc", "up").readlink() == b"../../../etc/shadow"


@pytest.mark.parametrize("name", ["pipe", "null"])
def test_what_only_the_kernel_can_open_is_not_opened(held: Scene, name: str) -> None:
    with pytest.raises(OSError, match="not a regular file"):
        held.layer(LAYER, "diff", name).open()


@pytest.mark.parametrize("name", [b"x" * 256, b"x" * 1024, b"absent"])
def test_names_that_no_layer_can_have_are_absent(held: Scene, name: bytes) -> None:
    for form in ("diff", "lower"):
        assert held.layer(LAYER, form).lookup(name) is None
        assert held.layer(LAYER, form).negative_timeout == FOREVER
        assert held.layer(LAYER, form, "etc").negative_timeout == FOREVER


def test_trouble_with_the_disk_is_not_an_absent_name(held: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("layerfs.view.diff.LISTED_AT_ONCE", 0)  # every directory is a large one
    diff = held.layer(LAYER, "diff", "etc")

    def broken(*_: object, **__: object) -> os.stat_result:
        raise OSError(EIO, "the disk is broken")

    listing = diff.entries()
    assert isinstance(listing, Listing)
    with monkeypatch.context() as patch:
        patch.setattr(os, "lstat", broken)
        with pytest.raises(OSError, match="broken"):
            diff.lookup(b"motd")
        [(name, node)] = listing[:1]
    with pytest.raises(OSError, match="broken"):
        node.attributes()
    assert name in (b"motd", b"copy", b"up")


def test_a_listing_makes_nodes_when_they_are_reached(held: Scene) -> None:
    etc = held.layer(LAYER, "diff", "etc")
    listing = etc.entries()
    assert isinstance(listing, Listing)
    assert len(listing) == 3
    assert listing[1:] == [*listing[1:2], *listing[2:3]]
    assert listing[2:100] == listing[2:3]
    assert all(etc.lookup(name) is node for name, node in listing)
    assert listing[3:4] == []


def test_a_root_remembers_its_children_as_the_directory_on_disk_does(held: Scene) -> None:
    root = held.layer(LAYER, "diff")
    assert not root.is_passing(Node(9)), "nothing was met yet"
    root.lookup(b"etc")
    assert not root.is_passing(Node(9)), "nor many"


def test_a_layer_that_goes_away_while_it_is_listed_is_an_error(
    held: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("layerfs.view.diff.LISTED_AT_ONCE", 0)  # every directory is a large one
    listing = held.layer(LAYER, "diff", "etc").entries()
    assert isinstance(listing, Listing)
    held.storage.discard_layer(LAYER.digest)
    for _, node in listing:
        with pytest.raises(FileNotFoundError, match="removed while it was listed"):
            node.attributes()


def test_a_file_that_goes_away_while_it_is_listed_is_an_error_and_the_others_are_there(
    held: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("layerfs.view.diff.LISTED_AT_ONCE", 0)  # every directory is a large one
    listing = held.layer(LAYER, "diff", "etc").entries()
    assert isinstance(listing, Listing)
    (held.storage.layer_extracted_path(LAYER.digest) / "etc/motd").unlink()
    listed = dict(listing)
    with pytest.raises(FileNotFoundError, match="removed while it was listed"):
        listed[b"motd"].attributes()
    assert listed[b"copy"].attributes().size == len(b"hello")


def test_the_tree_of_a_layer_can_be_scanned(held: Scene) -> None:
    etc = held.layer(LAYER, "diff", "etc")
    assert isinstance(etc, DiffDirectory)
    assert {name: stat.S_IFMT(found.st_mode) for name, found in etc.tree.source.scan(b"etc")} == {
        b"motd": stat.S_IFREG,
        b"copy": stat.S_IFREG,
        b"up": stat.S_IFLNK,
    }


def test_a_directory_gives_the_same_nodes_until_it_is_forgotten(held: Scene) -> None:
    etc = held.layer(LAYER, "diff", "etc")
    motd = etc.lookup(b"motd")
    assert dict(etc.entries())[b"motd"] is motd  # type: ignore[arg-type]  # the layer is here
    assert etc.lookup(b"motd") is motd
    assert etc.lookup(b"absent") is None
    etc.forgotten()
    assert etc.lookup(b"motd") is motd


def test_roots_know_their_attributes_once_the_layer_is_here(scene: Scene) -> None:
    scene.knows(IMAGE)
    root = scene.layer(LAYER, "diff")
    assert root.attribute_timeout == 0
    assert root.entry_timeout == FOREVER
    assert root.attributes().nlink == 1
    assert root.xattrs() == {}
    scene.has(LAYER)
    links = root.attributes().nlink
    assert links == os.lstat(scene.storage.layer_extracted_path(LAYER.digest)).st_nlink
    assert root.attribute_timeout == FOREVER
    root.forgotten()
    assert root.attribute_timeout == 0


def test_a_layer_that_was_discarded_is_needed_again(held: Scene) -> None:
    root, deeper = held.layer(LAYER, "diff"), held.layer(LAYER, "diff", "etc")
    held.storage.discard_layer(LAYER.digest)
    assert root.entries() == need_of_the_layer()
    assert deeper.lookup(b"motd") == need_of_the_layer()
    held.has(LAYER)
    assert isinstance(deeper.lookup(b"motd"), Node)
    assert b"etc" in names(root.entries())
    assert root.entries() == root.entries()


def need_of_the_layer() -> LayersNeed:
    manifest = parse_manifest(IMAGE.manifest, IMAGE.digest)
    assert isinstance(manifest, Manifest)
    return LayersNeed(DEMO, Image.of(manifest, ImageConfig.parse(IMAGE.config)), (0,))


def test_a_file_that_took_the_number_of_another_is_another_node(held: Scene) -> None:
    etc = held.layer(LAYER, "diff", "etc")
    old = etc.lookup(b"motd")
    assert isinstance(old, Node)
    path = held.storage.layer_extracted_path(LAYER.digest) / "etc" / "motd"
    os.utime(path)  # as little as that changes st_ctime, as an extraction would
    new = etc.lookup(b"motd")
    assert isinstance(new, Node)
    assert new is not old
    assert new.ino != old.ino


def test_one_layer_has_one_name(held: Scene) -> None:
    layers = held.node("layers")
    assert names(layers.entries()) == [LAYER.digest.name.encode()]
    assert layers.lookup(str(LAYER.digest).encode()) is None
    assert layers.lookup(b"sha256-" + b"a" * 63) is None
    assert layers.lookup(b"\xff") is None
    assert layers.lookup(Digest.of(b"nobody").name.encode()) is None


def test_only_complete_layers_are_listed(held: Scene) -> None:
    extracted = held.storage.layer_extracted_path(LAYER.digest).parent
    (extracted / Digest.of(b"no record").name).mkdir()
    (extracted / "rubbish").mkdir()
    assert names(held.node("layers").entries()) == [LAYER.digest.name.encode()]


def test_blob_and_description(held: Scene) -> None:
    blob = held.layer(LAYER, "blob")
    assert read(blob) == LAYER.built.blob
    assert blob.attributes().size == LAYER.built.size
    described = json.loads(read(held.layer(LAYER, "layer.json")))
    assert described["digest"] == str(LAYER.digest)
    assert described["diff_id"] == str(LAYER.built.diff_id)
    assert described["media_type"] == "application/vnd.oci.image.layer.v1.tar+gzip"
    assert described["size"] == LAYER.built.size
    assert described["state"] == "fetched"
    assert described["created_by"] == "COPY . /"
    assert described["compression"] == "gzip"
    assert described["whiteouts"] == 8
    assert described["opaque_directories"] == 1


def test_the_size_of_a_blob_is_known_before_and_after_it_is_here(scene: Scene) -> None:
    scene.knows(IMAGE)
    blob = scene.layer(LAYER, "blob")
    assert blob.attributes().size == LAYER.built.size
    scene.has(LAYER)
    scene.storage.layer_tarball_path(LAYER.digest).unlink()
    assert blob.attributes().size == LAYER.built.size


def test_a_layer_has_four_entries(held: Scene) -> None:
    node = held.layer(LAYER)
    assert names(node.entries()) == [b"blob", b"diff", b"layer.json", b"lower"]
    assert node.negative_timeout == FOREVER
    assert all(node.lookup(name) is child for name, child in node.entries())  # type: ignore[union-attr]


# lower/<id>


def test_lower_links_lead_to_the_native_directory(held: Scene) -> None:
    link = held.node("lower", LAYER.digest.short_id)
    target = os.fsencode(held.storage.layer_extracted_path(LAYER.digest))
    assert link.readlink() == target
    assert link.attributes().size == len(target)
    cover = os.fsencode(held.has_cover(LAYER))
    link = held.node("lower", stack_id(LAYER))
    assert link.readlink() == cover
    assert link.attributes().size == len(cover)
    assert set(names(held.node("lower").entries())) == {
        LAYER.digest.short_id.encode(),
        stack_id(LAYER).encode(),
    }


def test_lower_links_lead_into_the_mount_where_the_disk_cannot(
    held: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    poor = msgspec.structs.replace(held.storage.capabilities, whiteout_devices=False)
    monkeypatch.setattr(type(held.storage), "capabilities", property(lambda _: poor))
    link = held.node("lower", LAYER.digest.short_id)
    target = f"{MOUNTPOINT}/layers/{LAYER.digest.name}/lower".encode()
    assert link.readlink() == target
    assert link.attributes().size == len(target)


def test_a_layer_that_no_image_names_has_a_link_too(scene: Scene) -> None:
    scene.has(LAYER)
    assert isinstance(scene.node("lower", LAYER.digest.short_id).readlink(), bytes)
    assert names(scene.node("lower").entries()) == [LAYER.digest.short_id.encode()]
    assert scene.node("lower").lookup(b"a" * 20) is None
    assert scene.node("lower").lookup(b"nonsense") is None
    assert scene.node("rootfs").lookup(b"nonsense") is None
    described = json.loads(read(scene.layer(LAYER, "layer.json")))
    assert described["media_type"] is None
    assert described["size"] == LAYER.built.size


# What an unprivileged writer could not put on the disk


def test_lost_metadata_is_shown_as_the_record_says(held: Scene) -> None:
    lost = {
        "etc/motd": Lost(mode=0o4755, owner=(1000, 50), xattrs={b"trusted.x": b"1", b"user.overlay.y": b"2"}),
        "kept": Lost(mode=stat.S_IFCHR | 0o600, device=(1, 5)),
        "etc": Lost(owner=(7, 8)),
    }
    rewrite_record(held, {path: str(one) for path, one in lost.items()})
    held = Scene(held.storage.images_dir)
    motd = held.layer(LAYER, "diff", "etc", "motd")
    assert motd.attributes().mode == stat.S_IFREG | 0o4755
    assert (motd.attributes().uid, motd.attributes().gid) == (1000, 50)
    assert motd.xattrs() == {b"user.note": b"x", b"trusted.x": b"1"}
    kept = held.layer(LAYER, "lower", "kept").attributes()
    assert (kept.mode, kept.rdev) == (stat.S_IFCHR | 0o600, os.makedev(1, 5))
    assert held.layer(LAYER, "diff", "etc").attributes().gid == 8
    assert held.layer(LAYER, "diff", "pipe").attributes().uid == 0


def rewrite_record(scene: Scene, lost: dict[str, str]) -> None:
    layer = scene.storage.open_layer(LAYER.digest)
    assert layer is not None
    tables = layer.tables()
    rows = b"".join(lost_row(path.encode(), lost[path]) for path in sorted(lost))
    found = msgspec.structs.replace(
        layer.record.layer, lost=len(lost), tables=(*layer.record.layer.tables[:3], len(rows))
    )
    path = layer.path.with_name(layer.path.name + ".json")
    head = encode_record(msgspec.structs.replace(layer.record, layer=found))
    path.write_bytes(head + tables.whiteouts + tables.opaques + tables.implied + rows)


def test_lost_permission_bits_keep_the_type_of_the_file() -> None:
    attributes = attributes_of(os.lstat("/"))
    assert restored(attributes, Lost(mode=0o1777)).mode == stat.S_IFDIR | 0o1777


# How the store reads xattrs


def test_xattrs_are_those_of_a_link_itself(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    os.setxattr(tmp_path / "file", "user.a", b"\x00b")
    (tmp_path / "link").symlink_to("file")
    assert read_all(os.fsencode(tmp_path / "file")) == {b"user.a": b"\x00b"}
    assert read_all(os.fsencode(tmp_path / "link")) == {}
    with pytest.raises(FileNotFoundError):
        read_all(os.fsencode(tmp_path / "absent"))


@pytest.mark.parametrize("errno", [ENOTSUP, EACCES])
def test_a_disk_without_xattrs_has_none(errno: int, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> list[str]:
        raise OSError(errno, "no")

    monkeypatch.setattr(xattr, "listxattr", refuse)
    assert read_all(b"/") is NO_XATTRS


@pytest.mark.parametrize(("errno", "is_error"), [(ENODATA, False), (EACCES, False), (EIO, True)])
def test_an_xattr_that_vanished_is_left_out(
    errno: int, is_error: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    os.setxattr(tmp_path, "user.a", b"b")

    def refuse(*_: object, **__: object) -> bytes:
        raise OSError(errno, "no")

    monkeypatch.setattr(xattr, "getxattr", refuse)
    if is_error:
        with pytest.raises(OSError, match="no"):
            read_all(os.fsencode(tmp_path))
    else:
        assert read_all(os.fsencode(tmp_path)) == {}


# The top


def test_a_bare_node_is_nothing_yet() -> None:
    node = Node(7)
    node.forgotten()
    assert node.xattrs() == {}
    assert node.negative_timeout == 0
    assert node.entry_timeout == node.attribute_timeout == FOREVER
    with pytest.raises(NotImplementedError):
        node.attributes()


def test_the_top_is_what_the_design_says(scene: Scene) -> None:
    assert names(scene.tree.root.entries()) == [b".layerfs", b"images", b"layers", b"lower", b"rootfs"]
    assert scene.tree.root.ino == 1
    assert scene.tree.root.negative_timeout == FOREVER
    assert names(scene.node(".layerfs").entries()) == [b"bell", b"events.json", b"metrics", b"status.json"]


def test_status_is_read_when_it_is_asked_for(scene: Scene) -> None:
    node = scene.node(".layerfs", "status.json")
    assert node.attribute_timeout == 0
    assert read(node) == scene.status.read()
    scene.status.text = b"longer than before, and true now\n"
    assert node.attributes().size == len(scene.status.text)
    assert read(node) == scene.status.text


def test_what_no_disk_holds_belongs_to_the_daemon(store: Path) -> None:
    scene = Scene(store)
    assert scene.node("images").attributes().uid == os.geteuid()
    other = tree_module.build(scene.storage, "/mnt", AMD64, Status(), uid=5, gid=6)
    found = other.root.attributes()
    assert (found.uid, found.gid, found.nlink) == (5, 6, 1)


@pytest.mark.parametrize("mountpoint", ["relative", ""])
def test_a_relative_mountpoint_is_a_mistake(store: Path, mountpoint: str) -> None:
    with pytest.raises(ValueError, match="expected an absolute path"):
        Scene(store, mountpoint=mountpoint)
