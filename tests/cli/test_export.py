"""`layerfs export`: the merged root as a tar, equal to what the specification says, always the same bytes."""

import hashlib
import os
import shutil
import stat
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings

from layerfs.errors import StoreDamaged
from layerfs.store import ImageStorage, owner
from layerfs.view.archive import copy_content, write_tar
from layerfs.view.nodes import FileContent, Node
from tests.cli.conftest import CommandLine
from tests.support import canary, images, model
from tests.support.images import (
    chardev,
    directory,
    fifo,
    file,
    hardlink,
    image,
    layer,
    opaque,
    symlink,
    whiteout,
)
from tests.support.stacks import Stack, patiently, stacks

pytestmark = pytest.mark.needs_root

LAYERS = (
    layer(
        directory("etc", 0o750, uid=5),
        file("etc/motd", b"hello\n", mtime=1_600_000_000.25),
        hardlink("etc/link", "etc/motd"),
        file("bin/su", b"x" * 70_000, mode=0o4755, gid=70_000, xattrs={"user.note": b"\0\xff"}),
        directory("tmp", 0o1777),
        directory("gone"),
        file("gone/a"),
        directory("emptied"),
        file("emptied/a"),
    ),
    layer(
        whiteout("gone"),
        opaque("emptied"),
        file("emptied/b" + "n" * 120),
        symlink("l", "t" * 150),
        chardev("dev/null", 1, 3),
        fifo("pipe"),
        file(b"\xffname", b"1"),
        file("n\N{LATIN SMALL LETTER E WITH ACUTE}w"),
    ),
)
BUILT = image(*LAYERS)


def unpacked(archive: bytes, target: Path) -> canary.Snapshot:
    """Let GNU tar unpack *archive*, and describe what it made."""
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir()
    tar = ["tar", "-xp", "--xattrs", "--xattrs-include=*", "--numeric-owner", "--warning=no-timestamp"]
    done = subprocess.run([*tar, "-C", str(target)], input=archive, capture_output=True, check=True)
    assert done.stderr == b""
    return canary.snapshot(target)


def imported(layerfs: CommandLine, tmp_path: Path) -> None:
    images.write_layout(tmp_path / "lay", BUILT)
    layerfs("import", f"oci:{tmp_path}/lay", "a:1")


def test_the_archive_is_what_umoci_unpacks(layerfs: CommandLine, tmp_path: Path) -> None:
    imported(layerfs, tmp_path)
    layerfs("export", "a:1", "-o", "a.tar")
    found = unpacked((layerfs.home / "a.tar").read_bytes(), tmp_path / "root")
    umoci = ["umoci", "raw", "unpack", "--image", f"{tmp_path}/lay:latest", str(tmp_path / "umoci")]
    subprocess.run(umoci, check=True, capture_output=True)
    expected = canary.snapshot(tmp_path / "umoci")

    # umoci dates implied directories and those it removes from as of now.
    def undated(tree: canary.Snapshot) -> canary.Snapshot:
        return {path: replace(fact, mtime_ns=0) if fact.kind == "d" else fact for path, fact in tree.items()}

    canary.assert_same(undated(expected), undated(found))


def test_a_file_that_is_too_short_names_its_layer_and_the_advice_mends_it(
    layerfs: CommandLine, tmp_path: Path
) -> None:
    imported(layerfs, tmp_path)
    layerfs("export", "a:1", "-o", "whole.tar")
    damaged = layerfs.store / "extracted" / LAYERS[0].digest.name
    (damaged / "etc" / "motd").write_bytes(b"he")
    root = os.open(damaged, os.O_RDONLY)
    written = bytearray()

    class Shrunk(Node):
        def open(self) -> FileContent:
            return FileContent(root, b"etc/motd", 6)

    with pytest.raises(StoreDamaged, match="4 bytes are missing") as caught:
        copy_content(b"etc/motd", Shrunk(1), 6, written.extend)
    os.close(root)
    assert f"remove the directory {damaged}, and the next access" in str(caught.value)

    shutil.rmtree(damaged)
    layerfs("export", "a:1", "-o", "a.tar")
    assert (layerfs.home / "a.tar").read_bytes() == (layerfs.home / "whole.tar").read_bytes()


def test_it_is_the_same_each_time_and_sorted_and_bsdtar_reads_it(
    layerfs: CommandLine, tmp_path: Path
) -> None:
    imported(layerfs, tmp_path)
    command = f"layerfs export a:1 | tee {tmp_path}/1.tar | sha256sum"
    piped = subprocess.run(["bash", "-c", command], env=layerfs.environment, capture_output=True, check=True)
    layerfs("export", "a:1", "--output", tmp_path / "2.tar")
    content = (tmp_path / "2.tar").read_bytes()
    assert piped.stdout.split()[0].decode() == hashlib.sha256(content).hexdigest()
    listed = subprocess.run(
        ["tar", "--quoting-style=literal", "-tf", str(tmp_path / "2.tar")], capture_output=True, check=True
    )
    names = listed.stdout.splitlines()
    assert names[0] == b"./"
    assert names[1:] == sorted(names[1:], key=lambda name: name.split(b"/"))
    assert subprocess.run(["bsdtar", "-tf", str(tmp_path / "2.tar")], capture_output=True).stderr == b""


def test_a_reader_that_leaves_early_ends_it_quietly(layerfs: CommandLine, tmp_path: Path) -> None:
    imported(layerfs, tmp_path)
    command = "layerfs export a:1 | head -c 1000 >/dev/null"
    done = subprocess.run(["bash", "-c", command], env=layerfs.environment, capture_output=True)
    assert done.stderr == b""


def test_a_device_or_a_pipe_is_written_to_and_not_replaced(layerfs: CommandLine, tmp_path: Path) -> None:
    imported(layerfs, tmp_path)
    null, pipe = tmp_path / "null", tmp_path / "pipe"
    os.mknod(null, 0o666 | stat.S_IFCHR, os.makedev(1, 3))
    os.mkfifo(pipe)

    layerfs("export", "a:1", "-o", null)
    assert stat.S_ISCHR(null.lstat().st_mode)
    with subprocess.Popen(["cat", pipe], stdout=subprocess.PIPE) as reader:
        layerfs("export", "a:1", "-o", pipe)
        assert reader.stdout is not None
        piped = reader.stdout.read()
    layerfs("export", "a:1", "-o", "a.tar")

    assert stat.S_ISFIFO(pipe.lstat().st_mode)
    assert piped == (layerfs.home / "a.tar").read_bytes()


def test_a_file_that_cannot_be_written_is_an_error_and_leaves_nothing(
    layerfs: CommandLine, tmp_path: Path
) -> None:
    imported(layerfs, tmp_path)
    assert "no directory gone" in layerfs("export", "a:1", "-o", "gone/a.tar", code=2).stderr
    (layerfs.home / "full").mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=16k", "tmpfs", str(layerfs.home / "full")]
    subprocess.run(mount, check=True)
    try:
        assert "No space" in layerfs("export", "a:1", "-o", "full/a.tar", code=1).stderr
        assert os.listdir(layerfs.home / "full") == []
    finally:
        subprocess.run(["umount", str(layerfs.home / "full")], check=True)


def test_an_image_that_nobody_has_is_not_found_offline(layerfs: CommandLine) -> None:
    ImageStorage(layerfs.store).close()
    assert "offline" in layerfs("export", "--offline", "a:1", code=5).stderr


@pytest.fixture(scope="module", params=["root", "user"])
def storage(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ImageStorage]:
    """A store whose trees are written as by root, and one where an ordinary user's records say the rest."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(owner, "owner_kind", lambda: request.param)
        with ImageStorage(tmp_path_factory.mktemp("export") / "store") as opened:
            assert opened.capabilities.owner == request.param
            yield opened


def exported(layers: Sequence[images.BuiltLayer], storage: ImageStorage) -> bytes:
    found = []
    for built in layers:
        blob = storage.images_dir.with_name("blob")
        blob.write_bytes(built.blob)
        found.append(storage.extract_layer(built.digest, blob))
    parts: list[bytes] = []
    write_tar(found, parts.append)
    return b"".join(parts)


@settings(patiently, max_examples=25, database=None)
@given(stack=stacks())
def test_random_stacks_are_exported_as_the_specification_says(stack: Stack, storage: ImageStorage) -> None:
    archive = exported([layer(*entries) for entries in stack.layers], storage)
    found = unpacked(archive, storage.images_dir.with_name("root"))
    canary.assert_same(model.snapshot(model.apply(stack.layers)), found)


def test_the_archive_does_not_depend_on_who_wrote_the_store(storage: ImageStorage) -> None:
    digest = hashlib.sha256(exported(LAYERS, storage)).hexdigest()
    assert digest == "9b75b72a5a1d26f4fb83701dc220419e1e184690c5cd7b4a83a7b69ab1c88716"
