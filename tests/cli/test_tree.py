"""`layerfs tree`: what each layer did, largest first."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.cli.conftest import CommandLine
from tests.support.images import directory, file, hardlink, image, layer, whiteout, write_layout

BUILT = image(
    layer(directory("etc"), file("etc/old", b"1234"), file("big", b"x" * 5000), command="ADD rootfs.tar /"),
    layer(
        directory("etc"),
        file("etc/new", b"12"),
        hardlink("etc/link", "etc/new"),
        whiteout("etc/old"),
        file("big", b"y" * 100),
        command="/bin/sh -c make install",
    ),
)


@pytest.fixture
def imported(layerfs: CommandLine, tmp_path: Path) -> CommandLine:
    write_layout(tmp_path / "lay", BUILT)
    layerfs("import", f"oci:{tmp_path}/lay", "a:1")
    return layerfs


def test_each_layer_is_shown_with_its_command_and_its_largest_changes_first(imported: CommandLine) -> None:
    shown = imported("tree", "a:1").stdout
    assert shown.splitlines() == [
        f"00  sha256:{BUILT.layers[0].digest.hex[:12]}  +5.0 kB (3 added)",
        "    ADD rootfs.tar /",
        "    +    5.0 kB  big",
        "    +       4 B  etc/old",
        "    +       0 B  etc/",
        f"01  sha256:{BUILT.layers[1].digest.hex[:12]}  +2 B (2 added)  ~100 B (1 changed)  -4 B (1 removed)",
        "    RUN make install",
        "    ~     100 B  big",
        "    -       4 B  etc/old",
        "    +       2 B  etc/link",
        "    +       0 B  etc/new",
        "5.1 kB in 2 layers, 5.0 kB of it hidden by later ones",
    ]
    assert "and 2 more (--layer 0 shows them all)" in imported("tree", "a:1", "--limit", "1").stdout


def test_json_says_the_same_and_layer_and_path_choose(imported: CommandLine) -> None:
    found: list[dict[str, Any]] = json.loads(imported("tree", "--json", "--layer", "1", "a:1").stdout)
    assert [one["number"] for one in found] == [1]
    assert found[0]["removed"] == {"count": 1, "size": 4}
    assert found[0]["changes"][0] == {
        "path": "big",
        "change": "changed",
        "kind": "file",
        "size": 100,
        "replaced": 5000,
    }
    paths = json.loads(imported("tree", "--json", "--path", "/etc/*", "a:1").stdout)
    assert [[one["path"] for one in made["changes"]] for made in paths] == [
        ["etc/old"],
        ["etc/old", "etc/link", "etc/new"],
    ]
    assert "counted from 0" in imported("tree", "--layer", "2", "a:1", code=2).stderr
