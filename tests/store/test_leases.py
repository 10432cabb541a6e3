"""Leases: how long they hold, and for whom."""

import json
import os
import subprocess
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from layerfs.errors import StoreError, UsageError
from layerfs.oci import Digest
from layerfs.store import ImageStorage
from layerfs.store.leases import Holder, Lease

FIRST, SECOND = Digest.of(b"first"), Digest.of(b"second")
NOW = datetime.now(UTC)


@pytest.fixture
def storage(store: Path) -> Iterator[ImageStorage]:
    """A new store."""
    with ImageStorage(store) as opened:
        yield opened


def names(storage: ImageStorage) -> list[str]:
    """Return the leases that hold."""
    return [name for name, _ in storage.leases.holding()]


def test_a_lease_is_a_file_that_can_be_read_with_cat(storage: ImageStorage, store: Path) -> None:
    with storage.lease("build-7", [SECOND, str(FIRST)]):
        content = json.loads((store / "leases/build-7.json").read_text())
        assert content["digests"] == sorted([str(FIRST), str(SECOND)])
        assert content["holder"]["pid"] > 0
        assert names(ImageStorage(store)) == ["build-7"]
    assert names(storage) == []
    assert not (store / "leases/build-7.json").exists()


def test_a_lease_ends_with_its_time(storage: ImageStorage) -> None:
    storage.lease("over", [FIRST], until=datetime.now(UTC) - timedelta(seconds=1))
    storage.lease("soon", [FIRST], until=datetime.now(UTC) + timedelta(hours=1))
    assert names(storage) == ["soon"]
    assert storage.leases.sweep() == 1
    assert [name for name, _ in storage.leases.all()] == ["soon"]


def test_a_lease_ends_with_its_process(storage: ImageStorage) -> None:
    with subprocess.Popen(["sleep", "100"]) as process:
        storage.lease("job", [FIRST], pid=process.pid)
        assert names(storage) == ["job"]
        process.kill()
    assert names(storage) == []
    with pytest.raises(StoreError, match="there is none"):
        storage.lease("again", [FIRST], pid=process.pid)


def test_a_lease_of_nobody_holds_until_it_is_removed(storage: ImageStorage) -> None:
    storage.lease("kept", [FIRST], pid=0)
    assert names(storage) == ["kept"]
    assert storage.leases.remove("kept")
    assert not storage.leases.remove("kept")


@pytest.mark.parametrize(
    ("change", "holds"),
    [
        pytest.param({}, True, id="the process"),
        pytest.param({"started": 1}, False, id="a later process of its number"),
        pytest.param({"boot_id": "another"}, False, id="a process of another boot"),
        pytest.param({"namespace": "pid:[1]", "started": 1}, True, id="a process that cannot be seen"),
    ],
)
def test_only_the_very_process_keeps_a_lease(change: dict[str, str | int], holds: bool) -> None:
    me = Holder.of(os.getpid())
    held = {name: getattr(me, name) for name in ("pid", "started", "boot_id", "namespace")} | change
    assert Lease(digests=(), made_at=NOW, holder=Holder(**held)).holds(NOW) == holds


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", ".hidden", "a" * 129, "a\n", "ä"])
def test_a_name_that_is_no_file_name_is_refused(storage: ImageStorage, name: str) -> None:
    with pytest.raises(UsageError, match="no name of a lease"):
        storage.lease(name, [FIRST])
    assert not storage.leases.remove(name)


@pytest.mark.parametrize(
    "content", [b"", b"{", b"\xff", b'{"digests": ["x"], "made_at": "2026-01-01T00:00:00Z"}']
)
def test_a_lease_that_cannot_be_read_is_not_taken_lightly(
    storage: ImageStorage, store: Path, content: bytes
) -> None:
    storage.lease("bad", [FIRST])
    (store / "leases/bad.json").write_bytes(content)
    with pytest.raises(StoreError, match="layerfs lease rm bad"):
        storage.leases.holding()
    assert storage.leases.remove("bad")
    assert names(storage) == []
