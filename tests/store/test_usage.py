import os
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from errno import EACCES
from pathlib import Path

import pytest

from layerfs.errors import StoreError
from layerfs.host.mounts import parse_mountinfo
from layerfs.layer.overlayfs import split_lowerdir
from layerfs.oci import Digest
from layerfs.store import ImageStorage
from layerfs.store.usage import lower_directories, read_usage
from tests.store.helpers import leftovers, publish

FIRST, SECOND = Digest.of(b"first"), Digest.of(b"second")

LINE = b"36 25 0:32 / /merged rw,relatime shared:1 - overlay overlay "


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        pytest.param(rb"ro,lowerdir=/a:/b", [b"/a", b"/b"], id="mount(2)"),
        pytest.param(rb"ro,lowerdir+=/a,lowerdir+=/b", [b"/a", b"/b"], id="fsconfig(2)"),
        pytest.param(rb"ro,lowerdir=a:b/c", [b"a", b"b/c"], id="relative"),
        pytest.param(rb"ro,lowerdir=/a\040b:/c\011d\012e", [b"/a b", b"/c\td\ne"], id="octal"),
        pytest.param(
            rb"ro,lowerdir=/a\134:b:/c\134\134d\134\054e", [b"/a:b", rb"/c\d,e"], id="escaped twice"
        ),
        pytest.param(rb"ro,lowerdir+=/a:b,lowerdir+=/c\134d\054e", [b"/a:b", rb"/c\d,e"], id="raw"),
        pytest.param(rb"ro,lowerdir=/a::/b::/c", [b"/a", b"/b", b"/c"], id="data-only layers"),
        pytest.param(rb"ro,lowerdir+=/a,datadir+=/b", [b"/a", b"/b"], id="data-only layers, fsconfig(2)"),
        pytest.param(rb"ro,upperdir=/u,workdir=/w,lowerdir=/a", [b"/a"], id="with an upper"),
        pytest.param(rb"ro", [], id="nothing"),
    ],
)
def test_both_spellings_of_lower_directories_are_read(options: bytes, expected: list[bytes]) -> None:
    [mount] = parse_mountinfo(LINE + options)
    found = list(lower_directories(mount))
    assert found[: len(expected)] == expected
    assert bool(found) == bool(expected)


def test_doubtful_backslashes_count_in_both_readings() -> None:
    assert split_lowerdir(rb"/a\b") == [b"/ab", rb"/a\b"]
    assert b"/b" in split_lowerdir(rb"/a\:/b")
    assert b"/a:/b" in split_lowerdir(rb"/a\:/b")


def fake_proc(tmp_path: Path, *mountinfos: bytes) -> Path:
    proc = tmp_path / "proc"
    for number, text in enumerate(mountinfos, start=1):
        (proc / str(number) / "ns").mkdir(parents=True)
        (proc / str(number) / "ns/mnt").symlink_to(f"mnt:[{number}]")
        (proc / str(number) / "mountinfo").write_bytes(text)
        (proc / str(number) / "root").symlink_to("/")
    (proc / "self").mkdir()
    return proc


def test_names_and_short_ids_are_uses_wherever_they_lead_through(tmp_path: Path) -> None:
    lines = [
        LINE + f"ro,lowerdir=/mnt/lower/{FIRST.short_id}:/x".encode(),
        LINE + f"ro,lowerdir=../extracted/{SECOND.name}:y".encode(),
        f"37 25 8:1 /store/extracted/{Digest.of(b'bound').name}/etc /m ro - ext4 /dev/sda rw".encode(),
    ]
    usage = read_usage(fake_proc(tmp_path, *lines))
    for digest in (FIRST, SECOND, Digest.of(b"bound")):
        assert usage.uses(digest)
    assert not usage.uses(Digest.of(b"unused"))


def test_a_link_that_somebody_made_is_followed(tmp_path: Path) -> None:
    target = tmp_path / "extracted" / FIRST.name
    target.mkdir(parents=True)
    (tmp_path / "my layer").symlink_to(target)
    line = LINE + b"ro,lowerdir=" + os.fsencode(tmp_path).replace(b" ", rb"\040") + rb"/my\040layer:/"
    assert read_usage(fake_proc(tmp_path, line)).uses(FIRST)


@pytest.mark.needs_root
def test_a_mount_that_one_of_two_processes_may_be_asked_of_is_seen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "extracted" / FIRST.name
    target.mkdir(parents=True)
    (tmp_path / "link").symlink_to(target)
    line = LINE + b"ro,lowerdir=" + os.fsencode(tmp_path / "link") + b":/"
    proc = fake_proc(tmp_path, line, line)
    real = os.open

    def guarded(path: bytes, *arguments: int) -> int:
        if any(path.startswith(os.fsencode(proc / pid / "root")) for pid in refused):
            raise PermissionError(EACCES, "no")
        return real(path, *arguments)

    refused = ["1"]
    monkeypatch.setattr(os, "open", guarded)
    assert read_usage(proc).uses(FIRST)
    assert not read_usage(proc).unreadable
    refused.append("2")
    assert not read_usage(proc).uses(FIRST)
    assert read_usage(proc).unreadable == {0: 2}


def test_namespaces_that_cannot_be_read_are_counted(tmp_path: Path) -> None:
    proc = fake_proc(tmp_path, b"", b"")
    (proc / "2/mountinfo").unlink()
    (proc / "2/mountinfo").mkdir()
    (proc / "3").mkdir()
    assert sum(read_usage(proc).unreadable.values()) == 1


# With the kernel


@contextmanager
def mounted(point: Path, *command: str) -> Iterator[None]:
    point.mkdir(parents=True)
    subprocess.run(["mount", *command, str(point)], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", point], check=True)


def escaped(path: Path) -> str:
    return str(path).replace("\\", "\\\\").replace(":", "\\:").replace(",", "\\,")


@pytest.mark.needs_root
@pytest.mark.parametrize("place", ["store", "a b", "co:lon", "com,ma", "back\\slash", "ü\n"])
def test_what_an_overlay_uses_is_in_use_and_cannot_be_removed(tmp_path: Path, place: str) -> None:
    storage = ImageStorage(tmp_path / place)
    for content in (b"first", b"second", b"unused"):
        publish(storage, content)
    lowers = ":".join(escaped(storage.layer_extracted_path(digest)) for digest in (FIRST, SECOND))
    with mounted(tmp_path / "merged", "-t", "overlay", "overlay", "-o", f"lowerdir={lowers}"):
        usage = storage.usage()
        assert usage.uses(FIRST)
        assert usage.uses(SECOND)
        assert not usage.uses(Digest.of(b"unused"))
        for remove in (storage.remove_layer, storage.discard_layer):
            with pytest.raises(StoreError, match="in use"):
                remove(FIRST)
        assert storage.remove_layer(Digest.of(b"unused"))
        storage.layer_extracted_path(SECOND).with_suffix(".json").unlink()
        storage.sweep()
        assert (tmp_path / "merged/content").read_bytes() == b"first"
        assert storage.has_layer(FIRST)
        assert storage.layer_extracted_path(SECOND).is_dir()
        # Set aside by a process that was killed before it could look again.
        aside = tmp_path / place / "extracted" / f"{FIRST.name}.{'0' * 32}.removing"
        storage.layer_extracted_path(FIRST).rename(aside)
        storage.sweep()
        assert (tmp_path / "merged/content").read_bytes() == b"first"
        assert aside.is_dir()
        aside.rename(storage.layer_extracted_path(FIRST))
    # What the kernel said may be remembered for a moment; a fresh look shows that it is over.
    assert not storage.usage().uses(FIRST)
    assert storage.remove_layer(FIRST)
    storage.sweep()
    assert leftovers(storage.images_dir) == []


@pytest.mark.needs_root
def test_bind_mounts_and_other_namespaces_count(storage: ImageStorage, tmp_path: Path) -> None:
    publish(storage, b"first")
    publish(storage, b"second")
    with ExitStack() as stack:
        source = str(storage.layer_extracted_path(FIRST))
        stack.enter_context(mounted(tmp_path / "bound", "--bind", source))
        script = f"mount --bind {storage.layer_extracted_path(SECOND)} /mnt && echo mounted && sleep 60"
        elsewhere = subprocess.Popen(["unshare", "-m", "sh", "-c", script], stdout=subprocess.PIPE)
        stack.callback(elsewhere.wait)
        stack.callback(elsewhere.kill)
        stack.callback(subprocess.run, ["pkill", "-P", str(elsewhere.pid)])
        assert elsewhere.stdout is not None
        stack.callback(elsewhere.stdout.close)
        assert elsewhere.stdout.readline() == b"mounted\n"
        usage = storage.usage()
        assert usage.uses(FIRST)
        assert usage.uses(SECOND)


@pytest.mark.needs_root
def test_a_mount_between_the_look_and_the_rename_is_noticed(
    storage: ImageStorage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(storage, b"first")
    publish(storage, b"second")
    lowers = ":".join(str(storage.layer_extracted_path(digest)) for digest in (FIRST, SECOND))
    storage.usage()  # now remembered: nothing is in use
    real = os.rename
    with ExitStack() as stack:

        def rename_late(source: Path, target: Path) -> None:
            if target.name.endswith(".removing"):
                monkeypatch.setattr(os, "rename", real)
                option = f"lowerdir={lowers}"
                stack.enter_context(mounted(tmp_path / "m", "-t", "overlay", "overlay", "-o", option))
            real(source, target)

        monkeypatch.setattr(os, "rename", rename_late)
        with pytest.raises(StoreError, match="in use"):
            storage.discard_layer(FIRST)
        assert storage.open_layer(FIRST) is not None
        assert (tmp_path / "m/content").read_bytes() == b"first"
