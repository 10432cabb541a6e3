"""A store opened by a program on trio: pulling, reading, mounting, and what is left of it."""

import errno
import io
import logging
import os
import subprocess
import sys
import tarfile
from collections.abc import Awaitable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import trio

from layerfs.api.on_trio import Store
from layerfs.errors import Denied, DigestMismatch, NotFound, NotInStore, Offline, PlatformMissing, UsageError
from layerfs.status import Fetching, Underway
from tests.api.conftest import BASE, IMAGE, TOP
from tests.support import lazy_images, mounts
from tests.support.registry import Registry


async def test_a_pulled_image_says_what_it_is(store: Path, reference: str) -> None:
    async with Store.open(store) as opened:
        image = await opened.pull(reference)
        names = [str(one.reference) for one in await opened.images()]

    assert (str(image.reference), image.digest) == (reference, IMAGE.digest)
    assert [layer.digest for layer in image.layers] == [BASE.digest, TOP.digest]
    assert image.config.platform.os == "linux"
    assert len(image.history) == 2
    assert names == [reference]


async def test_an_image_of_the_store_is_had_without_a_registry(store: Path, reference: str) -> None:
    async with Store.open(store) as opened:
        await opened.pull(reference)
    async with Store.open(store, offline=True) as opened:
        image = await opened.image(reference)
        assert await image.read_bytes("/etc/motd") == b"welcome"
        with pytest.raises(Offline):
            await opened.pull(reference)


async def test_another_platform_than_the_image_has_is_refused(store: Path, reference: str) -> None:
    async with Store.open(store) as opened:
        with pytest.raises(PlatformMissing):
            await opened.pull(reference, platform="windows/amd64")
        with pytest.raises(PlatformMissing):
            await opened.image(reference, platform="linux/s390x")


@pytest.mark.parametrize(
    ("path", "content"),
    [
        ("/etc/motd", b"welcome"),
        ("etc/motd", b"welcome"),
        (b"run/motd", b"welcome"),
        ("etc/self", b"welcome"),
        ("etc/out", b"welcome"),
        ("run/../etc/./self", b"welcome"),
        ("../../etc/motd", b"welcome"),
    ],
)
async def test_a_path_is_resolved_within_the_image(
    pulled: tuple[Path, str], path: str | bytes, content: bytes
) -> None:
    store, reference = pulled
    async with Store.open(store) as opened:
        assert await (await opened.image(reference)).read_bytes(path) == content


@pytest.mark.parametrize(
    ("path", "number"),
    [
        ("etc/old", errno.ENOENT),
        ("etc/.wh.old", errno.ENOENT),
        ("etc/loop", errno.ELOOP),
        ("etc", errno.EISDIR),
        ("etc/motd/", errno.ENOTDIR),
        ("etc/motd/..", errno.ENOTDIR),
        ("etc/motd/x", errno.ENOTDIR),
    ],
)
async def test_what_cannot_be_opened_has_the_errno_of_a_system_call(
    pulled: tuple[Path, str], path: str, number: int
) -> None:
    store, reference = pulled
    async with Store.open(store) as opened:
        image = await opened.image(reference)
        with pytest.raises(OSError, match=path) as caught:
            await image.open(path)

    assert (caught.value.errno, caught.value.filename) == (number, path)


async def test_all_of_an_image_is_listed_as_it_is_merged(pulled: tuple[Path, str]) -> None:
    store, reference = pulled
    async with Store.open(store) as opened:
        image = await opened.image(reference)
        found = {entry.path: entry async for entry in image.walk()}
        names = await image.listdir("run")
        new, link = await image.stat("etc/new"), await image.stat("run", follow_symlinks=False)
        target = await image.readlink("/etc/out")

    below = ["/etc/loop", "/etc/motd", "/etc/new", "/etc/out", "/etc/self"]
    assert list(found) == ["/", "/etc", *below, "/run"]
    assert names == [name.rpartition("/")[2] for name in below]
    assert (new, new.size, new.mode & 0o7777) == (found["/etc/new"], 100_000, 0o4755)
    assert (link.is_symlink, found["/etc"].is_dir, new.is_file, new.name) == (True, True, True, "new")
    assert target == "../../../../etc/motd"


async def test_a_file_that_is_larger_than_wanted_is_not_read(pulled: tuple[Path, str]) -> None:
    store, reference = pulled
    async with Store.open(store) as opened:
        image = await opened.image(reference)
        with pytest.raises(OSError, match="etc/new") as caught:
            await image.read_bytes("etc/new", limit=99_999)

    assert caught.value.errno == errno.EFBIG


async def test_reading_fetches_no_more_than_is_looked_at(store: Path, registry: Registry) -> None:
    reference = str(lazy_images.push_lazy(registry, lazy_images.LAZY[0], "api/lazy"))
    size = sum(layer.size for layer in lazy_images.load(lazy_images.LAZY[0]).layers)
    mark = registry.mark()
    async with Store.open(store) as opened:
        image = await opened.image(reference)
        files = [entry async for entry in image.walk() if entry.is_file and entry.size]
        small = min(files, key=lambda entry: entry.size)
        content = await image.read_bytes(small.path)
        assert [opened.storage.open_layer(layer.digest) for layer in image.layers] == [None] * len(
            image.layers
        )
    sent = sum(one.size for one in registry.requests(mark) if one.blob is not None)

    assert len(content) == small.size
    assert 0 < sent < size


async def test_the_exported_archive_is_the_merged_root(pulled: tuple[Path, str]) -> None:
    stream = io.BytesIO()
    store, reference = pulled
    async with Store.open(store) as opened:
        await (await opened.image(reference)).export(stream)
    stream.seek(0)

    with tarfile.open(fileobj=stream) as archive:
        assert "etc/old" not in archive.getnames()
        member = archive.extractfile("etc/motd")
        assert member is not None
        assert member.read() == b"welcome"


@pytest.mark.needs_root
async def test_a_mounted_root_is_the_image_until_its_block_is_left(
    pulled: tuple[Path, str], mountpoint: Path
) -> None:
    store, reference = pulled
    async with Store.open(store) as opened:
        image = await opened.image(reference)
        async with await image.mount(mountpoint) as mount:
            assert (mount.path, mount.upper) == (mountpoint, None)
            assert sorted(os.listdir(mountpoint / "etc")) == ["loop", "motd", "new", "out", "self"]
            with pytest.raises(OSError, match="Read-only"):
                (mountpoint / "new").touch()
            options = mounts.mount_at(mountpoint)
        await mount.close()

    assert options is not None
    assert os.listdir(mountpoint) == []


@pytest.mark.needs_root
async def test_what_is_written_to_a_root_is_gone_with_it(pulled: tuple[Path, str], mountpoint: Path) -> None:
    store, reference = pulled
    async with Store.open(store) as opened:
        image = await opened.image(reference)
        async with await image.mount(mountpoint, rw=True) as mount:
            (mountpoint / "mine").write_text("x")
            assert mount.upper is not None
            assert (mount.upper / "mine").exists()
        with pytest.raises(UsageError, match="upper needs work"):
            await image.mount(mountpoint, upper=store)

    assert mount.upper is not None
    assert not mount.upper.parent.exists()


async def test_progress_is_told_to_its_end_and_not_too_often(store: Path, reference: str) -> None:
    told: list[tuple[float, Underway]] = []
    async with Store.open(store) as opened:
        await opened.pull(reference, progress=lambda found: told.append((trio.current_time(), found)))
        again: list[Underway] = []
        await opened.pull(reference, progress=again.append)

    for layer in (BASE, TOP):
        times = [when for when, found in told if found.digest == str(layer.digest)]
        last = [found for _, found in told if found.digest == str(layer.digest)][-1]
        assert (last.phase, last.received, last.size) == ("done", layer.size, layer.size)
        assert all(sum(begin <= when < begin + 1 for when in times) <= 10 for begin in times)
    assert again == []


async def test_an_error_of_a_callback_ends_the_pull_as_itself(store: Path, reference: str) -> None:
    def fail(_: Underway) -> None:
        raise ZeroDivisionError

    async with Store.open(store) as opened:
        with pytest.raises(ZeroDivisionError):
            await opened.pull(reference, progress=fail)


async def test_events_are_what_status_knows(store: Path, reference: str) -> None:
    seen: list[Fetching] = []
    async with Store.open(store) as opened, trio.open_nursery() as nursery:

        async def watch() -> None:
            async for found in opened.events():
                seen.append(found)
                if found.fetched == 2:
                    nursery.cancel_scope.cancel()

        nursery.start_soon(watch)
        await opened.pull(reference)

    assert seen[0] == Fetching(waiting=0, fetching=(), errors=())
    assert (seen[-1].fetched, seen[-1].fetched_bytes) == (2, BASE.size + TOP.size)


async def test_an_error_leaves_the_store_as_itself(store: Path, reference: str) -> None:
    with pytest.raises(NotFound):
        async with Store.open(store) as opened:
            await opened.pull(f"{reference}-nothing")
    with pytest.raises(ZeroDivisionError):
        async with Store.open(store) as opened:
            await _fail_after(opened.pull(reference))


async def _fail_after(work: Awaitable[object]) -> None:
    await work
    raise ZeroDivisionError


async def test_bytes_that_differ_from_their_digest_are_refused(store: Path, own_registry: Registry) -> None:
    reference = str(own_registry.push("api/corrupt", "1", IMAGE))
    own_registry.corrupt(TOP.digest)
    async with Store.open(store) as opened:
        with pytest.raises(DigestMismatch):
            await opened.pull(reference)
        assert opened.storage.open_layer(TOP.digest) is None


async def test_a_deadline_ends_a_pull_and_the_store_goes_on(store: Path, pausing: Registry) -> None:
    reference = str(pausing.push("api/slow", "1", IMAGE))
    async with Store.open(store) as opened:
        with pausing.paused(), pytest.raises(trio.TooSlowError):
            with trio.fail_after(0.2):
                await opened.pull(reference)
        assert (await opened.pull(reference)).digest == IMAGE.digest


async def test_what_a_store_uses_stays_until_it_is_closed(store: Path, reference: str) -> None:
    async with Store.open(store) as opened:
        image = await opened.pull(reference)
        opened.storage.refs.remove(image.reference)
        assert (await opened.gc()).freed == 0
        assert (await opened.gc(plan_only=True)).removed == {}
        lease = await opened.lease("job", [image])
    async with Store.open(store) as opened:
        assert (await opened.gc()).freed == 0
        assert [name for name, _ in opened.storage.leases.holding()] == ["job"]
        await lease.close()
        assert (await opened.gc(plan_only=True)).freed > 0
        assert (await opened.gc()).freed > 0
        assert opened.storage.open_layer(BASE.digest) is None


async def test_leases_of_all_processes_are_listed_and_ended_by_name(store: Path) -> None:
    until = datetime.now(UTC) + timedelta(hours=1)
    async with Store.open(store) as opened:
        await opened.lease("job", [BASE.digest], until=until)
        held = await opened.leases()
        await opened.end_lease("job")
        with pytest.raises(NotInStore, match="job: no such lease"):
            await opened.end_lease("job")
        left = await opened.leases()

    assert [(name, lease.digests, lease.until) for name, lease in held.items()] == [
        ("job", (str(BASE.digest),), until)
    ]
    assert left == {}


async def test_an_image_is_removed_with_what_nothing_else_needs(store: Path, reference: str) -> None:
    async with Store.open(store) as opened:
        await opened.pull(reference)
        kept = await opened.remove([reference], plan_only=True)
        assert kept.removed == {}, "this store uses it until it is closed"
    async with Store.open(store) as opened:
        planned = await opened.remove([reference], plan_only=True)
        (row,) = await opened.images()
        done = await opened.remove([row.reference])
        with pytest.raises(NotInStore):
            await opened.remove([reference])
        left = await opened.images()

    assert planned.removed == done.removed != {}
    assert left == []


async def test_damage_is_found_and_repaired(store: Path, reference: str) -> None:
    async with Store.open(store) as opened:
        image = await opened.pull(reference)
        path = opened.storage.layer_tarball_path(TOP.digest)
        path.chmod(0o600)
        path.write_bytes(b"damaged")
        found = await opened.verify([reference])
        mended = await opened.verify(repair=True)
        again = await opened.verify(quick=True)
        used = await opened.usage()

    assert (found.wrong > 0, mended.wrong, mended.count("repaired") > 0, again.wrong) == (True, 0, True, 0)
    assert list(used.inventory.images) == [image.reference]


@pytest.mark.parametrize(
    ("option", "value", "text"),
    [("colour", "red", "colour: no option"), ("login", "somebody", "user and a password")],
)
async def test_an_option_that_cannot_be_is_refused(store: Path, option: str, value: str, text: str) -> None:
    with pytest.raises(UsageError, match=text):
        async with Store.open(store, **{option: value}):  # type: ignore[arg-type]
            pass


async def test_options_reach_who_asks_the_registry(store: Path) -> None:
    async with Store.open(store, registries=["example.org"]) as opened:
        with pytest.raises(Denied, match=r"only example\.org"):
            await opened.pull("127.0.0.1:1/a")


def test_logging_is_left_alone(store: Path) -> None:
    code = (
        "import logging, sys, layerfs\n"
        "with layerfs.Store.open(sys.argv[1], offline=True) as store:\n"
        "    logging.getLogger('layerfs.api').info('x')\n"
        "root = logging.getLogger()\n"
        "assert not root.handlers and root.level == logging.WARNING, root.handlers\n"
        "assert all(not logging.getLogger(name).handlers and not logging.getLogger(name).level\n"
        "           for name in logging.root.manager.loggerDict if name.startswith('layerfs'))\n"
    )
    done = subprocess.run([sys.executable, "-c", code, store], capture_output=True, text=True)

    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert logging.getLogger("layerfs").level == logging.NOTSET


def test_importing_layerfs_imports_nothing_else() -> None:
    code = (
        "import sys, layerfs; print(*(name for name in sys.modules if name.startswith(('layerfs.', 'trio'))))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout.split() == []
