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
        "    +    5.0 kB  -rw-r--r--  0:0  big",
        "    +       4 B  -rw-r--r--  0:0  etc/old",
        "    +       0 B  drwxr-xr-x  0:0  etc/",
        f"01  sha256:{BUILT.layers[1].digest.hex[:12]}  +2 B (2 added)  ~100 B (1 changed)  -4 B (1 removed)",
        "    RUN make install",
        "    ~     100 B  -rw-r--r--  0:0  big",
        "    -       4 B  -rw-r--r--  0:0  etc/old",
        "    +       2 B  -rw-r--r--  0:0  etc/link",
        "    +       0 B  -rw-r--r--  0:0  etc/new",
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
        "mode": "0644",
        "uid": 0,
        "gid": 0,
        "before": {"mode": "0644", "uid": 0, "gid": 0},
        "only_rights": False,
    }
    paths = json.loads(imported("tree", "--json", "--path", "/etc/*", "a:1").stdout)
    assert [[one["path"] for one in made["changes"]] for made in paths] == [
        ["etc/old"],
        ["etc/old", "etc/link", "etc/new"],
    ]
    assert "counted from 0" in imported("tree", "--layer", "2", "a:1", code=2).stderr


def test_only_layers_with_a_match_are_shown(imported: CommandLine) -> None:
    shown = imported("tree", "a:1", "--path", "etc/l*").stdout.splitlines()
    assert shown == [
        f"01  sha256:{BUILT.layers[1].digest.hex[:12]}  +2 B (1 added)",
        "    RUN make install",
        "    +       2 B  -rw-r--r--  0:0  etc/link",
    ]
    assert [
        one["number"] for one in json.loads(imported("tree", "--json", "--path", "*nk", "a:1").stdout)
    ] == [1]


def test_without_a_match_it_says_so(imported: CommandLine) -> None:
    done = imported("tree", "a:1", "--path", "root/.ssh/id_*", code=3)
    assert done.stdout == ""
    assert done.stderr == "layerfs: a:1: nothing matches --path 'root/.ssh/id_*' (* matches / too)\n"
    assert imported("tree", "--json", "a:1", "--setuid", code=3).stdout == "[]\n"
    both = imported("tree", "a:1", "--layer", "1", "--path", "big", "--setuid", code=3).stderr
    assert "is set-user-id or set-group-id and matches --path 'big' (* matches / too) in layer 1" in both


def test_mode_and_owner_are_told_and_what_only_they_changed(layerfs: CommandLine, tmp_path: Path) -> None:
    base = layer(directory("d"), file("d/helper", b"12", mode=0o755), file("d/other", b"1"), file("c", b"1"))
    more = layer(
        directory("d", mode=0o700),
        file("d/helper", b"12", mode=0o4755),
        file("d/other", b"1", uid=7, gid=8),
        file("c", b"2", mode=0o2755, mtime=1),
    )
    write_layout(tmp_path / "lay", image(base, more))
    layerfs("import", f"oci:{tmp_path}/lay", "a:1")
    assert layerfs("tree", "a:1", "--layer", "1").stdout.splitlines()[2:] == [
        "    m       2 B  -rwsr-xr-x  0:0  d/helper (was -rwxr-xr-x)",
        "    ~       1 B  -rwxr-sr-x  0:0  c (was -rw-r--r--)",
        "    m       1 B  -rw-r--r--  7:8  d/other (was 0:0)",
        "    m       0 B  drwx------  0:0  d/ (was drwxr-xr-x)",
    ]
    found = json.loads(layerfs("changes", "a:1", "--setuid", "--json").stdout)
    assert [(one["path"], one["mode"], one["only_rights"]) for one in found[0]["changes"]] == [
        ("d/helper", "4755", True),
        ("c", "2755", False),
    ]
    assert found[0]["changes"][0]["before"] == {"mode": "0755", "uid": 0, "gid": 0}
    text = layerfs("changes", "a:1", "--setuid", "--path", "d/*", "--limit", "0").stdout
    assert text.splitlines()[2:] == ["    m       2 B  -rwsr-xr-x  0:0  d/helper (was -rwxr-xr-x)"]
