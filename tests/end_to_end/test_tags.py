"""Tags stay pinned; with --tag-ttl they are asked for again, and kept while the registry is away."""

import os
import time
from pathlib import Path

import pytest

from tests.support import daemon, images
from tests.support.registry import Registry

pytestmark = [pytest.mark.needs_root, pytest.mark.needs_fuse]

OLD = images.image(images.layer(images.file("file", b"old")))
NEW = images.image(images.layer(images.file("file", b"new")))
_PATIENCE = 60.0


def _soon(link: Path, digest: object) -> bool:
    deadline = time.monotonic() + _PATIENCE
    while not os.readlink(link).endswith(str(digest)):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.1)
    return True


def test_a_pinned_tag_stays_where_it_is(own_registry: Registry, store: Path, mountpoint: Path) -> None:
    reference = own_registry.push("tags", "latest", OLD)
    with daemon.running(store, mountpoint) as running:
        link = running.images / str(reference)
        assert os.readlink(link).endswith(str(OLD.digest))
        own_registry.push("tags", "latest", NEW)
        since = own_registry.mark()
        assert os.readlink(link).endswith(str(OLD.digest))
        assert own_registry.requests(since) == []


def test_a_tag_beyond_its_time_costs_one_head_and_moves(
    own_registry: Registry, store: Path, mountpoint: Path
) -> None:
    reference = own_registry.push("tags", "latest", OLD)
    with daemon.running(store, mountpoint, "--tag-ttl", "1") as running:
        link = running.images / str(reference)
        assert os.readlink(link).endswith(str(OLD.digest))
        own_registry.push("tags", "latest", NEW)
        assert _soon(link, NEW.digest)
        assert (link / "layers" / "00" / "diff" / "file").read_bytes() == b"new"


def test_a_tag_is_kept_with_a_warning_while_its_registry_is_away(
    own_registry: Registry, store: Path, mountpoint: Path
) -> None:
    reference = own_registry.push("tags", "latest", OLD)
    with daemon.running(store, mountpoint, "--tag-ttl", "1") as running:
        link = running.images / str(reference)
        assert os.readlink(link).endswith(str(OLD.digest))
        own_registry.stop()
        time.sleep(1.1)
        assert os.readlink(link).endswith(str(OLD.digest))
        assert f"keeping {OLD.digest}" in running.log()
        own_registry.start()
        own_registry.push("tags", "latest", NEW)
        assert _soon(link, NEW.digest)
