"""What README says of searching images, word by word: what finds something, what leads out of an image."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from tests.support import clients, daemon, images
from tests.support.registry import Registry

pytestmark = [pytest.mark.needs_root, pytest.mark.needs_fuse]

_README: Final = (Path(__file__).parents[2] / "README.md").read_text()
_COMMANDS: Final = re.findall(r"`((?:grep|find|chroot) [^`]*(?:layers|rootfs)/[^`]*)`", _README)
"""Each with TEXT or NAME in it."""
_SECRET: Final = "planted-key"


def _found(place: Path, command: str) -> list[str]:
    """Return the files that a command of README finds."""
    filled = command.replace("TEXT", _SECRET).replace("NAME", "key")
    done = clients.run("bash", "-c", f"cd {place} && {filled}")
    return sorted(line.partition(":")[0] for line in done.stdout.decode().splitlines())


@pytest.fixture
def image(registry: Registry, store: Path, mountpoint: Path, tmp_path: Path) -> Iterator[Path]:
    """The directory of an image: a key that a later layer deletes, another one, a link that leads out."""
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "key").write_text(_SECRET)
    base = images.layer(
        images.file("root/key", _SECRET.encode()),
        images.symlink("out", str(outside)),
        images.file("bin/find", Path("/bin/busybox").read_bytes(), mode=0o755),
    )
    top = images.layer(images.whiteout("root/key"), images.file("etc/key", _SECRET.encode()))
    reference = registry.push("e2e/searching", "1", images.image(base, top))
    with daemon.running(store, mountpoint) as running:
        yield running.images / str(reference)


def test_what_readme_says_of_searching_is_so(image: Path) -> None:
    found = {command: _found(image, command) for command in _COMMANDS}

    each, merged = ["layers/00/diff/root/key", "layers/01/diff/etc/key"], ["rootfs/etc/key"]
    assert found == {
        "grep -r TEXT layers/*/diff/": each,
        "grep -r TEXT rootfs/": merged,
        "find layers/*/diff/ -name NAME": each,
        "find rootfs/ -name NAME": merged,
        "chroot rootfs/ find -L / -name NAME": ["/etc/key"],
    }
    assert _found(image, "grep -r TEXT . || true") == []
    assert _found(image, "find . -name NAME") == []
    assert "rootfs/out/key" in _found(image, "grep -R TEXT rootfs/")
    assert "rootfs/out/key" in _found(image, "find -L rootfs/ -name NAME")
