"""A hostile layer is an input/output error and a line in the log, and does no harm to the mount."""

import errno
import os
from pathlib import Path

import pytest

from tests.bad_layers.table import ROWS
from tests.support import clients, daemon, images
from tests.support.registry import Registry

pytestmark = [pytest.mark.needs_root, pytest.mark.needs_fuse]


def test_hostile_layers_of_an_image_do_no_harm_to_the_mount(
    registry: Registry, store: Path, mountpoint: Path
) -> None:
    hostile = [row for row in ROWS if row.refused is not None and row.escapes]
    good = images.layer(images.file("good", b"good"))
    bad = [images.layer(archive=row.build(b"/nowhere-of-layerfs")) for row in hostile]
    reference = registry.push("bad-layers", "latest", images.image(good, *bad))

    with daemon.running(store, mountpoint) as running:
        layers = running.images / str(reference) / "layers"
        for number, row in enumerate(hostile, start=1):
            with pytest.raises(OSError, match=os.strerror(errno.EIO)):
                clients.names(layers / f"{number:02}" / "diff")
            assert all(part in running.log() for part in row.says), row.name
        assert clients.read(layers / "00/diff/good") == b"good"
        assert [path.name for path in (store / "extracted").iterdir() if path.is_dir()] == [good.digest.name]
