"""The edge awaits whatever a node needs, also a kind of need that it has never heard of."""

from dataclasses import dataclass
from pathlib import Path

import pyfuse3
import trio

from layerfs.fuse.operations import Operations
from layerfs.fuse.waiting import Waits
from layerfs.needs import Need
from tests.support.memory_tree import ControlledProvider, MemoryNode, memory_tree


@dataclass(frozen=True, slots=True)
class NewNeed(Need):
    """A kind that only this test knows."""


class _Recorder:
    def __init__(self) -> None:
        self.obtained: list[Need] = []

    async def obtain(self, need: Need) -> None:
        self.obtained.append(need)


async def test_every_operation_that_may_wait_obtains_a_need_of_any_kind(tmp_path: Path) -> None:
    provider = _Recorder()
    tree = memory_tree(ControlledProvider(tmp_path), tmp_path, dict)
    root = tree.root
    assert isinstance(root, MemoryNode)
    operations = Operations(tree, provider, Waits(10.0))
    context = pyfuse3.RequestContext()
    for operation in (
        lambda: operations.lookup(pyfuse3.ROOT_INODE, b"plain", context),
        lambda: operations.opendir(pyfuse3.ROOT_INODE, context),
        lambda: operations.readlink(pyfuse3.ROOT_INODE, context),
        lambda: operations.open(pyfuse3.ROOT_INODE, 0, context),
    ):
        provider.obtained.clear()
        root.needed = lambda: None if provider.obtained else NewNeed()
        with trio.fail_after(10):
            await operation()
        assert provider.obtained == [NewNeed()]
