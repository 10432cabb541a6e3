"""Roots that are mounted before their image is here, by programs."""

import asyncio
from pathlib import Path

import pytest
import trio

import layerfs
from layerfs.api import on_asyncio
from layerfs.api.on_trio import Store
from layerfs.errors import UsageError
from layerfs.oci import Tag
from tests.overlay.scene import mounted_quietly
from tests.overlay.test_bell import BASE, FILES, IMAGE
from tests.support import clients, daemon, mounts
from tests.support.registry import Registry

pytestmark = [pytest.mark.needs_root, pytest.mark.needs_fuse]


@pytest.fixture(scope="module")
def pushed(_session_registry: Registry) -> Tag:
    return _session_registry.push("api/lazy-roots", "1", IMAGE)


@pytest.fixture
def target(tmp_path: Path) -> Path:
    made = tmp_path / "root"
    made.mkdir()
    return made


def _is_whole(store: Path) -> bool:
    return (store / "extracted" / BASE.digest.name).exists()


def test_a_root_is_there_before_its_files_and_writable(
    pushed: Tag, tmp_path: Path, target: Path, registry: Registry
) -> None:
    path = tmp_path / "store"
    with (
        daemon.running(path, tmp_path / "mount", environment=mounted_quietly(tmp_path)),
        layerfs.Store.open(path) as store,
    ):
        mark = registry.mark()
        with store.image(str(pushed)).mount(target, rw=True, lazy="always") as made:
            assert clients.read(target / "etc/motd") == FILES["etc/motd"]
            (target / "etc/motd").write_bytes(b"mine")
            assert made.upper is not None
            assert (made.upper / "etc/motd").read_bytes() == b"mine"
            assert not _is_whole(path)
            assert clients.read(target / "large") == FILES["large"]
        assert mounts.mount_at(target) is None
        assert list((path / "overlays").iterdir()) == []
        with store.image(str(pushed)).mount(target):
            assert {name: clients.read(target / name) for name in FILES} == FILES
        assert not _is_whole(path), "auto is lazy, too, where a mount can be asked"
    assert BASE.digest in registry.blob_requests(mark), "parts of it"


async def test_without_a_mount_to_ask_it_is_whole_or_refused(
    pushed: Tag, tmp_path: Path, target: Path
) -> None:
    path = tmp_path / "store"
    async with Store.open(path) as store:
        image = await store.image(str(pushed))
        with pytest.raises(UsageError, match=rf"lazy=always: no mount serves {path} \(expected one: "):
            await image.mount(target, lazy="always")
        assert mounts.mount_at(target) is None
        async with await image.mount(target, lazy="auto"):
            assert await trio.to_thread.run_sync(clients.read, target / "etc/motd") == FILES["etc/motd"]
    assert _is_whole(path)


async def test_never_asks_nobody(pushed: Tag, tmp_path: Path, target: Path) -> None:
    path = tmp_path / "store"
    with daemon.running(path, tmp_path / "mount", environment=mounted_quietly(tmp_path)):
        async with Store.open(path) as store:
            image = await store.image(str(pushed))
            async with await image.mount(target, lazy="never"):
                assert _is_whole(path)


def test_asyncio_has_it_too(pushed: Tag, tmp_path: Path, target: Path) -> None:
    path = tmp_path / "store"

    async def main() -> bytes:
        async with on_asyncio.Store.open(path) as store:
            image = await store.image(str(pushed))
            async with await image.mount(target, lazy="always"):
                return await asyncio.to_thread(clients.read, target / "etc/motd")

    with daemon.running(path, tmp_path / "mount", environment=mounted_quietly(tmp_path)):
        assert asyncio.run(main()) == FILES["etc/motd"]
    assert not _is_whole(path)
