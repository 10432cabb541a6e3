"""What a daemon says of itself: counted by the journal, and readable by other versions."""

import json
from contextlib import nullcontext

import msgspec
import pytest

from layerfs.errors import Denied, DigestMismatch, LayerfsError, NoRanges, StoreFull, Unreachable
from layerfs.fetch.progress import Journal
from layerfs.oci import Descriptor, Digest, ImageReference
from layerfs.status import Failure, LayerLevel, LayerResult, Status, Underway, parse_status

REPOSITORY = ImageReference.parse("example.org/a:1").repository
BLOB = Descriptor("application/octet-stream", Digest.of(b"blob"), 4)
STATUS = Status(
    version="1",
    pid=2,
    mountpoint="/m",
    store="/s",
    platform="linux/amd64",
    offline=False,
    waiting=3,
    fetching=(
        Underway(repository="a/b", digest=str(BLOB.digest), phase="queued", received=1, size=4, since=5.0),
    ),
    errors=(Failure(time=6.0, what="a/b:1", error="NotFound", message="gone"),),
)


def test_a_status_is_read_as_it_was_written() -> None:
    assert parse_status(STATUS.encode()) == STATUS


def test_what_is_unknown_is_passed_over_and_what_is_new_may_be_missing() -> None:
    """A command reads daemons that are older and newer than it."""
    written = json.loads(STATUS.encode())
    for new in ("fetched", "fetched_bytes", "failed"):
        del written[new]

    assert parse_status(json.dumps(written | {"later": 1}).encode()) == STATUS


@pytest.mark.parametrize(
    "numbers",
    [
        pytest.param({"since": 1e300}, id="a time that no calendar has"),
        pytest.param({"since": -1}, id="a time before all"),
        pytest.param({"size": 10**40}, id="more bytes than units"),
        pytest.param({"received": -5}, id="fewer bytes than none"),
    ],
)
def test_what_another_user_s_program_says_is_refused_if_it_cannot_be_shown(numbers: dict[str, float]) -> None:
    written = json.loads(STATUS.encode())
    written["fetching"][0] |= numbers
    with pytest.raises(msgspec.DecodeError):
        parse_status(json.dumps(written).encode())


def test_the_journal_counts_what_ends_and_shows_what_runs() -> None:
    journal = Journal()
    with journal.watching(REPOSITORY, BLOB) as progress:
        progress.phase = "downloading"
        progress.received = 3
        running = journal.statistics(waiting=2)
    with pytest.raises(DigestMismatch), journal.watching(REPOSITORY, BLOB):
        raise DigestMismatch("other bytes")
    done = journal.statistics(waiting=0)

    assert (running.waiting, running.fetched, running.failed) == (2, 0, 0)
    (shown,) = running.fetching
    assert (shown.digest, shown.phase, shown.received, shown.size) == (str(BLOB.digest), "downloading", 3, 4)
    assert (done.fetching, done.fetched, done.fetched_bytes, done.failed) == ((), 1, 4, 1)
    assert [(one.error, one.message) for one in done.errors] == [("DigestMismatch", "other bytes")]


@pytest.mark.parametrize(
    ("level", "error", "result"),
    [
        ("toc", None, "done"),
        ("toc", NoRanges("x"), "refused"),
        ("toc", Denied("x"), "refused"),
        ("toc", Unreachable("x"), "failed"),
        ("partly", DigestMismatch("x"), "failed"),
        ("partly", StoreFull("x"), "failed"),
        ("whole", None, "done"),
        ("whole", Denied("x"), "failed"),
        ("whole", DigestMismatch("x"), "failed"),
    ],
)
def test_layers_are_counted_by_how_much_of_them_was_wanted_and_what_came_of_it(
    level: LayerLevel, error: LayerfsError | None, result: LayerResult
) -> None:
    journal = Journal()
    for _ in range(2):
        with pytest.raises(LayerfsError) if error else nullcontext(), journal.making(level, BLOB.digest):
            if error:
                raise error
    with pytest.raises(KeyError), journal.making(level, BLOB.digest):
        raise KeyError
    (found,) = journal.statistics(0).layers
    assert (found.level, found.result, found.count) == (level, result, 1 if level == "partly" else 2)


def test_failures_are_counted_though_only_the_latest_are_kept() -> None:
    journal = Journal()
    for number in range(100):
        journal.failed(str(number), DigestMismatch("x"))
    found = journal.statistics(waiting=0)

    assert found.failed == 100
    assert found.errors[-1].what == "99"
    assert len(found.errors) < 100
