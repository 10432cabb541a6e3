"""``images/``: what can be entered, what is listed, and what the directory of an image holds."""

import json
import os
import stat
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from layerfs.errors import (
    DiffIdMismatch,
    ImageError,
    InvalidDocument,
    PlatformMissing,
    StoreDamaged,
    UnsupportedImage,
)
from layerfs.needs import DocumentNeed, LayersNeed, StackNeed, TagNeed
from layerfs.oci import Digest, Platform, Repository
from layerfs.view import tree
from layerfs.view.nodes import FOREVER, Node
from tests.support.images import directory, file, image, index, layer, to_json
from tests.view.scene import AMD64, ARM64, DEMO, Scene, made, names, read, stack_id

BASE = made(directory("etc"), file("etc/motd", b"hi"), command="ADD base /")
TOP = made(file("new"), command="RUN top")
IMAGE = image(BASE.built, TOP.built, platform=AMD64)
FOREIGN = image(BASE.built, platform=ARM64)
INDEX = index(FOREIGN, IMAGE)

EVERY_PART = {"config.json", "history", "layers", "lowerdir", "lowerdirs", "manifest.json", "rootfs"}


def listed(node: Node) -> set[str]:
    return {name.decode() for name in names(node.entries())}


def follow(scene: Scene, path: str, link: Node) -> Node:
    """Return what *link*, which stands at *path*, leads to."""
    target = link.readlink()
    assert isinstance(target, bytes)
    full = os.path.normpath(os.path.join(os.path.dirname(path), os.fsdecode(target)))
    assert not full.startswith("..")
    return scene.node(*full.split("/"))


# Registries, repositories, tags


@pytest.mark.parametrize(
    ("age", "is_old"),
    [(0, False), (50, False), (61, True), (-50, False), (-61, True), (-365 * 24 * 3600, True)],
    ids=["new", "not yet", "old", "clocks differ a little", "clock back a minute", "clock back a year"],
)
def test_tag_ttl_counts_also_after_the_clock_went_back(scene: Scene, age: float, is_old: bool) -> None:
    tag = DEMO.with_tag("latest")
    scene.storage.refs.write(tag, IMAGE.digest, datetime.now(UTC) - timedelta(seconds=age))
    scene.tree = tree.build(scene.storage, scene.mountpoint, scene.platform, scene.status, tag_ttl=60)

    found = scene.node("images", "localhost:5000", "team", "demo:latest").readlink()

    assert found == (TagNeed(tag) if is_old else f"demo@{IMAGE.digest}".encode())


def test_an_empty_store_lists_nothing_and_lets_everything_be_entered(scene: Scene) -> None:
    assert listed(scene.node("images")) == set()
    assert listed(scene.node("images", "ghcr.io", "any", "thing")) == set()
    assert stat.S_ISDIR(scene.node("images", "ghcr.io", "any", "thing").attributes().mode)


def test_listings_show_what_tags_name(scene: Scene) -> None:
    scene.knows(IMAGE, "latest")
    scene.knows(IMAGE, "v1")
    scene.storage.refs.write(DEMO.with_tag("unfetched"), Digest.of(b"unfetched"))
    scene.knows(FOREIGN, "x", Repository.of("localhost:5000", "team/demo/deeper"))
    scene.knows(FOREIGN, "x", Repository.of("ghcr.io", "top"))
    assert listed(scene.node("images")) == {"localhost:5000", "ghcr.io"}
    assert listed(scene.node("images", "localhost:5000")) == {"team"}
    assert listed(scene.node("images", "localhost:5000", "team")) == {
        "demo",
        "demo:latest",
        "demo:v1",
        "demo:unfetched",
        f"demo@{IMAGE.digest}",
    }
    assert listed(scene.node("images", "ghcr.io")) == {"top:x", f"top@{FOREIGN.digest}"}


@pytest.mark.allow_warnings
def test_an_image_whose_documents_are_damaged_is_not_listed_but_says_so_when_entered(scene: Scene) -> None:
    scene.knows(IMAGE)
    scene.storage.manifest_path(IMAGE.digest).write_bytes(b"{}")
    scene = Scene(scene.storage.images_dir)
    assert listed(scene.node("images", "localhost:5000", "team")) == {"demo:latest"}
    assert listed(scene.node("lower")) == set()
    with pytest.raises(StoreDamaged):
        scene.image(IMAGE).entries()


@pytest.mark.allow_warnings
def test_a_tag_that_cannot_be_read_is_not_listed_and_is_resolved_again(scene: Scene) -> None:
    scene.knows(IMAGE)
    (scene.storage.images_dir / "refs" / "localhost:5000" / "team" / "demo:latest").write_bytes(b"rubbish")
    assert listed(scene.node("images", "localhost:5000", "team")) == set()
    link = scene.node("images", "localhost:5000", "team", "demo:latest")
    assert link.readlink() == TagNeed(DEMO.with_tag("latest"))


def test_a_lookup_gives_the_same_node_as_the_listing(scene: Scene) -> None:
    scene.knows(IMAGE)
    for path in (("images",), ("images", "localhost:5000"), ("images", "localhost:5000", "team")):
        node = scene.node(*path)
        entries = node.entries()
        assert isinstance(entries, list)
        assert entries
        for name, child in entries:
            assert node.lookup(name) is child


def test_a_tag_that_is_known_leads_to_its_image(scene: Scene) -> None:
    scene.knows(IMAGE)
    path = "images/localhost:5000/team/demo:latest"
    link = scene.node(*path.split("/"))
    assert follow(scene, path, link) is scene.image(IMAGE)
    assert link.attributes().size == len(link.readlink())  # type: ignore[arg-type]  # it is known
    assert link.attributes().mode == stat.S_IFLNK | 0o777


def test_a_tag_that_is_unknown_has_its_size_before_it_is_resolved(scene: Scene) -> None:
    link = scene.node("images", "localhost:5000", "team", "demo:latest")
    before = link.attributes()
    assert link.readlink() == TagNeed(DEMO.with_tag("latest"))
    scene.knows(IMAGE)
    assert link.attributes().size == before.size


def test_a_tag_is_looked_at_again_after_a_moment(scene: Scene) -> None:
    link = scene.node("images", "localhost:5000", "team", "demo:latest")
    assert 0 < link.entry_timeout <= 1
    assert 0 < link.attribute_timeout <= 1
    scene.knows(IMAGE)
    assert link.readlink() == f"demo@{IMAGE.digest}".encode()
    scene.storage.refs.write(DEMO.with_tag("latest"), FOREIGN.digest)
    assert link.readlink() == f"demo@{FOREIGN.digest}".encode()


@pytest.mark.parametrize(
    ("path", "target"),
    [
        (["index.docker.io"], b"docker.io"),
        (["docker.io", "alpine:3"], b"library/alpine:3"),
        (["docker.io", f"alpine@{IMAGE.digest}"], f"library/alpine@{IMAGE.digest}".encode()),
        (["ghcr.io", "a", f"b:1@{IMAGE.digest}"], f"b@{IMAGE.digest}".encode()),
    ],
)
def test_other_spellings_are_links_that_ask_nobody(scene: Scene, path: list[str], target: bytes) -> None:
    link = scene.node("images", *path)
    assert link.readlink() == target
    assert link.attributes().size == len(target)
    assert link.entry_timeout == FOREVER


# The directory of an image


@pytest.fixture
def known(scene: Scene) -> Scene:
    scene.knows(IMAGE)
    return scene


def test_an_image_has_its_documents_as_served(known: Scene) -> None:
    assert listed(known.image(IMAGE)) == EVERY_PART
    assert read(known.image(IMAGE, "manifest.json")) == IMAGE.manifest
    assert read(known.image(IMAGE, "config.json")) == IMAGE.config


@pytest.mark.parametrize("name", ["manifest.json", "config.json", "history", "lowerdir", "lowerdirs"])
def test_sizes_are_right_before_a_file_is_opened(known: Scene, name: str) -> None:
    node = known.image(IMAGE, name)
    size = node.attributes().size
    assert size == len(read(node))
    assert node.attributes().blocks == (size + 511) // 512
    assert node.attributes().mtime_ns == 1704067200 * 10**9, "the image's own time of creation"


def test_lookups_in_an_image_give_the_nodes_of_its_listing(known: Scene) -> None:
    for top in (known.image(IMAGE), known.image(IMAGE, "layers")):
        entries = top.entries()
        assert isinstance(entries, list)
        assert all(top.lookup(name) is node for name, node in entries)


def test_layer_links_lead_to_layers_base_first(known: Scene) -> None:
    top = f"images/localhost:5000/team/demo@{IMAGE.digest}"
    assert listed(known.image(IMAGE, "layers")) == {"00", "01"}
    for number, one in enumerate((BASE, TOP)):
        link = known.image(IMAGE, "layers", f"{number:02}")
        assert follow(known, f"{top}/layers/{number:02}", link) is known.layer(one)
    rootfs = known.image(IMAGE, "rootfs")
    assert follow(known, f"{top}/rootfs", rootfs) is known.node("rootfs", stack_id(BASE, TOP))


@pytest.mark.parametrize("name", ["0", "1", "2", "000", "+1", "02", "\N{ARABIC-INDIC DIGIT ONE}", "-1", ""])
def test_a_layer_has_one_number(known: Scene, name: str) -> None:
    assert known.image(IMAGE, "layers").lookup(name.encode()) is None


def test_lowerdir_names_what_is_below_the_mountpoint_and_escapes_it(store: Path) -> None:
    scene = Scene(store, mountpoint="/mnt/a b:c,d\\e/")
    scene.knows(IMAGE)
    ids = [stack_id(BASE, TOP), TOP.digest.short_id, BASE.digest.short_id]
    assert read(scene.image(IMAGE, "lowerdir")) == b"lowerdir=%s\n" % b":".join(
        rb"/mnt/a b\:c\,d\\e/lower/%s" % id_.encode() for id_ in ids
    )
    assert read(scene.image(IMAGE, "lowerdirs")) == b"".join(
        rb"/mnt/a b:c,d\e/lower/%s" % id_.encode() + b"\n" for id_ in ids
    )
    for id_ in ids:
        assert scene.node("lower", id_) is not None


def test_an_image_without_layers_has_a_lowerdir_of_its_cover_alone(scene: Scene) -> None:
    empty = image(platform=AMD64)
    scene.knows(empty)
    assert read(scene.image(empty, "lowerdirs")) == f"/mnt/images/lower/{stack_id()}\n".encode()
    assert listed(scene.image(empty, "layers")) == set()
    cover = scene.has_cover()
    assert scene.node("lower", stack_id()).readlink() == os.fsencode(cover)


def test_history_changes_when_a_layer_arrives(known: Scene) -> None:
    node = known.image(IMAGE, "history")
    assert node.attribute_timeout == 0
    assert read(node).decode().splitlines()[0].split() == [
        "00",
        str(BASE.built.size),
        "B",
        "absent",
        "ADD",
        "base",
        "/",
    ]
    known.has_blob(BASE)
    assert b"fetched  ADD base /" in read(node)


def test_what_an_image_does_not_have_is_absent_for_ever(known: Scene) -> None:
    node = known.image(IMAGE)
    assert node.lookup(b"index.json") is None
    assert node.lookup(b".git") is None
    assert node.negative_timeout == FOREVER


def test_a_forgotten_image_is_read_again(known: Scene) -> None:
    node = known.image(IMAGE)
    node.entries()
    node.forgotten()
    assert listed(node) == EVERY_PART


# Indexes


def test_an_index_shows_the_image_of_this_machine_and_a_link_for_each_platform(scene: Scene) -> None:
    scene.knows(INDEX)
    node = scene.image(INDEX)
    assert listed(node) == EVERY_PART | {"index.json", "platforms"}
    assert read(scene.image(INDEX, "index.json")) == INDEX.manifest
    assert read(scene.image(INDEX, "manifest.json")) == IMAGE.manifest
    assert listed(scene.image(INDEX, "platforms")) == {"linux-amd64", "linux-arm64"}
    top = f"images/localhost:5000/team/demo@{INDEX.digest}/platforms"
    for name, one in (("linux-amd64", IMAGE), ("linux-arm64", FOREIGN)):
        assert follow(scene, f"{top}/{name}", scene.image(INDEX, "platforms", name)) is scene.image(one)
    assert scene.image(INDEX, "platforms").lookup(b"linux-s390x") is None


def test_the_image_of_another_platform_can_be_entered_too(scene: Scene) -> None:
    scene.knows(INDEX)
    assert read(scene.image(FOREIGN, "config.json")) == FOREIGN.config


def test_an_index_without_this_platform_shows_itself_and_says_why_not_more(store: Path) -> None:
    scene = Scene(store, platform=Platform("linux", "riscv64"))
    scene.knows(INDEX)
    assert listed(scene.image(INDEX)) == {"index.json", "platforms"}
    for part in EVERY_PART:
        with pytest.raises(PlatformMissing, match="no image for linux/riscv64"):
            scene.image(INDEX).lookup(part.encode())
    assert scene.image(INDEX).lookup(b"other") is None


def test_indexes_inside_each_other_are_followed_only_so_far(scene: Scene) -> None:
    inner: bytes = INDEX.manifest
    for _ in range(5):
        digest = Digest.of(inner)
        scene.storage.save_manifest(inner, digest)
        inner = to_json(
            {
                "schemaVersion": 2,
                "manifests": [
                    {
                        "mediaType": "application/vnd.oci.image.index.v1+json",
                        "digest": str(digest),
                        "size": len(inner),
                        "platform": {"os": "linux", "architecture": "amd64"},
                    }
                ],
            }
        )
    scene.storage.save_manifest(inner, Digest.of(inner))
    scene.storage.refs.write(DEMO.with_tag("deep"), Digest.of(inner))
    node = scene.node("images", "localhost:5000", "team", f"demo@{Digest.of(inner)}")
    assert listed(node) == {"index.json", "platforms"}
    with pytest.raises(ImageError, match="4 indexes inside each other"):
        node.lookup(b"manifest.json")
    assert scene.node("layers").lookup(BASE.digest.name.encode()) is None


def platforms_of(scene: Scene, *platforms: dict[str, str]) -> Node:
    """Return ``platforms/`` of an index with entries for *platforms*."""
    entry = {
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "digest": str(IMAGE.digest),
        "size": len(IMAGE.manifest),
    }
    manifests = [entry | {"platform": {"architecture": ""} | platform} for platform in platforms]
    odd = to_json({"schemaVersion": 2, "manifests": manifests})
    scene.storage.save_manifest(odd, Digest.of(odd))
    return scene.node("images", "localhost:5000", "team", f"demo@{Digest.of(odd)}", "platforms")


def test_a_platform_that_is_no_file_name_is_made_one(scene: Scene) -> None:
    node = platforms_of(scene, {"os": "a\0/../b\x1b\n", "architecture": "x" * 300})
    (name,) = names(node.entries())
    assert name.decode().isprintable()
    assert b"/" not in name
    assert len(name) <= 255
    assert isinstance(node.lookup(name), Node)


def test_no_platform_is_a_directory_s_own_name(scene: Scene) -> None:
    odd = [{"os": "."}, {"os": ".."}, {"os": ".", "architecture": "."}, {"os": "\U0001f600" * 80}]
    node = platforms_of(scene, *odd, {"os": "\U0001f600" * 80, "architecture": "é" * 80})
    assert listed(node) == {".-."}
    assert [node.lookup(name) for name in (b".", b"..", b"")] == [None] * 3


# Images that are wrong


def test_an_artifact_shows_its_manifest_and_says_why_not_more(scene: Scene) -> None:
    document = to_json(
        {
            "schemaVersion": 2,
            "artifactType": "application/example",
            "config": {
                "mediaType": "application/vnd.oci.empty.v1+json",
                "digest": str(Digest.of(b"{}")),
                "size": 2,
            },
            "layers": [],
        }
    )
    artifact = Digest.of(document)
    scene.storage.save_manifest(document, artifact)
    scene.storage.refs.write(DEMO.with_tag("artifact"), artifact)
    node = scene.node("images", "localhost:5000", "team", f"demo@{artifact}")
    assert listed(node) == {"manifest.json"}
    assert listed(scene.node("lower")) == set()
    with pytest.raises(UnsupportedImage):
        node.lookup(b"rootfs")


def test_a_config_that_does_not_fit_the_manifest_shows_the_manifest_alone(scene: Scene) -> None:
    lying = image(BASE.built, platform=AMD64, diff_ids=[])
    scene.knows(lying)
    assert listed(scene.image(lying)) == {"manifest.json"}
    with pytest.raises(InvalidDocument, match=r"1 layers, but its config .* has 0"):
        scene.image(lying, "config.json")
    with pytest.raises(InvalidDocument):
        scene.layer(BASE, "diff").entries()
    for path in (("rootfs",), ("lower",)):
        assert listed(scene.node(*path)) == set()
        assert scene.node(*path, stack_id(BASE)).attributes() is not None
    with pytest.raises(InvalidDocument):
        scene.node("rootfs", stack_id(BASE)).entries()
    assert json.loads(read(scene.layer(BASE, "layer.json")))["diff_id"] is None


def test_an_image_that_lies_about_a_layer_does_not_get_it(scene: Scene) -> None:
    lying = image(BASE.built, TOP.built, platform=AMD64, diff_ids=[TOP.built.diff_id, TOP.built.diff_id])
    scene.knows(lying)
    link = scene.image(lying, "layers", "00")
    assert isinstance(link.readlink(), bytes), "nobody knows yet"
    scene.has(BASE, TOP)
    for path in (("layers", "00"), ("rootfs",)):
        with pytest.raises(DiffIdMismatch, match=f"{BASE.built.diff_id} .expected {TOP.built.diff_id}"):
            scene.image(lying, *path).readlink()
    assert isinstance(scene.image(lying, "layers", "01").readlink(), bytes)


def test_what_is_no_manifest_cannot_be_entered(scene: Scene) -> None:
    scene.storage.save_manifest(b"[]", Digest.of(b"[]"))
    with pytest.raises(InvalidDocument):
        scene.node("images", "localhost:5000", "team", f"demo@{Digest.of(b'[]')}").entries()


# Which image a layer is fetched for


def needed(scene: Scene) -> LayersNeed:
    need = scene.layer(BASE, "diff").entries()
    assert isinstance(need, LayersNeed)
    return need


def test_a_layer_is_fetched_for_the_image_whose_link_was_followed_last(scene: Scene) -> None:
    scene.knows(IMAGE)
    scene.knows(FOREIGN, "other")
    for built in (IMAGE, FOREIGN, IMAGE):
        scene.image(built, "layers", "00").readlink()
        assert needed(scene).image.manifest.digest == built.digest


@pytest.mark.parametrize("part", ["lowerdir", "lowerdirs", "rootfs"])
def test_a_stack_is_fetched_for_the_image_that_was_used_last(scene: Scene, part: str) -> None:
    twin = image(BASE.built, TOP.built, platform=AMD64, annotations={"twin": "yes"})
    scene.knows(IMAGE)
    scene.knows(twin, "twin", Repository.of("ghcr.io", "twin"))
    for built, repository in (
        (twin, Repository.of("ghcr.io", "twin")),
        (IMAGE, DEMO),
        (twin, Repository.of("ghcr.io", "twin")),
    ):
        node = scene.image(built, part, repository=repository)
        if part == "rootfs":
            node.readlink()
        else:
            node.open()
        assert needed(scene).image.manifest.digest == built.digest
        for path in (("rootfs", stack_id(BASE, TOP)), ("lower", stack_id(BASE, TOP))):
            found = scene.node(*path)
            need = found.entries() if path[0] == "rootfs" else found.readlink()
            assert isinstance(need, LayersNeed | StackNeed)
            assert need.repository == repository
            assert need.image.manifest.digest == built.digest


def test_what_the_refs_name_does_not_replace_what_was_used(scene: Scene) -> None:
    scene.knows(IMAGE, None)
    scene.image(IMAGE, "layers", "00").readlink()
    scene.knows(FOREIGN, "other")
    other = layer(file("other"))
    scene.node("layers").lookup(other.digest.name.encode())  # unknown: the refs are read
    scene.image(FOREIGN).entries()
    assert needed(scene).image.manifest.digest == IMAGE.digest


def test_the_base_of_a_repeated_layer_is_fetched_as_its_lowest_occurrence(scene: Scene) -> None:
    scene.knows(image(TOP.built, BASE.built, BASE.built, platform=AMD64))
    assert needed(scene).numbers == (1,)


def test_many_images_stay_known_without_staying_in_memory(scene: Scene) -> None:
    builds = [image(BASE.built, platform=AMD64, annotations={"n": str(number)}) for number in range(70)]
    for number, built in enumerate(builds):
        scene.knows(built, f"v{number}")
        scene.image(built).entries()
    need = needed(scene)
    assert need.image.manifest.digest == builds[0].digest


def test_an_index_and_all_that_the_store_has_of_it_makes_layers_known(scene: Scene) -> None:
    scene.knows(INDEX)
    assert scene.layer(BASE) is not None
    assert scene.node("rootfs", stack_id(BASE)) is not None, "of the foreign image"


def test_a_tag_whose_manifest_comes_later_is_looked_at_again(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("layerfs.catalog.known._RESCAN_COST", 0)
    scene.storage.refs.write(DEMO.with_tag("latest"), IMAGE.digest)
    layers = scene.node("layers")
    assert layers.lookup(BASE.digest.name.encode()) is None
    scene.knows(IMAGE)
    assert layers.lookup(BASE.digest.name.encode()) is not None


def test_the_documents_of_one_image_are_needed_from_the_repository_that_was_named(scene: Scene) -> None:
    other = Repository.of("ghcr.io", "demo")
    assert scene.image(IMAGE, repository=other).entries() == DocumentNeed(other, IMAGE.digest)


def test_only_what_the_store_knows_is_remembered_by_the_kernel(scene: Scene) -> None:
    """Any number of names is there by grammar; those that stand for nothing here may be forgotten."""
    built = image(layer(file("a")), platform=AMD64)
    scene.knows(built)
    images, team = scene.node("images"), scene.node("images", "localhost:5000", "team")
    known, other = f"demo@{built.digest}", f"demo@{Digest.of(b'other')}"

    assert not images.is_passing(scene.node("images", "localhost:5000"))
    assert images.is_passing(scene.node("images", "registry.example"))
    for name, passes in (
        ("demo", True),
        ("demo:latest", False),
        ("demo:none", True),
        (known, False),
        (other, True),
    ):
        child = team.lookup(name.encode())
        assert isinstance(child, Node)
        assert team.is_passing(child) is passes, name
    assert not scene.node("images", "localhost:5000").is_passing(team)
    assert images.is_passing(scene.node("images", "index.docker.io")), "another spelling"
    assert not scene.tree.root.is_passing(images), "of other directories all is remembered"
