"""Directories of content: what a listing keeps, what it reads again, and what it says of lost entries."""

import stat
from collections.abc import Callable
from errno import EINVAL, ENOENT, ENOTDIR
from itertools import repeat

import pytest

from layerfs.view import directory as view_directory
from layerfs.view import merged as view_merged
from layerfs.view.content import ContentFile
from layerfs.view.diff import DiffDirectory
from layerfs.view.directory import LISTED_AT_ONCE, ContentDirectory, LongListing, LostNode
from layerfs.view.inodes import InodeTable
from layerfs.view.lower import LowerDirectory
from layerfs.view.merged import Stack
from layerfs.view.nodes import Node
from tests.view.contents import DIRECTORY, FILE, WHITEOUT, Contents, Entry, tree

MANY = 4 * LISTED_AT_ONCE
COUNT = MANY + LISTED_AT_ONCE
NAMES = [b"%06d" % number for number in range(COUNT)]
ROOT = Entry(1, DIRECTORY)


@pytest.fixture(autouse=True)
def _some_are_many(monkeypatch: pytest.MonkeyPatch) -> None:
    """Do with hundreds of names what 32,768 are needed for; `tests/end_to_end/test_cost.py` has 60,000."""
    for module in (view_directory, view_merged):
        monkeypatch.setattr(module, "MANY", MANY)


def large() -> Contents:
    return Contents(b"large", dict(zip(NAMES, map(Entry, range(10, 10 + COUNT), repeat(FILE)), strict=True)))


def diff(source: Contents, inodes: InodeTable) -> ContentDirectory:
    return DiffDirectory(2, tree(source, inodes), b"", ROOT)


def lower(source: Contents, inodes: InodeTable) -> ContentDirectory:
    return LowerDirectory(2, tree(source, inodes), b"", ROOT)


def rootfs(source: Contents, inodes: InodeTable) -> ContentDirectory:
    found = Stack(b"stack", [tree(source, inodes)], inodes).root(2)
    assert found is not None
    return found


Form = Callable[[Contents, InodeTable], ContentDirectory]
FORMS = pytest.mark.parametrize("form", [diff, lower, rootfs])


@FORMS
def test_a_directory_of_many_names_is_read_from_the_disk_for_each_reader(form: Form) -> None:
    inodes = InodeTable()
    directory = form(large(), inodes)
    listing = directory.entries()

    assert isinstance(listing, LongListing)
    assert [name for name, _ in listing] == NAMES
    assert listing.position == 0, "who iterates is a reader of his own"
    assert directory.entries() is not listing
    assert directory.is_passing(Node(9)), "what was found too large may have any number of children"


@FORMS
def test_a_reader_of_many_names_goes_anywhere_in_steps_of_one_reply(form: Form) -> None:
    listing = form(large(), InodeTable()).entries()
    assert isinstance(listing, LongListing)

    def seek(position: int) -> int:
        steps = 1
        while not listing.seek(position):
            steps += 1
        return steps

    assert seek(300) == 3
    assert [name for name, _ in listing.next_entries() or ()] == NAMES[300 : 300 + LISTED_AT_ONCE]
    listing.advance(100)
    assert listing.position == 400
    assert [name for name, _ in listing.next_entries() or ()] == NAMES[400 : 300 + LISTED_AT_ONCE]
    assert seek(410) == 1
    assert next(iter(listing.next_entries() or ()))[0] == NAMES[410]
    assert seek(500) == 1, "what lies ahead is used, the rest is passed over"
    assert next(iter(listing.next_entries() or ()))[0] == NAMES[500]
    assert seek(5) == 1, "backwards is from the beginning"
    assert next(iter(listing.next_entries() or ()))[0] == NAMES[5]
    seek(COUNT + 1000)
    assert not listing.next_entries()
    assert listing.position == COUNT


def test_a_directory_in_which_many_children_were_met_lets_them_pass() -> None:
    directory = diff(large(), InodeTable())
    for name in NAMES[:MANY]:
        directory.lookup(name)
    assert directory.lookup(b"absent") is None
    assert not directory.is_passing(Node(9)), "a directory of a real system has fewer"
    directory.lookup(NAMES[MANY])
    assert directory.is_passing(Node(9))


BASE = {
    **dict.fromkeys(NAMES[:5], Entry(2, FILE)),
    b"both": Entry(3, FILE, 1),
    b"gone": Entry(4, FILE),
    b"hidden": Entry(5, DIRECTORY),
    b"shared": Entry(6, DIRECTORY),
    b"shared/below": Entry(7, FILE),
}
TOP = {
    b".wh.gone": Entry(2, FILE),
    b"gone": Entry(3, WHITEOUT),
    b".wh.hidden": Entry(2, FILE),
    b"hidden": Entry(3, WHITEOUT),
    b"both": Entry(4, FILE, 2),
    b"shared": Entry(5, DIRECTORY),
    b"shared/above": Entry(6, FILE),
}
MARKERS = b".wh.gone\0.wh.hidden\0"
VISIBLE = {*NAMES[:5], b"both", b"shared"}


@pytest.mark.parametrize("more", [0, COUNT], ids=["merged at once", "judged one by one"])
def test_a_union_of_any_size_shows_what_is_visible(more: int) -> None:
    """What is too much to be merged is judged name by name, with the same result."""
    inodes = InodeTable()
    base = Contents(b"base", {**BASE, **dict.fromkeys(NAMES[:more], Entry(2, FILE))})
    layers = [tree(base, inodes), tree(Contents(b"top", TOP), inodes, whiteouts=MARKERS)]
    root = Stack(b"stack", layers, inodes).root(2)
    assert root is not None

    listing = root.listing()
    assert isinstance(listing, LongListing) == bool(more)
    found = dict(listing)
    assert found.keys() == VISIBLE | set(NAMES[:more])
    assert len(list(root.listing())) == len(found), "each once"
    assert found[b"both"].attributes().size == 2
    shared = found[b"shared"].entries()
    assert sorted(name for name, _ in shared) == [b"above", b"below"]  # type: ignore[union-attr]  # no need
    assert all(root.lookup(name) is found[name] for name in VISIBLE)


@pytest.mark.parametrize(
    ("form", "count"),
    [(form, count) for count in (LISTED_AT_ONCE + 1, COUNT) for form in (diff, lower, rootfs)],
)
def test_an_entry_that_is_lost_while_it_is_listed_says_so_and_no_other(form: Form, count: int) -> None:
    inodes = InodeTable()
    names = NAMES[:count]
    source = Contents(b"some", dict(zip(names, map(Entry, range(10, 10 + count), repeat(FILE)), strict=True)))
    directory = form(source, inodes)
    listing = directory.listing()
    source.broken.update(names[-2:])
    removed = source.entries.pop(names[-3])
    listed = dict(listing)

    assert set(names) - {names[-3]} <= listed.keys()
    for lost in names[-2:]:
        with pytest.raises(OSError, match="planted"):
            listed[lost].attributes()
    assert all(stat.S_ISREG(listed[name].attributes().mode) for name in names[:-3])
    if names[-3] in listed:
        with pytest.raises(FileNotFoundError, match=r"the layer was removed while it was listed"):
            listed[names[-3]].attributes()
    assert directory.lookup(names[-3]) is None
    source.broken.clear()
    source.entries[names[-3]] = removed
    assert not isinstance(directory.lookup(names[-2]), LostNode | None), "it is looked for again"
    assert not isinstance(directory.lookup(names[-3]), LostNode | None)


def test_a_merged_entry_that_is_removed_is_no_entry_any_more() -> None:
    source = Contents(b"some", {b"a": Entry(2, FILE), b"b": Entry(3, FILE)})
    directory = rootfs(source, InodeTable())
    directory.entries()
    del source.entries[b"a"]
    assert directory.find(b"a") is None
    assert isinstance(directory.find(b"b"), ContentFile)
    assert directory.find_all([b"a", b"b"])[0] is None


def test_a_file_whose_status_was_taken_is_looked_at_again() -> None:
    source = Contents(b"some", {b"a": Entry(2, FILE, 5)})
    node = diff(source, InodeTable()).lookup(b"a")
    assert isinstance(node, Node)
    taken = node.pop_status()
    assert taken is not None
    assert taken.st_size == 5
    assert node.pop_status() is None, "at most once"
    assert node.attributes().size == 5
    del source.entries[b"a"]
    with pytest.raises(FileNotFoundError, match="a: the layer was removed") as failed:
        node.attributes()
    assert failed.value.errno == ENOENT


def test_what_the_disk_lost_is_never_taken_from_its_status() -> None:
    source = Contents(b"some", {b"a": Entry(2, FILE, 5)})
    row = b"a\tmode=104755 owner=7:8 xattr:user.x=MQ==\0"
    node = DiffDirectory(2, tree(source, InodeTable(), lost=row), b"", ROOT).lookup(b"a")
    assert isinstance(node, Node)
    assert node.pop_status() is None
    found = node.attributes()
    assert (found.mode, found.uid, found.gid) == (stat.S_IFREG | 0o4755, 7, 8)
    assert node.xattrs() == {b"user.x": b"1"}


def test_what_an_ordinary_user_extracted_is_of_root_unless_its_record_says_else() -> None:
    files = {b"a": Entry(2, FILE, st_uid=1000, st_gid=1000), b"b": Entry(3, FILE, st_uid=1000, st_gid=1000)}
    layer = tree(Contents(b"some", files), InodeTable(), owner="user", lost=b"b\towner=7:8\0")
    root = DiffDirectory(2, layer, b"", ROOT)
    owners = {name: (node.attributes().uid, node.attributes().gid) for name, node in root.listing()}
    assert owners == {b"a": (0, 0), b"b": (7, 8)}


def test_a_node_that_says_nothing_answers_as_the_kernel_would() -> None:
    node = Node(9)
    with pytest.raises(NotImplementedError):
        node.attributes()
    for asked, errno in (
        (lambda: node.lookup(b"x"), ENOTDIR),
        (node.entries, ENOTDIR),
        (node.readlink, EINVAL),
        (node.open, EINVAL),
    ):
        with pytest.raises(OSError, match="not a") as failed:
            asked()
        assert failed.value.errno == errno
    assert node.pop_status() is None
    assert node.xattrs() == {}
    assert not node.is_passing(Node(10))
