"""The pipes of the ring: what cannot be said whole is not said in part."""

import os
from collections.abc import Callable

import pytest

from layerfs.extract.ring import PartnerDied, Ring, RingSource


@pytest.mark.parametrize("say", [RingSource.part, RingSource.answer])
def test_a_torn_answer_ends_the_writer(say: Callable[[RingSource, bytes], None]) -> None:
    """Behind half of a message the other side would wait for the rest for ever."""
    ring = Ring.make()
    full = os.open("/dev/full", os.O_WRONLY)
    os.dup2(full, ring.answers_out)
    try:
        with pytest.raises(PartnerDied):
            say(RingSource(ring), b"body")
    finally:
        for fd in (full, ring.words_in, ring.words_out, ring.answers_in, ring.answers_out):
            os.close(fd)
