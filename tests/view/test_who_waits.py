"""The table "who waits" of design.md section 2, each cell: node, operation, state -> now, need or error.

Nothing but what stands here as a need may wait. The states build on each other: an empty store, one that
knows a tag, the documents, a layer, all layers.
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from errno import EINVAL, ENOTDIR

import pytest
from _pytest.mark import ParameterSet

from layerfs.errors import NotInStore
from layerfs.oci import Digest, Image, ImageConfig, Manifest, parse_manifest
from layerfs.view.needs import BlobNeed, DocumentNeed, LayersNeed, Need, StackNeed, TagNeed
from layerfs.view.nodes import Node
from tests.support.images import directory, file, image, index, whiteout
from tests.view.scene import AMD64, ARM64, DEMO, Scene, made, stack_id

BASE = made(directory("etc"), file("etc/passwd", b"root"), command="ADD base /")
TOP = made(directory("etc"), whiteout("etc/passwd"), file("new", b"new"), command="RUN top")
IMAGE = image(BASE.built, TOP.built, platform=AMD64)
FOREIGN = image(BASE.built, platform=ARM64)
INDEX = index(IMAGE, FOREIGN)
STRANGER = made(file("stranger"))

IMAGE_DIR = ("images", "localhost:5000", "team", f"demo@{IMAGE.digest}")
INDEX_DIR = ("images", "localhost:5000", "team", f"demo@{INDEX.digest}")
TAG = ("images", "localhost:5000", "team", "demo:latest")
LAYER_DIR = ("layers", BASE.digest.name)
TOP_DIR = ("layers", TOP.digest.name)
ROOTFS = ("rootfs", stack_id(BASE, TOP))
LOWER = ("lower", BASE.digest.short_id)
COVER = ("lower", stack_id(BASE, TOP))

MANIFEST = parse_manifest(IMAGE.manifest, IMAGE.digest)
assert isinstance(MANIFEST, Manifest)
PARSED = Image.of(MANIFEST, ImageConfig.parse(IMAGE.config))

DOCUMENTS = DocumentNeed(DEMO, IMAGE.digest)
BASE_NEED = LayersNeed(DEMO, PARSED, (0,))
TOP_NEED = LayersNeed(DEMO, PARSED, (1,))
ALL_NEED = LayersNeed(DEMO, PARSED, (0, 1))
STACK = StackNeed(DEMO, PARSED)
BLOB = BlobNeed(DEMO, PARSED.layers[0].descriptor)

NOW = "answers now"
ABSENT = "absent"
STATES = ("empty", "tag", "documents", "layer", "all")


def bring(scene: Scene, state: str) -> Scene:
    """Bring an empty store into *state*."""
    if state in STATES[1:]:
        scene.storage.refs.write(DEMO, "latest", IMAGE.digest)
    if state in STATES[2:]:
        scene.knows(IMAGE)
        scene.knows(INDEX, "index")
    if state in STATES[3:]:
        scene.has(BASE)
    if state in STATES[4:]:
        scene.has(TOP)
        scene.has_cover(BASE, TOP)
    return scene


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Scene]]:
    """A store in each state. Nodes only read, so all tests share them, each with a tree of its own."""
    with ExitStack() as stack:
        yield {
            state: bring(stack.enter_context(closing(Scene(tmp_path_factory.mktemp(state) / "store"))), state)
            for state in STATES
        }


@pytest.fixture
def mounted(stores: dict[str, Scene], state: str) -> Scene:
    stores[state].mount()
    return stores[state]


def lookup(name: str) -> Callable[[Node], object]:
    return lambda node: node.lookup(name.encode())


def attributes(node: Node) -> object:
    node.xattrs()
    return node.attributes()


def listing(node: Node) -> object:
    return node.entries()


def link(node: Node) -> object:
    return node.readlink()


def opening(node: Node) -> object:
    return node.open()


OPERATIONS = {"attributes": attributes, "listing": listing, "link": link, "open": opening}

DIRECTORIES = {
    "root": (),
    "images": ("images",),
    "registry": ("images", "localhost:5000"),
    "repository": ("images", "localhost:5000", "team"),
    "layers": ("layers",),
    "rootfs": ("rootfs",),
    "lower": ("lower",),
    "about": (".layerfs",),
}


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("path", DIRECTORIES.values(), ids=DIRECTORIES)
def test_what_leads_to_images_and_layers_never_waits(path: tuple[str, ...], mounted: Scene) -> None:
    node = mounted.node(*path)
    assert not isinstance(node.entries(), Need)
    assert node.lookup(b".git") is None
    assert node.lookup(b"HEAD") is None
    attributes(node)
    with pytest.raises(OSError, match="not a symlink"):
        node.readlink()
    with pytest.raises(OSError, match="not a regular file"):
        node.open()


Cell = tuple[tuple[str, ...], str | Callable[[Node], object], dict[str, object]]

# The last state that is named holds for those after it.
TABLE: dict[str, Cell] = {
    "tag: attributes": (TAG, "attributes", {"empty": NOW}),
    "tag: readlink": (TAG, "link", {"empty": TagNeed(DEMO.with_tag("latest")), "tag": NOW}),
    "image: attributes": (IMAGE_DIR, "attributes", {"empty": NOW}),
    "image: listing": (IMAGE_DIR, "listing", {"empty": DOCUMENTS, "documents": NOW}),
    "image: lookup inside": (IMAGE_DIR, lookup("config.json"), {"empty": DOCUMENTS, "documents": NOW}),
    "image: absent inside": (IMAGE_DIR, lookup("nothing"), {"empty": DOCUMENTS, "documents": ABSENT}),
    "image: no index.json": (IMAGE_DIR, lookup("index.json"), {"empty": DOCUMENTS, "documents": ABSENT}),
    "index: lookup inside": (
        INDEX_DIR,
        lookup("manifest.json"),
        {"empty": DocumentNeed(DEMO, INDEX.digest), "documents": NOW},
    ),
    "index: platforms": (
        INDEX_DIR,
        lookup("platforms"),
        {"empty": DocumentNeed(DEMO, INDEX.digest), "documents": NOW},
    ),
    "layers/NN: attributes": ((*IMAGE_DIR, "layers", "00"), "attributes", {"documents": NOW}),
    "layers/NN: readlink": ((*IMAGE_DIR, "layers", "01"), "link", {"documents": NOW}),
    "layers: listing": ((*IMAGE_DIR, "layers"), "listing", {"documents": NOW}),
    "layers: absent": ((*IMAGE_DIR, "layers"), lookup("02"), {"documents": ABSENT}),
    "rootfs link: readlink": ((*IMAGE_DIR, "rootfs"), "link", {"documents": NOW}),
    "layers/<digest>: lookup": (("layers",), lookup(BASE.digest.name), {"empty": ABSENT, "documents": NOW}),
    "layers/<digest> of nobody": (("layers",), lookup(STRANGER.digest.name), {"empty": ABSENT}),
    "layers/<digest>: attributes": (LAYER_DIR, "attributes", {"documents": NOW}),
    "layers/<digest>: listing": (LAYER_DIR, "listing", {"documents": NOW}),
    "layers/<digest>: lookup inside": (LAYER_DIR, lookup("diff"), {"documents": NOW}),
    "layers/<digest>: absent inside": (LAYER_DIR, lookup("other"), {"documents": ABSENT}),
    "diff: attributes": ((*LAYER_DIR, "diff"), "attributes", {"documents": NOW}),
    "diff: listing": ((*LAYER_DIR, "diff"), "listing", {"documents": BASE_NEED, "layer": NOW}),
    "diff: lookup inside": ((*LAYER_DIR, "diff"), lookup("etc"), {"documents": BASE_NEED, "layer": NOW}),
    "diff: absent inside": ((*LAYER_DIR, "diff"), lookup("x"), {"documents": BASE_NEED, "layer": ABSENT}),
    "other diff: listing": ((*TOP_DIR, "diff"), "listing", {"documents": TOP_NEED, "all": NOW}),
    "lower: attributes": ((*LAYER_DIR, "lower"), "attributes", {"documents": NOW}),
    "lower: listing": ((*LAYER_DIR, "lower"), "listing", {"documents": BASE_NEED, "layer": NOW}),
    "lower: lookup inside": ((*LAYER_DIR, "lower"), lookup("etc"), {"documents": BASE_NEED, "layer": NOW}),
    "blob: attributes": ((*LAYER_DIR, "blob"), "attributes", {"documents": NOW}),
    "blob: open": ((*LAYER_DIR, "blob"), "open", {"documents": BLOB, "layer": NOW}),
    "layer.json: attributes": ((*LAYER_DIR, "layer.json"), "attributes", {"documents": NOW}),
    "layer.json: open": ((*LAYER_DIR, "layer.json"), "open", {"documents": NOW}),
    "rootfs/<id>: lookup": (("rootfs",), lookup(ROOTFS[1]), {"empty": ABSENT, "documents": NOW}),
    "rootfs/<id>: attributes": (ROOTFS, "attributes", {"documents": NOW}),
    "rootfs/<id>: listing": (
        ROOTFS,
        "listing",
        {"documents": ALL_NEED, "layer": LayersNeed(DEMO, PARSED, (1,)), "all": NOW},
    ),
    "rootfs/<id>: lookup inside": (
        ROOTFS,
        lookup("etc"),
        {"documents": ALL_NEED, "layer": LayersNeed(DEMO, PARSED, (1,)), "all": NOW},
    ),
    "rootfs/<id>: absent inside": (
        ROOTFS,
        lookup("x"),
        {"documents": ALL_NEED, "layer": TOP_NEED, "all": ABSENT},
    ),
    "lower/<id>: lookup": (("lower",), lookup(LOWER[1]), {"empty": ABSENT, "documents": NOW}),
    "lower/<cover>: lookup": (("lower",), lookup(COVER[1]), {"empty": ABSENT, "documents": NOW}),
    "lower/<nobody's>: lookup": (("lower",), lookup(STRANGER.digest.short_id), {"empty": ABSENT}),
    "lower/<id>: attributes": (LOWER, "attributes", {"documents": NOW}),
    "lower/<id>: readlink": (LOWER, "link", {"documents": BASE_NEED, "layer": NOW}),
    "lower/<cover>: attributes": (COVER, "attributes", {"documents": NOW}),
    "lower/<cover>: readlink": (COVER, "link", {"documents": STACK, "all": NOW}),
    "below diff: lookup": ((*LAYER_DIR, "diff", "etc"), lookup("passwd"), {"layer": NOW}),
    "below diff: listing": ((*LAYER_DIR, "diff", "etc"), "listing", {"layer": NOW}),
    "below diff: open": ((*LAYER_DIR, "diff", "etc", "passwd"), "open", {"layer": NOW}),
    "below rootfs: open": ((*ROOTFS, "new"), "open", {"all": NOW}),
    "status.json: open": ((".layerfs", "status.json"), "open", {"empty": NOW}),
}
TEXTS: dict[str, Cell] = {
    f"{name}: {operation}": ((*IMAGE_DIR, name), operation, {"documents": NOW})
    for name in ("manifest.json", "config.json", "history", "lowerdir", "lowerdirs")
    for operation in ("attributes", "open")
}


def cells() -> list[ParameterSet]:
    found = []
    for name, (path, operation, answers) in (TABLE | TEXTS).items():
        first = STATES.index(next(iter(answers)))
        expected: object = None
        for state in STATES[first:]:
            expected = answers.get(state, expected)
            found.append(pytest.param(path, operation, state, expected, id=f"{name} ({state})"))
    return found


@pytest.mark.parametrize(("path", "operation", "state", "expected"), cells())
def test_each_cell(
    path: tuple[str, ...],
    operation: str | Callable[[Node], object],
    expected: object,
    mounted: Scene,
) -> None:
    node = mounted.node(*path)
    ask = OPERATIONS[operation] if isinstance(operation, str) else operation
    answer = ask(node)
    if expected is NOW:
        assert answer is not None
        assert not isinstance(answer, Need)
    elif expected is ABSENT:
        assert answer is None
    else:
        assert answer == expected


@pytest.mark.parametrize("state", ["all"])
@pytest.mark.parametrize(
    ("path", "ask", "errno"),
    [
        (TAG, lambda node: node.lookup(b"x"), ENOTDIR),
        (TAG, lambda node: node.entries(), ENOTDIR),
        (TAG, lambda node: node.open(), EINVAL),
        ((*LAYER_DIR, "blob"), lambda node: node.readlink(), EINVAL),
        ((*LAYER_DIR, "blob"), lambda node: node.lookup(b"x"), ENOTDIR),
        ((*LAYER_DIR, "diff", "etc", "passwd"), lambda node: node.entries(), ENOTDIR),
    ],
)
def test_what_a_kind_of_file_cannot_do_fails_as_in_the_kernel(
    path: tuple[str, ...], ask: Callable[[Node], object], errno: int, mounted: Scene
) -> None:
    node = mounted.node(*path)
    with pytest.raises(OSError, match="not a") as failed:
        ask(node)
    assert failed.value.errno == errno


def test_a_config_that_is_missing_is_needed_by_the_name_of_its_manifest(scene: Scene) -> None:
    scene.storage.save_manifest(IMAGE.manifest, IMAGE.digest)
    assert scene.image(IMAGE).entries() == DOCUMENTS


def test_an_index_needs_itself_first_and_then_the_manifest_of_this_machine(scene: Scene) -> None:
    node = scene.image(INDEX)
    assert node.entries() == DocumentNeed(DEMO, INDEX.digest)
    scene.storage.save_manifest(INDEX.manifest, INDEX.digest)
    assert node.entries() == DOCUMENTS
    scene.knows(IMAGE)
    assert not isinstance(node.entries(), Need)


def test_a_layer_whose_documents_vanished_needs_them_first(scene: Scene) -> None:
    bring(scene, "documents")
    scene.storage.config_path(IMAGE.config_digest).unlink()
    scene = Scene(scene.storage.images_dir)
    assert scene.layer(BASE, "diff").entries() == DOCUMENTS
    assert scene.layer(BASE, "blob").open() == DOCUMENTS
    assert scene.node(*LOWER).readlink() == DOCUMENTS
    assert scene.node(*COVER).readlink() == DOCUMENTS
    assert scene.node(*ROOTFS).entries() == DOCUMENTS
    assert scene.node("lower").entries() == []
    assert scene.node("rootfs").entries() == []
    assert scene.layer(BASE, "layer.json").attributes().size > 0


def test_a_layer_that_only_the_store_knew_cannot_be_had_again(scene: Scene) -> None:
    scene.has(STRANGER)
    root = scene.layer(STRANGER, "diff")
    blob = scene.layer(STRANGER, "blob")
    lower = scene.node("lower", STRANGER.digest.short_id)
    scene.storage.discard_layer(STRANGER.digest)
    scene.storage.layer_tarball_path(STRANGER.digest).unlink()
    for ask in (root.entries, lambda: root.lookup(b"stranger"), blob.open, lower.readlink):
        with pytest.raises(NotInStore, match="no known image names it"):
            ask()
    assert blob.attributes().size == 0
    assert root.attributes().mode & 0o777 == 0o755


def test_the_tag_of_an_unknown_digest_is_entered_all_the_same(scene: Scene) -> None:
    nobody = Digest.of(b"nobody")
    node = scene.node("images", "localhost:5000", "team", f"demo@{nobody}")
    assert node.entries() == DocumentNeed(DEMO, nobody)


@pytest.mark.allow_warnings
def test_layers_are_shown_even_if_the_documents_that_named_them_are_damaged(scene: Scene) -> None:
    bring(scene, "all")
    rootfs, cover = scene.node(*ROOTFS), scene.node(*COVER)
    for path in (scene.storage.manifest_path(IMAGE.digest), scene.storage.config_path(IMAGE.config_digest)):
        path.write_bytes(b"{}")
    assert isinstance(rootfs.lookup(b"etc"), Node)
    assert isinstance(cover.readlink(), bytes)
