"""What people see on a terminal of 80 or 40 columns, with Unicode and without; nothing is broken by its edge.

``screens/`` has the screens, to be looked at; with LAYERFS_WRITE_EXPECTED=1 they are written anew.
"""

import os
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from layerfs.oci import Platform
from tests.cli.conftest import CommandLine
from tests.support.daemon import LAYERFS
from tests.support.faulty_registry import FaultyRegistry
from tests.support.forkserver import ForkServer
from tests.support.images import (
    BuiltImage,
    directory,
    file,
    image,
    layer,
    symlink,
    whiteout,
    write_layout,
)
from tests.support.screen import Screen, opened

EXPECTED: Final = Path(__file__).parent / "screens"
PLATFORM: Final = Platform.parse("linux/amd64")

BASE = layer(
    directory("usr"),
    directory("usr/share"),
    directory("usr/share/a-directory-with-a-long-name"),
    file("usr/share/a-directory-with-a-long-name/and-a-file-with-another-long-name.txt", b"x" * 5000),
    directory("usr/bin"),
    file("usr/bin/helper", b"#!" * 200, mode=0o755),
    file("usr/bin/tool", b"#!" * 100, mode=0o755),
    file("usr/share/\u6f22\u5b57\u6f22\u5b57\u6f22\u5b57\u6f22\u5b57\u6f22\u5b57\u6f22\u5b57.txt", b"12"),
    symlink("bin", "usr/bin"),
    compression="none",
    command="ADD rootfs.tar /",
)
MORE = layer(
    directory("usr"),
    directory("usr/bin"),
    file("usr/bin/helper", b"#!" * 200, mode=0o4755),
    file("usr/bin/tool", b"#?" * 300, mode=0o755, mtime=1_700_000_001),
    whiteout("usr/share/a-directory-with-a-long-name"),
    directory("srv"),
    *(file(f"srv/{number:02}", b"x" * number) for number in range(12)),
    compression="none",
    command="/bin/sh -c chmod u+s /usr/bin/helper && make -C /usr/src && rm -rf /usr/share/a-directory*",
)
LONG_NAME: Final = (
    "registry.example.org:5000/department/shop/web-frontend-for-customers:2026-11-01-release-candidate"
)
SHOWN: Final[dict[str, BuiltImage]] = {
    "web:1.1": image(BASE, MORE, platform=PLATFORM),
    LONG_NAME: image(BASE, platform=PLATFORM),
}


MANY: Final = image(
    *(layer(file(str(number), b"x" * (400_000 + number)), compression="none") for number in range(41)),
    platform=PLATFORM,
)


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory, _fork_server: ForkServer) -> CommandLine:
    """A store with two images, for tests that only look."""
    home = tmp_path_factory.mktemp("screens")
    layerfs = CommandLine(home, _fork_server)
    for name, built in SHOWN.items():
        write_layout(home / "layout" / name.partition(":")[0], built)
        layerfs("import", f"oci:{home}/layout/{name.partition(':')[0]}", name)
    return layerfs


@pytest.fixture
def screen(filled: CommandLine) -> Iterator[Screen]:
    with opened(filled.environment) as found:
        yield found


COMMANDS: Final = ["images", "tree web:1.1", "tree web:1.1 --setuid", "history web:1.1"]


@pytest.mark.parametrize(("name", "columns", "environment"), [
    ("80", 80, {}),
    ("40", 40, {}),
    ("80-ASCII", 80, {"LC_ALL": "C", "TERM": "dumb", "NO_COLOR": "1"}),
])  # fmt: skip
def test_what_a_verb_prints_fits_the_terminal(
    screen: Screen, name: str, columns: int, environment: dict[str, str]
) -> None:
    script = "; ".join(f"echo '$ layerfs {command}'; {shlex.join(LAYERFS)} {command}" for command in COMMANDS)
    screen.start(["sh", "-c", script], columns, 24, environment)
    assert screen.wait() == 0
    shown = "\n".join(screen.lines()) + "\n"
    expected = EXPECTED / f"{name}.txt"
    if os.environ.get("LAYERFS_WRITE_EXPECTED"):
        expected.write_text(shown)
    assert shown == expected.read_text()
    assert screen.wraps() == []


def test_the_store_is_measured_in_what_fits(screen: Screen) -> None:
    for columns, header in (
        (80, "WHAT COUNT SIZE SHARED IN USE RECLAIMABLE"),
        (40, "WHAT SIZE IN USE RECLAIMABLE"),
        (30, "WHAT SIZE RECLAIMABLE"),
    ):
        screen.start([*LAYERFS, "df", "--verbose"], columns, 24)
        assert screen.wait() == 0
        assert screen.lines()[0].split() == header.split()
        assert [line for line in screen.lines() if "candidate" in line]
        assert screen.wraps() == []


def test_whoever_asks_for_all_gets_it(screen: Screen, filled: CommandLine) -> None:
    screen.start([*LAYERFS, "images", "--no-trunc"], 80, 24)
    assert screen.wait() == 0
    shown = screen.lines(joined=True)
    assert shown == filled("images", "--no-trunc").stdout.splitlines()
    assert all(str(built.digest) in "".join(shown) for built in SHOWN.values())


@pytest.mark.parametrize(("columns", "lines", "environment", "bar"), [
    (80, 24, {}, "─"),
    (80, 24, {"LC_ALL": "C", "NO_COLOR": "1"}, "...."),
    (40, 10, {}, ""),
])  # fmt: skip
def test_a_pull_shows_all_of_it_in_front_and_is_gone_after_ctrl_c(
    layerfs: CommandLine,
    faulty: FaultyRegistry,
    columns: int,
    lines: int,
    environment: dict[str, str],
    bar: str,
) -> None:
    faulty.push("a/b", "1", MANY)
    faulty.faults.stall_blobs = [300_000] * 41
    with opened(layerfs.environment) as screen:
        screen.start([*LAYERFS, "pull", f"{faulty.host}/a/b:1"], columns, lines, environment)
        found = screen.wait_for(lambda found: any("downloading" in line for line in found))
        head = next(number for number, line in enumerate(found) if line.startswith("0 of 41 layers"))
        assert len(found) - head < lines
        assert bar in found[head]
        assert all(re.fullmatch(_ROW, line) for line in found[head + 1 :]), found
        screen.press("C-c")
        assert screen.wait() == 130
        joined = " ".join(" ".join(screen.lines(joined=True)).split())
    assert joined == (
        f"{faulty.host}/a/b:1: {MANY.digest} layerfs: interrupted by SIGINT; run it again to go on"
    )


_ROW: Final = r"\d\d .*of 409\.6 kB .*(downloading|extracting|waiting|verifying)|and \d+ more"


def test_a_terminal_that_only_writes_lines_gets_lines(layerfs: CommandLine, faulty: FaultyRegistry) -> None:
    faulty.push("a/b", "1", SHOWN["web:1.1"])
    with opened(layerfs.environment) as screen:
        screen.start([*LAYERFS, "pull", f"{faulty.host}/a/b:1"], 80, 24, {"TERM": "dumb"})
        assert screen.wait() == 0
        shown = screen.lines()
    fetched = [line for line in shown if line.endswith("fetched")]
    assert sorted(line[:2] for line in fetched) == ["00", "01"]
    assert shown[-1].endswith("2 layers, 2 fetched (41.0 kB)")
