"""Nothing is shown that was not verified: wrong bytes give EIO, a log line, and leave no trace."""

import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from layerfs.oci import Digest
from tests.support import clients, daemon, images
from tests.support.images import BuiltLayer
from tests.support.registry import Registry

pytestmark = [pytest.mark.needs_root, pytest.mark.needs_fuse]

_EIO = os.strerror(errno.EIO)


def _flip(registry: Registry, layer: BuiltLayer) -> None:
    registry.corrupt(layer.digest)


def _flip_first(registry: Registry, layer: BuiltLayer) -> None:
    registry.corrupt(layer.digest, at=0)


def _lengthen(registry: Registry, layer: BuiltLayer) -> None:
    with registry.blob_file(layer.digest).open("ab") as file:
        file.write(b"\0")


@pytest.mark.parametrize(
    "damage",
    [
        pytest.param(_flip, id="one bit flipped near the end"),
        pytest.param(_flip_first, id="first byte flipped"),
        pytest.param(_lengthen, id="one byte more"),
    ],
)
def test_a_blob_with_wrong_bytes_is_refused_and_leaves_no_trace(
    own_registry: Registry, store: Path, mountpoint: Path, damage: Callable[[Registry, BuiltLayer], None]
) -> None:
    good = images.layer(images.file("good", b"good"))
    bad = images.layer(images.file("bad", os.urandom(20_000)))
    reference = own_registry.push("damaged", "latest", images.image(good, bad))
    damage(own_registry, bad)
    sent = own_registry.blob_file(bad.digest).read_bytes()
    found = str(Digest.of(sent)) if len(sent) == bad.size else f"expected {bad.size}"

    with daemon.running(store, mountpoint) as running:
        image = running.images / str(reference)
        with pytest.raises(OSError, match=_EIO):
            clients.read(image / "layers/01/diff/bad")

        assert str(bad.digest) in running.log()
        assert found in running.log()
        assert bad.digest.name not in _traces(store)
        assert clients.read(image / "layers/00/diff/good") == b"good"
        with pytest.raises(OSError, match=_EIO):
            clients.names(image / "rootfs")


def test_the_next_access_tries_again(own_registry: Registry, store: Path, mountpoint: Path) -> None:
    layer = images.layer(images.file("file", b"content"))
    reference = own_registry.push("healed", "latest", images.image(layer))
    own_registry.corrupt(layer.digest)

    with daemon.running(store, mountpoint) as running:
        path = running.images / str(reference) / "layers/00/diff/file"
        with pytest.raises(OSError, match=_EIO):
            clients.read(path)
        own_registry.corrupt(layer.digest)  # the same bit once more: it is right again

        assert clients.read(path) == b"content"


def test_a_layer_that_is_not_the_one_of_the_config_is_refused_for_that_image(
    own_registry: Registry, store: Path, mountpoint: Path
) -> None:
    layer = images.layer(images.file("file", b"content"))
    claimed = Digest.of(b"another archive")
    liar = own_registry.push("liar", "latest", images.image(layer, diff_ids=[claimed]))
    honest = own_registry.push("honest", "latest", images.image(layer))

    with daemon.running(store, mountpoint) as running:
        with pytest.raises(OSError, match=_EIO) as caught:
            clients.read(running.images / str(liar) / "layers/00/diff/file")

        assert caught.value.errno == errno.EIO
        assert str(claimed) in running.log()
        assert str(layer.diff_id) in running.log()
        assert clients.read(running.images / str(honest) / "layers/00/diff/file") == b"content"
        with pytest.raises(OSError, match=_EIO):
            clients.read(running.images / str(liar) / "rootfs/file")


def test_a_config_with_wrong_bytes_is_refused(own_registry: Registry, store: Path, mountpoint: Path) -> None:
    built = images.image(images.layer(images.file("file")))
    reference = own_registry.push("documents", "latest", built)
    own_registry.corrupt(built.config_digest)

    with daemon.running(store, mountpoint) as running:
        with pytest.raises(OSError, match=_EIO):
            clients.names(running.images / str(reference) / "layers")

        assert str(built.config_digest) in running.log()
        assert not list((store / "configs").glob("*"))


def _traces(store: Path) -> str:
    """Return all names in the directories of published and staged layers."""
    places = (store / "layers", store / "extracted")
    return "\n".join(path.name for place in places if place.exists() for path in place.iterdir())
