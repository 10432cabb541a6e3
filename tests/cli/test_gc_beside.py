"""``layerfs gc`` and ``layerfs rm`` while other commands and daemons use the store."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from layerfs.oci import stack_digest
from layerfs.store import ImageStorage
from tests.cli.conftest import CommandLine
from tests.support import clients, daemon
from tests.support.images import file, image, layer, write_layout
from tests.support.mounts import overlay
from tests.support.registry import Registry

BUILT = image(layer(file("a", b"a" * 5000)), layer(file("b", b"b" * 5000)))

_COLLECT_FIRST = """
import sys
from layerfs.cli import main
from layerfs.gc.jobs import collect_garbage
from layerfs.store import ImageStorage
from layerfs.store.refs import Refs

real, store = Refs.write, sys.argv.pop(1)

def write(self, *arguments):
    collect_garbage(ImageStorage(store))
    return real(self, *arguments)

Refs.write = write
main()
"""
"""A command beside which all garbage is collected at the worst moment: just before its image has a name."""


def collected_before_the_name(layerfs: CommandLine, *arguments: str) -> None:
    """Run a command, and ``layerfs gc`` in the middle of it."""
    command = [sys.executable, "-c", _COLLECT_FIRST, str(layerfs.store), *arguments]
    done = subprocess.run(command, env=layerfs.environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


def everything_is_there(store: Path) -> None:
    """Look at all of the image, without any registry or archive."""
    with ImageStorage(store) as storage:
        assert storage.has_manifest(BUILT.digest)
        assert storage.has_config(BUILT.config_digest)
        for each in BUILT.layers:
            found = storage.open_layer(each.digest)
            assert found is not None
            assert sum(len(path.read_bytes()) for path in found.path.iterdir()) == 5000


def test_an_image_is_kept_from_its_import_until_it_has_its_name(layerfs: CommandLine, tmp_path: Path) -> None:
    write_layout(tmp_path / "lay", BUILT, "v1")
    collected_before_the_name(layerfs, "import", f"oci:{tmp_path}/lay:v1")
    everything_is_there(layerfs.store)


@pytest.mark.parametrize("by", ["tag", "digest"])
def test_an_image_is_kept_from_its_pull_until_it_has_its_name(
    layerfs: CommandLine, registry: Registry, by: str
) -> None:
    name = f"gc/beside-{by}"
    reference = registry.push(name, "1", BUILT)
    wanted = str(reference) if by == "tag" else f"{reference.repository}@{BUILT.digest}"
    collected_before_the_name(layerfs, "pull", wanted)
    everything_is_there(layerfs.store)


# Between the naming of lower directories and their mount

STACK = stack_digest([each.digest for each in BUILT.layers])


def kept_for(layerfs: CommandLine, command: str) -> dict[tuple[str, str], list[str]]:
    """Run a command that removes, and return for whom it kept what."""
    done = json.loads(layerfs(*command.split(), "--json").stdout)
    return {(one["kind"], one["digest"]): one["for"] for one in done["kept"]}


@pytest.mark.needs_root
@pytest.mark.parametrize("way", ["the command", "a mount"])
def test_what_was_named_for_a_mount_stays_until_it_is_mounted(
    layerfs: CommandLine, registry: Registry, tmp_path: Path, mountpoint: Path, way: str
) -> None:
    reference = str(registry.push(f"gc/named-{len(way)}", "1", BUILT))
    if way == "the command":
        option = layerfs("lowerdir", reference).stdout.strip()
    else:
        with daemon.running(layerfs.store, mountpoint) as running:
            assert clients.names(running.images / reference / "rootfs") == {"a", "b"}
            lower = clients.run("readlink", mountpoint / "lower" / STACK.short_id).stdout.decode().strip()
        layers = (layerfs.store / "extracted" / each.digest.name for each in reversed(BUILT.layers))
        option = "lowerdir=" + ":".join([lower, *map(str, layers)])

    trees = {("cover", str(STACK)), *(("layer", str(each.digest)) for each in BUILT.layers)}
    for command in (f"rm {reference}", "gc", "gc --force"):
        kept = kept_for(layerfs, command)
        assert trees <= kept.keys()
        assert {reason for each in trees for reason in kept[each]} == {f"lease lowerdir-{STACK.short_id}"}
    with overlay(option, tmp_path / "overlay", upper=False) as merged:
        layerfs("lease", "rm", f"lowerdir-{STACK.short_id}")
        kept = kept_for(layerfs, "gc --force")
        assert trees == kept.keys()
        assert all(str(merged) in reason for reasons in kept.values() for reason in reasons)
        assert (merged / "a").read_bytes() == b"a" * 5000
    assert kept_for(layerfs, "gc") == {}
    assert os.listdir(layerfs.store / "extracted") == os.listdir(layerfs.store / "covers") == []
