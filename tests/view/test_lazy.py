"""Lazy layers in the mount: what waits for what, and that it shows what the extracted layer shows."""

import gc
import gzip
import json
import os
from dataclasses import replace
from errno import EIO
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings

from layerfs.errors import InvalidToc
from layerfs.needs import BlobNeed, FileNeed, LayersNeed, Need, TocNeed
from layerfs.oci import Digest, Image, ImageConfig, Manifest, parse_manifest
from layerfs.oci.image import LayerKey
from layerfs.view.history import HistoryText
from layerfs.view.nodes import Node
from layerfs.view.texts import human_size
from tests.support.clients import wait_until
from tests.support.images import (
    BuiltImage,
    directory,
    file,
    hardlink,
    image,
    layer,
    opaque,
    symlink,
    tar,
    whiteout,
)  # fmt: skip
from tests.support.stacks import Stack, stacks
from tests.support.tocs import LazyLayer, estargz, tellable
from tests.view.lazy_scene import Provider
from tests.view.scene import DEMO, Scene, names, read, show

pytestmark = pytest.mark.needs_root

BASE = estargz(
    tar(
        [
            directory("etc", 0o750, uid=3, gid=4),
            file("etc/a", b"content", 0o4755, uid=7, xattrs={"user.note": b"x"}),
            hardlink("etc/b", "etc/a"),
            file("etc/empty"),
            file("etc/gone", b"gone"),
            file("implied/large", bytes(100_000)),
            symlink("link", "etc/a"),
        ]
    ),
    chunk=40_000,
)
TOP = estargz(tar([whiteout("etc/gone"), opaque("implied"), file("implied/new", b"content")]))
PLAIN = layer(file("plain", b"plain"))
IMAGE = image(BASE.built, PLAIN, TOP.built)
FORMS = ("diff", "lower")
BASE_TOC = gzip.decompress(BASE.toc)[512:].rstrip(b"\0")
"""eStargz has its TOC as a file of the layer."""


def parsed(built: BuiltImage) -> Image:
    """Return an image as the catalog knows it."""
    manifest = parse_manifest(built.manifest, built.digest)
    assert isinstance(manifest, Manifest)
    return Image.of(manifest, ImageConfig.parse(built.config))


def key(one: LazyLayer) -> LayerKey:
    """Return what decides what a layer is shown as."""
    return LayerKey(one.digest, one.place.digest)


def root(scene: Scene, one: LazyLayer, form: str = "diff") -> Node:
    """Return the root of a lazy layer."""
    return scene.node("layers", key(one).name, form)


@pytest.fixture
def provider(scene: Scene) -> Provider:
    """The scene knows the image and nothing of its layers."""
    scene.knows(IMAGE)
    return Provider(scene, (BASE, TOP))


def test_links_of_an_image_lead_to_names_that_its_toc_is_in(scene: Scene, provider: Provider) -> None:
    targets = [scene.image(IMAGE, "layers", name).readlink() for name in ("00", "01", "02")]
    assert targets == [
        f"../../../../../layers/{name}".encode()
        for name in (key(BASE).name, PLAIN.digest.name, key(TOP).name)
    ]
    assert scene.image(IMAGE, "rootfs").readlink() == b"../../../../rootfs/%s" % (
        parsed(IMAGE).view.short_id.encode()
    )


@pytest.mark.parametrize("form", FORMS)
def test_looking_waits_for_the_toc_and_reading_for_the_file(
    scene: Scene, provider: Provider, form: str
) -> None:
    made, need = root(scene, BASE, form), TocNeed(DEMO, parsed(IMAGE), (0,))
    assert (made.lookup(b"etc"), made.entries()) == (need, need)
    assert (made.attribute_timeout, made.xattrs()) == (0, {})

    provider.meet(need)

    etc = scene.node("layers", key(BASE).name, form, "etc")
    assert names(etc.entries()) == [b"a", b"b", b"empty", b"gone"]
    assert etc.attributes().uid == 3
    one = etc.lookup(b"a")
    assert isinstance(one, Node)
    assert (one.attributes().size, one.attributes().nlink, one.attributes().blocks) == (7, 2, 1)
    assert dict(one.xattrs()) == {b"user.note": b"x"}
    wanted = FileNeed(DEMO, parsed(IMAGE), 0, BASE.place.digest, Digest.of(b"content").object_id)
    assert one.open() == wanted
    provider.meet(wanted)
    assert read(one) == b"content"


def test_what_is_empty_or_here_already_waits_for_nothing(scene: Scene, provider: Provider) -> None:
    for one in (BASE, TOP):
        provider.make_skeleton(one)
    assert read(scene.node("layers", key(BASE).name, "diff", "etc", "empty")) == b""
    provider.opened(scene.node("layers", key(BASE).name, "diff", "etc", "a"))
    assert read(scene.node("layers", key(TOP).name, "diff", "implied", "new")) == b"content"
    assert len(provider.met) == 1


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("one", [BASE, TOP], ids=["base", "top"])
def test_a_lazy_layer_shows_what_the_extracted_one_shows(
    scene: Scene, provider: Provider, one: LazyLayer, form: str
) -> None:
    provider.make_skeleton(one)
    lazy = show(root(scene, one, form), provider.opened)
    provider.extract(one)
    assert lazy == show(scene.node("layers", one.digest.name, form))


def test_a_merged_root_needs_all_that_is_missing_and_shows_what_whole_layers_show(
    scene: Scene, provider: Provider
) -> None:
    merged = scene.node("rootfs", parsed(IMAGE).view.short_id)
    assert merged.lookup(b"etc") == TocNeed(DEMO, parsed(IMAGE), (0, 1, 2))
    provider.make_skeleton(BASE)
    assert merged.entries() == TocNeed(DEMO, parsed(IMAGE), (1, 2))
    with scene.storage.stage_layer_download(PLAIN.digest, PLAIN.size) as staged:
        staged.write(PLAIN.blob)
        staged.commit()
    scene.storage.extract_layer(PLAIN.digest, scene.storage.layer_tarball_path(PLAIN.digest))
    provider.make_skeleton(TOP)
    lazy = show(merged, provider.opened)
    for one in (BASE, TOP):
        provider.extract(one)
    assert lazy == show(scene.node("rootfs", parsed(IMAGE).stack.short_id))


def test_nobody_lists_what_a_walker_would_have_to_fetch(scene: Scene, provider: Provider) -> None:
    for one in (BASE, TOP):
        provider.make_skeleton(one)
    assert isinstance(root(scene, BASE).lookup(b"etc"), Node)
    assert isinstance(scene.node("rootfs", parsed(IMAGE).view.short_id).lookup(b"etc"), TocNeed)
    assert names(scene.node("layers").entries()) == []
    assert names(scene.node("rootfs").entries()) == []
    assert names(scene.node("lower").entries()) == []


def test_a_toc_that_no_image_claims_has_no_name(scene: Scene, provider: Provider) -> None:
    assert scene.node("layers").lookup(b"sha256-x.toc-y") is None
    assert scene.node("layers").lookup(f"{BASE.digest.name}.toc-{'a' * 26}".encode()) is None


def test_what_must_be_whole_needs_the_layer(scene: Scene, provider: Provider) -> None:
    provider.make_skeleton(BASE)
    need = LayersNeed(DEMO, parsed(IMAGE), (0,))
    assert scene.node("lower", BASE.digest.short_id).readlink() == need
    assert scene.node("layers", BASE.digest.name, "diff").lookup(b"etc") == need
    assert isinstance(scene.node("layers", key(BASE).name, "blob").open(), BlobNeed)


def test_numbers_stay_while_a_layer_becomes_whole_and_bytes_come_from_it(
    scene: Scene, provider: Provider
) -> None:
    provider.make_skeleton(BASE)
    before = root(scene, BASE)
    numbers = {name: node.ino for name, node in listed(before)}
    etc = before.lookup(b"etc")
    assert isinstance(etc, Node)
    one = etc.lookup(b"a")
    assert isinstance(one, Node)
    assert isinstance(one.open(), FileNeed)

    provider.extract(BASE)

    assert {name: node.ino for name, node in listed(root(scene, BASE))} == numbers
    assert isinstance(one.open(), FileNeed), "it may be another layer than the TOC says"
    scene.storage.lazy.tocs.note_equal(BASE.place.digest, BASE.digest)
    assert read(one) == b"content"
    assert etc.lookup(b"a") is one
    del before, etc, one
    gc.collect()
    scene.storage.lazy.skeletons.discard(BASE.place.digest)
    assert read(scene.node("layers", key(BASE).name, "diff", "etc", "a")) == b"content"
    assert provider.met == []


def test_a_skeleton_serves_the_blob_that_it_was_made_for(scene: Scene, provider: Provider) -> None:
    """Any image may claim the TOC of another, for a blob in which it lies elsewhere."""
    provider.make_skeleton(BASE, TOP.digest)
    assert root(scene, BASE).lookup(b"etc") == TocNeed(DEMO, parsed(IMAGE), (0,))


def listed(node: Node) -> list[tuple[bytes, Node]]:
    """Return all entries of a directory."""
    found = node.entries()
    assert not isinstance(found, Need)
    return list(found)


def test_a_layer_that_is_whole_needs_no_toc(scene: Scene, provider: Provider) -> None:
    provider.extract(BASE)
    assert show(root(scene, BASE)) == show(scene.node("layers", BASE.digest.name, "diff"))
    scene.storage.discard_layer(BASE.digest)
    assert root(scene, BASE).lookup(b"etc") == TocNeed(DEMO, parsed(IMAGE), (0,))


def test_a_skeleton_that_was_removed_is_waited_for_again(scene: Scene, provider: Provider) -> None:
    provider.make_skeleton(BASE)
    etc = scene.node("layers", key(BASE).name, "diff", "etc")
    scene.storage.lazy.skeletons.discard(BASE.place.digest)
    need = TocNeed(DEMO, parsed(IMAGE), (0,))
    assert etc.lookup(b"a") == need
    provider.meet(need)
    assert isinstance(etc.lookup(b"a"), Node)


def test_an_image_cannot_claim_a_toc_for_the_blob_of_another(scene: Scene) -> None:
    honest = layer(file("etc/shadow", b"honest"))
    evil = estargz(tar([file("etc/shadow", b"evil")]))
    lying = replace(honest, annotations=evil.annotations)
    scene.knows(image(lying), "evil")
    scene.knows(image(honest), "honest")
    liar, provider = LayerKey(honest.digest, evil.place.digest), Provider(scene, (evil,))
    provider.make_skeleton(evil, honest.digest)
    shown = scene.node("layers", liar.name, "diff", "etc", "shadow")
    assert shown.attributes().size == 4

    target = scene.image(image(honest), "layers", "00").readlink()
    assert target == f"../../../../../layers/{honest.digest.name}".encode()
    assert isinstance(scene.node("layers", honest.digest.name, "diff").lookup(b"etc"), LayersNeed)
    rootfs = scene.image(image(honest), "rootfs").readlink()
    assert rootfs != scene.image(image(lying), "rootfs").readlink()


def test_what_differs_from_its_toc_is_shown_to_nobody(scene: Scene, provider: Provider) -> None:
    provider.make_skeleton(BASE)
    one = scene.node("layers", key(BASE).name, "diff", "etc", "a")
    provider.opened(one)
    scene.storage.lazy.tocs.note_difference(BASE.place.digest, BASE.digest, "etc/a: mode 0644")
    with pytest.raises(InvalidToc, match="etc/a: mode 0644"):
        one.open()
    scene.mount()
    with pytest.raises(InvalidToc, match="etc/a: mode 0644"):
        root(scene, BASE).lookup(b"etc")
    with pytest.raises(InvalidToc, match="etc/a: mode 0644"):
        scene.node("rootfs", parsed(IMAGE).view.short_id).lookup(b"etc")
    provider.extract(BASE)
    assert read(scene.node("layers", BASE.digest.name, "diff", "etc", "a")) == b"content"


def test_bytes_of_another_size_than_the_toc_says_are_refused(scene: Scene, provider: Provider) -> None:
    provider.make_skeleton(BASE)
    one = scene.node("layers", key(BASE).name, "diff", "etc", "a")
    provider.opened(one)
    found = scene.storage.lazy.objects.find(Digest.of(b"content").object_id)
    assert found is not None
    status = os.stat(found.path)
    os.truncate(found.path, 3)
    os.utime(found.path, ns=(status.st_atime_ns, status.st_mtime_ns))
    with pytest.raises(InvalidToc, match=r"etc/[ab]: 3 bytes"):
        one.open()


def test_a_stub_that_lost_its_attribute_says_so(scene: Scene, provider: Provider) -> None:
    provider.make_skeleton(BASE)
    skeleton = scene.storage.lazy.open_skeleton(BASE.place.digest)
    assert skeleton is not None
    os.removexattr(skeleton.path / "etc/gone", "trusted.overlay.redirect")
    with pytest.raises(OSError, match="lost its attribute") as failed:
        scene.node("layers", key(BASE).name, "diff", "etc", "gone").open()
    assert failed.value.errno == EIO


def test_where_layers_must_be_whole_no_skeleton_is_shown(scene: Scene, provider: Provider) -> None:
    provider.make_skeleton(BASE)
    scene.mount(lazy=False)
    assert root(scene, BASE).lookup(b"etc") == TocNeed(DEMO, parsed(IMAGE), (0,))
    provider.extract(BASE)
    assert isinstance(root(scene, BASE).lookup(b"etc"), Node)


@given(stack=stacks(max_layers=4))
@settings(max_examples=20, deadline=None, suppress_health_check=list(HealthCheck))
def test_random_stacks(tmp_path_factory: pytest.TempPathFactory, stack: Stack) -> None:
    compare(tmp_path_factory, stack)


@pytest.mark.long
@given(stack=stacks())
@settings(max_examples=200, deadline=None, suppress_health_check=list(HealthCheck))
def test_many_random_stacks(tmp_path_factory: pytest.TempPathFactory, stack: Stack) -> None:
    compare(tmp_path_factory, stack)


def compare(directories: pytest.TempPathFactory, stack: Stack) -> None:
    """Show a stack by its TOCs, then extracted: in each form of each layer, and merged, all is equal."""
    lazies = tuple(estargz(tar(tellable(entries)), chunk=3) for entries in stack.layers)
    built = image(*(one.built for one in lazies))
    scene = Scene(directories.mktemp("stack") / "store")
    try:
        scene.knows(built)
        provider = Provider(scene, lazies)
        merged = scene.node("rootfs", parsed(built).view.short_id)
        need = merged.entries()
        assert isinstance(need, TocNeed)
        provider.meet(need)
        found = {
            (one.digest, form): show(root(scene, one, form), provider.opened)
            for one in lazies
            for form in FORMS
        }
        all_of_it = show(merged, provider.opened)
        for one in {one.digest: one for one in lazies}.values():
            provider.extract(one)
        for (digest, form), seen in found.items():
            assert seen == show(scene.node("layers", digest.name, form)), (digest, form)
        assert all_of_it == show(scene.node("rootfs", parsed(built).stack.short_id))
    finally:
        scene.close()


def described(scene: Scene, one: LazyLayer) -> dict[str, Any]:
    """Return what layer.json says of a lazy layer, once all of it was counted."""
    node = scene.node("layers", key(one).name, "layer.json")
    wait_until(lambda: one.place.digest in scene.storage.lazy._counts._known or not skeleton_of(scene, one))
    found: dict[str, Any] = json.loads(read(node))
    return found


def skeleton_of(scene: Scene, one: LazyLayer) -> bool:
    """Say whether the skeleton is here; have its files counted."""
    read(scene.node("layers", key(one).name, "layer.json"))
    return scene.storage.lazy.open_skeleton(one.place.digest) is not None


def test_layer_json_says_how_much_of_a_layer_is_here(scene: Scene, provider: Provider) -> None:
    assert described(scene, BASE)["state"] == "absent"
    provider.make_skeleton(BASE)
    listed_ = described(scene, BASE)
    files = {b"content", b"gone", bytes(100_000), BASE_TOC}
    sizes = sum(map(len, files))
    assert (listed_["state"], listed_["toc"]) == ("toc", str(BASE.place.digest))
    assert listed_["here"] == {"files": 0, "bytes": 0, "of_files": len(files), "of_bytes": sizes}
    assert listed_["whole_because"] is None
    provider.opened(scene.node("layers", key(BASE).name, "diff", "etc", "a"))
    scene.storage.lazy._counts._known.clear()
    partly = described(scene, BASE)
    assert (partly["state"], partly["here"]["files"], partly["here"]["bytes"]) == ("partial", 1, 7)
    provider.extract(BASE)
    assert described(scene, BASE)["state"] == "fetched"


def test_history_says_how_much_of_a_layer_is_here_and_why_one_with_a_toc_is_not_lazy(
    scene: Scene, provider: Provider
) -> None:
    provider.make_skeleton(BASE)
    provider.opened(scene.node("layers", key(BASE).name, "diff", "etc", "a"))
    assert described(scene, BASE)["state"] == "partial"
    first, *_ = read(scene.image(IMAGE, "history")).decode().splitlines()
    sizes = human_size(sum(map(len, {b"content", b"gone", bytes(100_000), BASE_TOC})))
    assert f"  partial: 1 of 4 files, 7 B of {sizes}  " in first
    why = {0: "a bad one", 1: "no TOC", 2: ""}
    text = HistoryText(scene.storage, parsed(IMAGE), lambda layer: why[layer.number])
    said = [line.rpartition("  (not lazy: ")[2] for line in text().decode().splitlines()]
    assert said[0] == "a bad one)"
    assert "not lazy" not in "".join(said[1:])
    why[0] = "a worse one"
    assert "a worse one" in text().decode()


def test_history_says_which_layers_are_listed_and_layer_json_why_one_is_not_lazy(
    scene: Scene, provider: Provider
) -> None:
    provider.make_skeleton(BASE)
    lines = read(scene.image(IMAGE, "history")).decode().splitlines()
    assert [line.split()[3] for line in lines] == ["toc", "absent", "absent"]
    about = json.loads(read(scene.node("layers", PLAIN.digest.name, "layer.json")))
    assert (about["state"], about["toc"], about["whole_because"]) == ("absent", None, "no TOC")
