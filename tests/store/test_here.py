"""Counting what is here of lazy layers, for who may not wait."""

import threading

from layerfs.errors import NotInStore
from layerfs.oci import Digest
from layerfs.store.here import Here, LastCounts
from tests.support.clients import wait_until

TOCS = [Digest.of(b"%d" % number) for number in range(5)]


def test_layers_are_counted_one_after_another_by_one_thread_and_one_that_is_gone_holds_up_none() -> None:
    go, threads, counted = threading.Event(), set[int](), list[Digest]()

    def count(toc: Digest) -> Here:
        go.wait()
        threads.add(threading.get_ident())
        counted.append(toc)
        if toc == TOCS[1]:
            raise NotInStore("removed meanwhile")
        return Here(1, 2, 3, 4)

    counts = LastCounts(count)
    assert [counts.get(toc) for toc in TOCS * 3] == [None] * 15
    go.set()
    wait_until(lambda: counts._running is False)
    assert counted == TOCS
    assert len(threads) == 1
    assert [counts.get(toc) for toc in TOCS] == [Here(1, 2, 3, 4) if toc != TOCS[1] else None for toc in TOCS]
