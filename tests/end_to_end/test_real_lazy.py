"""Images that Debian's tools wrote with TOCs, through a real mount: shown as their whole layers are."""

from dataclasses import replace
from pathlib import Path

import pytest

from tests.end_to_end.test_lazy import not_behind
from tests.support import daemon
from tests.support.canary import Snapshot, assert_same, snapshot
from tests.support.lazy_images import CHUNKED, EXTERNAL, LAZY, load
from tests.support.registry import Registry

pytestmark = [pytest.mark.needs_root, pytest.mark.needs_fuse]

_SECOND = 10**9
_APART = ("debian12-skopeo", "debian13-podman", "debian13-estargz-packed", "debian13-stargz-zstd")
"""One for each form of TOC; the others differ from these in who wrote them."""


@pytest.mark.parametrize(
    "kind",
    [*(kind if kind in _APART else pytest.param(kind, marks=pytest.mark.long) for kind in LAZY), EXTERNAL],
)
def test_each_kind_is_shown_as_its_whole_layers_are(kind: str, registry: Registry, tmp_path: Path) -> None:
    built = load(kind)
    tag, store = registry.push(f"e2e/real/{kind}", "1", built), tmp_path / "store"
    with daemon.running(store, tmp_path / "mount", environment=not_behind(tmp_path)) as mounted:
        shown = mounted.images / str(tag)
        places = [(number, form) for number in range(len(built.layers)) for form in ("diff", "lower")]
        before = [look(shown / f"layers/{number:02}/{form}") for number, form in places]
        merged = look(shown / "rootfs")
        lazy = len(built.layers) if kind in LAZY else 0
        assert len(list((store / "skeletons").glob("*.json"))) == lazy
        assert len(list((store / "extracted").glob("*.json"))) == len(built.layers) - lazy

        for (number, form), seen in zip(places, before, strict=True):
            layer = mounted.mountpoint / "layers" / built.layers[number].digest.name
            assert_same(seen, told(kind, look(layer / form)))
        stack = (shown / "lowerdirs").read_text().splitlines()[0].rpartition("/")[2]
        assert_same(merged, told(kind, look(mounted.mountpoint / "rootfs" / stack)))
        assert len(list((store / "extracted").glob("*.json"))) == len(built.layers)


def look(root: Path) -> Snapshot:
    """Describe what is shown; the attributes of a root are true once what is in it is here."""
    assert list(root.resolve().iterdir())
    return snapshot(root.resolve())


def told(kind: str, whole: Snapshot) -> Snapshot:
    """Return what a TOC can tell of *whole*: stargz's have no fractions of seconds."""
    if kind in CHUNKED or kind == EXTERNAL:
        return whole
    return {
        path: replace(fact, mtime_ns=(fact.mtime_ns + _SECOND // 2) // _SECOND * _SECOND)
        for path, fact in whole.items()
    }
