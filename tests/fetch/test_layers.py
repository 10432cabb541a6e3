"""What the daemon does with a store that is not as it was left."""

from pathlib import Path

from tests.support import clients, daemon, images
from tests.support.registry import Registry

BIG = images.file("big", bytes(range(256)) * 64)


def test_a_damaged_blob_in_the_store_is_fetched_again(registry: Registry, tmp_path: Path) -> None:
    built = images.image(images.layer(BIG))
    reference = registry.push("damaged", "latest", built)
    store = tmp_path / "store"
    with daemon.running(store, tmp_path / "mnt") as running:
        blob = running.images / str(reference) / "layers" / "00" / "blob"
        whole = blob.read_bytes()
    (kept,) = (store / "layers").iterdir()
    kept.write_bytes(images.flip_byte(whole))
    with daemon.running(store, tmp_path / "mnt") as running:
        content = running.images / str(reference) / "layers" / "00" / "diff" / "big"
        assert content.read_bytes() == BIG.content
        assert "damaged" in running.log()
    assert kept.read_bytes() == whole


def test_leftovers_are_swept_when_a_daemon_starts(tmp_path: Path) -> None:
    store = tmp_path / "store"
    with daemon.running(store, tmp_path / "mnt"):
        pass
    name = f"sha256-{'0' * 64}.{'ab' * 16}.extracting"
    leftover = store / "extracted" / name
    (leftover / "d").mkdir(parents=True)
    with daemon.running(store, tmp_path / "mnt"):
        clients.wait_until(lambda: not leftover.exists())
