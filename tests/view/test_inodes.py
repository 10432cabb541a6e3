"""The inode table agrees with a counting model, whatever the kernel remembers and forgets."""

import gc
import logging
import weakref

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, invariant, rule

from layerfs.view.inodes import ROOT_INO, InodeTable, number_of, offset_number
from layerfs.view.nodes import Node


class Counted(Node):
    """A node that counts how often it was told that it is forgotten."""

    __slots__ = ("forgettings",)

    def __init__(self, ino: int) -> None:
        super().__init__(ino)
        self.forgettings = 0

    def forgotten(self) -> None:
        self.forgettings += 1


class Table(RuleBasedStateMachine):
    """Things, each with a wanted number of a very small range, so that numbers collide all the time."""

    things: Bundle[str] = Bundle("things")

    def __init__(self) -> None:
        super().__init__()
        logging.disable(logging.WARNING)
        self.table = InodeTable()
        self.table.set_root(Counted(ROOT_INO))
        self.counts: dict[str, int] = {}
        self.wanted: dict[str, int] = {}
        self.held: dict[str, Counted] = {}
        """Nodes that the model holds itself, as a listing would."""
        self.numbers: dict[str, int] = {}
        """Where a thing was while it was known."""

    def teardown(self) -> None:
        logging.disable(logging.NOTSET)

    def intern(self, thing: str) -> Counted:
        return self.table.intern(self.wanted[thing], thing, Counted)

    @rule(target=things, thing=st.sampled_from("abcdefgh"), number=st.integers(0, 4))
    def name(self, thing: str, number: int) -> str:
        self.wanted.setdefault(thing, number)
        return thing

    @rule(thing=things)
    def look_up(self, thing: str) -> None:
        node = self.intern(thing)
        self.table.remember(node)
        if self.counts.get(thing):
            assert node.ino == self.numbers[thing]
        self.counts[thing] = self.counts.get(thing, 0) + 1
        self.numbers[thing] = node.ino

    @rule(thing=things)
    def hold(self, thing: str) -> None:
        self.held[thing] = self.intern(thing)

    @rule(thing=things)
    def let_go(self, thing: str) -> None:
        self.held.pop(thing, None)

    @rule(thing=things, times=st.integers(1, 3))
    def forget(self, thing: str, times: int) -> None:
        if thing not in self.numbers or not self.counts.get(thing):
            return
        node = self.table.get(self.numbers[thing])
        assert isinstance(node, Counted)
        before = node.forgettings
        self.table.forget(node.ino, times)
        self.counts[thing] = max(0, self.counts[thing] - times)
        assert node.forgettings == before + (not self.counts[thing])

    @invariant()
    def exactly_what_is_counted_is_there(self) -> None:
        known = {thing: count for thing, count in self.counts.items() if count}
        assert len(self.table) == len(known) + 1
        for thing, count in known.items():
            node = self.table.get(self.numbers[thing])
            assert node is self.intern(thing)
            assert self.table.count(node.ino) == count

    @invariant()
    def no_two_living_things_share_a_number(self) -> None:
        living = [thing for thing, count in self.counts.items() if count] + list(self.held)
        numbers = {thing: self.intern(thing).ino for thing in living}
        assert len(set(numbers.values())) == len(numbers)
        assert not {0, ROOT_INO} & set(numbers.values())


TestTable = Table.TestCase
TestTable.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)


@pytest.fixture
def table() -> InodeTable:
    table = InodeTable()
    table.set_root(Counted(ROOT_INO))
    return table


def test_the_root_is_known_without_a_lookup_and_survives_any_forget(table: InodeTable) -> None:
    root = table.get(ROOT_INO)
    table.remember(root)
    table.forget(ROOT_INO, 1)
    table.forget(ROOT_INO, 7)
    assert table.get(ROOT_INO) is root
    assert isinstance(root, Counted)
    assert root.forgettings == 0


def test_a_number_that_was_never_told_is_unknown(table: InodeTable) -> None:
    node = table.intern(5, "a", Counted)
    with pytest.raises(KeyError):
        table.get(node.ino)


@pytest.mark.allow_warnings
def test_forgetting_too_often_is_logged_and_clamped(
    table: InodeTable, caplog: pytest.LogCaptureFixture
) -> None:
    node = table.intern(5, "a", Counted)
    table.remember(node)
    table.forget(5, 3)
    assert node.forgettings == 1
    table.forget(5, 1)
    assert node.forgettings == 1
    assert "3 lookups forgotten (expected at most 1)" in caplog.text
    assert "1 lookups forgotten (expected at most 0)" in caplog.text


def test_what_the_kernel_forgot_is_not_held(table: InodeTable) -> None:
    node = table.intern(5, "a", Counted)
    table.remember(node)
    seen = weakref.ref(node)
    del node
    gc.collect()
    assert seen() is table.get(5)
    table.forget(5, 1)
    gc.collect()
    assert seen() is None
    assert len(table) == 1


def test_two_things_that_want_one_number_get_two_and_keep_them(table: InodeTable) -> None:
    first = table.intern(5, "a", Counted)
    second = table.intern(5, "b", Counted)
    assert first.ino == 5
    assert second.ino == 6
    del first
    gc.collect()
    assert table.intern(5, "b", Counted) is second
    del second
    gc.collect()
    assert table.intern(5, "b", Counted).ino == 6


def test_numbers_of_nodes_that_die_together_are_free_at_once(table: InodeTable) -> None:
    """The collector kills all of a circle before it tells anybody; a number may be wanted in between."""
    first, second = table.intern(5, "a", Counted), table.intern(7, "b", Counted)
    first.edge, second.edge = second, first
    again: list[Counted] = []

    def want_again(_dead: object) -> None:
        again.extend([table.intern(5, "a", Counted), table.intern(7, "b", Counted)])

    watching = [weakref.ref(node, want_again) for node in (first, second)]
    del first, second
    gc.collect()
    assert all(seen() is None for seen in watching)
    assert [node.ino for node in again] == [5, 7, 5, 7]
    assert again[0] is again[2] is table.find(5, "a"), "who came in between keeps the number"
    assert again[1] is again[3] is table.find(7, "b")


@given(key=st.binary())
def test_numbers_are_positive_for_signed_programs(key: bytes) -> None:
    assert 0 <= number_of(key) < 1 << 63
    assert number_of(key) == number_of(key)


@given(base=st.integers(0, (1 << 63) - 1), inos=st.sets(st.integers(1, (1 << 63) - 1)))
def test_files_of_one_layer_never_share_a_number(base: int, inos: set[int]) -> None:
    numbers = {offset_number(base, ino) for ino in inos}
    assert len(numbers) == len(inos)
    assert all(0 <= number < 1 << 63 for number in numbers)
