"""The table "who may wait" of docs/architecture.md, each cell: node, operation, state -> now, need or error.

`TABLE` has the columns of that table and a row for every kind of node; nothing but what stands there
as a need may wait. The states build on each other: an empty store, one that knows a tag, the documents, one
layer, all layers.
"""

import stat
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass
from errno import EINVAL, ENOTDIR

import pytest
from _pytest.mark import ParameterSet

from layerfs.errors import NotInStore
from layerfs.needs import BlobNeed, DocumentNeed, LayersNeed, Need, StackNeed, TagNeed
from layerfs.oci import Digest, Image, ImageConfig, Manifest, parse_manifest
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
ABSENT = "ENOENT, now"
NO = "no such operation on this kind of file"
STATES = ("empty", "tag", "documents", "layer", "all")


def bring(scene: Scene, state: str) -> Scene:
    """Bring an empty store into *state*."""
    if state in STATES[1:]:
        scene.storage.refs.write(DEMO.with_tag("latest"), IMAGE.digest)
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


# Cells


@dataclass(frozen=True)
class Until:
    """What a cell says before *state*, and from then on."""

    state: str
    before: object
    then: object = NOW


def bare(node: Node) -> None:
    """Check what a content root is like before its layer is here: the kernel must ask again."""
    found = node.attributes()
    assert (found.mode, found.uid, found.gid) == (stat.S_IFDIR | 0o755, 0, 0)
    assert node.attribute_timeout == 0
    assert node.xattrs() == {}


def size(expected: int) -> Callable[[Node], None]:
    """Return the check that a file says its size before it is here."""

    def check(node: Node) -> None:
        assert node.attributes().size == expected

    return check


@dataclass(frozen=True)
class Row:
    """One node of the tree: where, then the columns of the table.

    *inside* is a name in it that is there, *parent* the first state in which its parent is there.
    """

    path: tuple[str, ...]
    lookup: object
    attributes: object
    readlink: object
    opendir: object
    lookup_inside: object
    open: object
    inside: str = ""
    parent: str = "empty"


RESOLVED = Until("tag", TagNeed(DEMO.with_tag("latest")))
KNOWN = Until("documents", ABSENT)
DOCS = Until("documents", DOCUMENTS)
WAY = Until("documents", DOCUMENTS.leading_on())
DOCS_OR_NOT = Until("documents", DOCUMENTS, ABSENT)
INDEX_DOCS = Until("documents", DocumentNeed(DEMO, INDEX.digest))
LAYER = Until("layer", BASE_NEED)
OTHER = Until("all", TOP_NEED)
LAYERS = Until("layer", ALL_NEED, OTHER)
BARE, LATE_BARE = Until("layer", bare), Until("all", bare)
WHOLE_STACK = Until("all", STACK)
THE_BLOB = Until("layer", BLOB)
of_manifest, of_config, of_index = (size(len(one)) for one in (IMAGE.manifest, IMAGE.config, INDEX.manifest))
of_blob = size(BASE.built.size)
PLATFORM = (*INDEX_DIR, "platforms", "linux-arm64")

# fmt: off
TABLE: dict[str, Row] = {
    # LOOKUP of it, GETATTR and xattr, READLINK, OPENDIR, LOOKUP inside, OPEN; a name inside, since when
    "root": Row((),
        NOW,         NOW,         NO,          NOW,        NOW,        NO, "images"),
    "images": Row(IMAGE_DIR[:1],
        NOW,         NOW,         NO,          NOW,        NOW,        NO, "localhost:5000"),
    "registry directory": Row(IMAGE_DIR[:2],
        NOW,         NOW,         NO,          NOW,        NOW,        NO, "team"),
    "repository directory": Row(IMAGE_DIR[:3],
        NOW,         NOW,         NO,          NOW,        NOW,        NO, "demo:latest"),
    "name:tag": Row(TAG,
        NOW,         NOW,         RESOLVED,    NO,         NO,         NO),
    "name@digest": Row(IMAGE_DIR,
        NOW,         NOW,         NO,          DOCS,       DOCS,       NO, "config.json"),
    "name@digest of an index": Row(INDEX_DIR,
        NOW,         NOW,         NO,          INDEX_DOCS, INDEX_DOCS, NO, "manifest.json"),
    "manifest.json": Row((*IMAGE_DIR, "manifest.json"),
        DOCS,        of_manifest, NO,          NO,         NO,         NOW),
    "config.json": Row((*IMAGE_DIR, "config.json"),
        DOCS,        of_config,   NO,          NO,         NO,         NOW),
    "history": Row((*IMAGE_DIR, "history"),
        DOCS,        NOW,         NO,          NO,         NO,         NOW),
    "lowerdir": Row((*IMAGE_DIR, "lowerdir"),
        DOCS,        NOW,         NO,          NO,         NO,         NOW),
    "lowerdirs": Row((*IMAGE_DIR, "lowerdirs"),
        DOCS,        NOW,         NO,          NO,         NO,         NOW),
    "index.json": Row((*INDEX_DIR, "index.json"),
        INDEX_DOCS,  of_index,    NO,          NO,         NO,         NOW),
    "index.json of no index": Row((*IMAGE_DIR, "index.json"),
        DOCS_OR_NOT, NO,          NO,          NO,         NO,         NO),
    "platforms": Row((*INDEX_DIR, "platforms"),
        INDEX_DOCS,  NOW,         NO,          NOW,        NOW,        NO, "linux-arm64"),
    "platforms/<platform>": Row(PLATFORM,
        NOW,         NOW,         NOW,         NO,         NO,         NO, parent="documents"),
    "layers of an image": Row((*IMAGE_DIR, "layers"),
        WAY,         NOW,         NO,          NOW,        NOW,        NO, "01"),
    "layers/NN": Row((*IMAGE_DIR, "layers", "01"),
        NOW,         NOW,         NOW,         NO,         NO,         NO, parent="documents"),
    "layers/NN too high": Row((*IMAGE_DIR, "layers", "02"),
        ABSENT,      NO,          NO,          NO,         NO,         NO, parent="documents"),
    "rootfs of an image": Row((*IMAGE_DIR, "rootfs"),
        WAY,         NOW,         NOW,         NO,         NO,         NO),
    "layers": Row(("layers",),
        NOW,         NOW,         NO,          NOW,        KNOWN,      NO, BASE.digest.name),
    "layers/<digest>": Row(LAYER_DIR,
        KNOWN,       NOW,         NO,          NOW,        NOW,        NO, "diff"),
    "layers/<digest> of nobody": Row(("layers", STRANGER.digest.name),
        ABSENT,      NO,          NO,          NO,         NO,         NO),
    "diff": Row((*LAYER_DIR, "diff"),
        NOW,         BARE,        NO,          LAYER,      LAYER,      NO, "etc", parent="documents"),
    "lower": Row((*LAYER_DIR, "lower"),
        NOW,         BARE,        NO,          LAYER,      LAYER,      NO, "etc", parent="documents"),
    "diff of another layer": Row((*TOP_DIR, "diff"),
        NOW,         LATE_BARE,   NO,          OTHER,      OTHER,      NO, "new", parent="documents"),
    "lower of another layer": Row((*TOP_DIR, "lower"),
        NOW,         LATE_BARE,   NO,          OTHER,      OTHER,      NO, "new", parent="documents"),
    "blob": Row((*LAYER_DIR, "blob"),
        NOW,         of_blob,     NO,          NO,         NO,         THE_BLOB, parent="documents"),
    "layer.json": Row((*LAYER_DIR, "layer.json"),
        NOW,         NOW,         NO,          NO,         NO,         NOW, parent="documents"),
    "rootfs": Row(("rootfs",),
        NOW,         NOW,         NO,          NOW,        KNOWN,      NO, ROOTFS[1]),
    "rootfs/<id>": Row(ROOTFS,
        KNOWN,       LATE_BARE,   NO,          LAYERS,     LAYERS,     NO, "new"),
    "rootfs/<id> of nobody": Row(("rootfs", stack_id(TOP, BASE)),
        ABSENT,      NO,          NO,          NO,         NO,         NO),
    "lower/": Row(("lower",),
        NOW,         NOW,         NO,          NOW,        KNOWN,      NO, COVER[1]),
    "lower/<id>": Row(LOWER,
        KNOWN,       NOW,         LAYER,       NO,         NO,         NO),
    "lower/<cover>": Row(COVER,
        KNOWN,       NOW,         WHOLE_STACK, NO,         NO,         NO),
    "lower/<id> of nobody": Row(("lower", STRANGER.digest.short_id),
        ABSENT,      NO,          NO,          NO,         NO,         NO),
    "directory below diff": Row((*LAYER_DIR, "diff", "etc"),
        NOW,         NOW,         NO,          NOW,        NOW,        NO, "passwd", parent="layer"),
    "file below diff": Row((*LAYER_DIR, "diff", "etc", "passwd"),
        NOW,         NOW,         NO,          NO,         NO,         NOW, parent="layer"),
    "marker below diff": Row((*TOP_DIR, "diff", "etc", ".wh.passwd"),
        NOW,         NOW,         NO,          NO,         NO,         NOW, parent="all"),
    "directory below lower": Row((*LAYER_DIR, "lower", "etc"),
        NOW,         NOW,         NO,          NOW,        NOW,        NO, "passwd", parent="layer"),
    "file below lower": Row((*LAYER_DIR, "lower", "etc", "passwd"),
        NOW,         NOW,         NO,          NO,         NO,         NOW, parent="layer"),
    "whiteout below lower": Row((*TOP_DIR, "lower", "etc", "passwd"),
        NOW,         NOW,         NO,          NO,         NO,         NO, parent="all"),
    "directory below rootfs": Row((*ROOTFS, "etc"),
        NOW,         NOW,         NO,          NOW,        ABSENT,     NO, parent="all"),
    "file below rootfs": Row((*ROOTFS, "new"),
        NOW,         NOW,         NO,          NO,         NO,         NOW, parent="all"),
    ".layerfs": Row((".layerfs",),
        NOW,         NOW,         NO,          NOW,        NOW,        NO, "status.json"),
    "status.json": Row((".layerfs", "status.json"),
        NOW,         NOW,         NO,          NO,         NO,         NOW),
}
# fmt: on

OPERATIONS: dict[str, tuple[Callable[[Node, Row], object], int]] = {
    "LOOKUP of it": (lambda parent, row: parent.lookup(row.path[-1].encode()), 0),
    "GETATTR": (lambda node, _: (node.xattrs(), node.attributes()), 0),
    "READLINK": (lambda node, _: node.readlink(), EINVAL),
    "OPENDIR": (lambda node, _: node.entries(), ENOTDIR),
    "LOOKUP inside": (lambda node, row: node.lookup(row.inside.encode() or b"x"), ENOTDIR),
    "LOOKUP of nothing inside": (lambda node, _: node.lookup(b".git"), ENOTDIR),
    "OPEN": (lambda node, _: node.open(), EINVAL),
}
"""How each is asked, and what the kernel says where the kind of file has no such operation."""


def said(cell: object, state: str) -> object:
    """Return what a cell says in *state*."""
    while isinstance(cell, Until):
        cell = cell.before if STATES.index(state) < STATES.index(cell.state) else cell.then
    return cell


def cells() -> Iterator[ParameterSet]:
    """Yield every cell in every state in which somebody can ask."""
    for name, row in TABLE.items():
        for state in STATES[STATES.index(row.parent) :]:
            answers = {"LOOKUP of it": said(row.lookup, state)} if row.path else {}
            if said(row.lookup, state) is NOW:
                inside = said(row.lookup_inside, state)
                answers |= {
                    "GETATTR": said(row.attributes, state),
                    "READLINK": said(row.readlink, state),
                    "OPENDIR": said(row.opendir, state),
                    "LOOKUP inside": inside,
                    "LOOKUP of nothing inside": ABSENT if inside is NOW else inside,
                    "OPEN": said(row.open, state),
                }
            for operation, expected in answers.items():
                yield pytest.param(row, operation, state, expected, id=f"{name}: {operation} ({state})")


@pytest.mark.parametrize(("row", "operation", "state", "expected"), [*cells()])
def test_each_cell(row: Row, operation: str, expected: object, mounted: Scene) -> None:
    ask, errno = OPERATIONS[operation]
    node = mounted.node(*(row.path[:-1] if operation == "LOOKUP of it" else row.path))
    if expected is NO:
        with pytest.raises(OSError, match=r"not a|Invalid argument") as failed:
            ask(node, row)
        assert failed.value.errno == errno
        return
    answer = ask(node, row)
    if expected is ABSENT:
        assert answer is None
    elif isinstance(expected, Need):
        assert answer == expected
    else:
        assert answer is not None
        assert not isinstance(answer, Need)
        if callable(expected):
            expected(node)


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize(
    "path", [(), ("images",), IMAGE_DIR[:2], IMAGE_DIR[:3], ("layers",), ("rootfs",), ("lower",)]
)
def test_what_tools_look_for_everywhere_is_nowhere(path: tuple[str, ...], mounted: Scene) -> None:
    for name in (b".git", b"HEAD", b".hidden", b"Not A Name"):
        assert mounted.node(*path).lookup(name) is None


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
