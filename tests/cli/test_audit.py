"""docs/audit.md is one script: it runs as written, on the image it speaks of, and prints what it says."""

import re
import subprocess
from pathlib import Path

import pytest

from tests.cli.conftest import CommandLine
from tests.support import mounts
from tests.support.images import (
    BuiltImage,
    Entry,
    directory,
    file,
    image,
    layer,
    symlink,
    whiteout,
    write_layout,
)

pytestmark = [pytest.mark.needs_root, pytest.mark.needs_fuse]

_TEXT = (Path(__file__).parents[2] / "docs/audit.md").read_text("utf-8")
_BLOCK = re.compile(
    r"^(?P<tools><!-- tools -->\n)?```sh\n(?P<script>.*?)^```\n(?:\n```text\n(?P<said>.*?)^```\n)?",
    re.M | re.S,
)
BLOCKS: list[tuple[bool, str, str | None]] = [
    (found["tools"] is not None, found["script"], found["said"]) for found in _BLOCK.finditer(_TEXT)
]

_SITE = "opt/venv/lib/python3.12/site-packages"
_KEY = (
    "-----BEGIN RSA PRIVATE KEY-----\nMIIEpAIBAAKCAQEAx4UbaDzY5xjW6hc9jwN0mX33XpTDVW\n"
    "-----END RSA PRIVATE KEY-----\n"
)
_DPKG = (
    "Package: zlib1g\nStatus: install ok installed\nArchitecture: amd64\n"
    "Version: 1:1.2.13.dfsg-1\nDescription: compression\n\n"
)


def shop() -> BuiltImage:
    """Build the image of the document."""

    def distribution(name: str, version: str) -> Entry:
        metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
        return file(f"{_SITE}/{name}-{version}.dist-info/METADATA", metadata.encode())

    return image(
        layer(
            directory("bin"), file("bin/busybox", b"#!"), symlink("bin/sh", "busybox"),
            file("var/lib/dpkg/status", _DPKG.encode()), symlink("dev/fd", "/proc/self/fd"),
            command="ADD alpine-minirootfs.tar.gz /",
        ),
        layer(
            directory("root/.ssh", mode=0o700), file("root/.ssh/id_rsa", _KEY.encode(), mode=0o600),
            file("app/settings.env", b"AWS_ACCESS_KEY_ID=AKIAIOSFODNN7ABCDEFG\n"),
            command="COPY . /",
        ),
        layer(
            whiteout("root/.ssh/id_rsa"), whiteout("app/settings.env"),
            command="RUN rm /root/.ssh/id_rsa /app/settings.env",
        ),
        layer(
            distribution("requests", "2.31.0"), distribution("urllib3", "1.26.4"),
            command="RUN pip install requests",
        ),
        layer(file("usr/bin/helper", b"#!", mode=0o4755), command="RUN install -m 4755 helper /usr/bin"),
    )  # fmt: skip


def run(layerfs: CommandLine, tmp_path: Path, *, tools: bool) -> list[tuple[str, str | None]]:
    """Run the blocks in one shell; return what each has printed, and what the document says of it."""
    source = write_layout(tmp_path / "lay", shop())
    layerfs("import", f"oci:{source}", "docker.io/shop/web:1.0")
    blocks = [(script, said) for needs_tools, script, said in BLOCKS if tools or not needs_tools]
    work = tmp_path / "work"
    work.mkdir()
    text = "".join(f"echo '@@ block'\n{script}" for script, _ in blocks)
    try:
        done = subprocess.run(
            ["bash", "-euc", text],
            cwd=work,
            env=layerfs.environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=500,
        )
    finally:
        mounts.clear(work)
    assert done.returncode == 0, done.stdout + done.stderr
    printed = done.stdout.split("@@ block\n")[1:]
    return [(output, said) for output, (_, said) in zip(printed, blocks, strict=True)]


def judge(results: list[tuple[str, str | None]]) -> None:
    for printed, said in results:
        assert said is None or sorted(printed.splitlines()) == sorted(said.splitlines())


def test_the_document_runs_as_written_and_says_what_is_printed(layerfs: CommandLine, tmp_path: Path) -> None:
    results = run(layerfs, tmp_path, tools=False)
    judge(results)
    assert sum(said is not None for _, said in results) == 4
    changes, *_ = [printed for printed, _ in results if "id_rsa" in printed and "RUN rm" in printed]
    assert changes.index("COPY . /") < changes.index("RUN rm")


@pytest.mark.long
@pytest.mark.timeout(600)
def test_its_tools_find_what_it_says(layerfs: CommandLine, tmp_path: Path) -> None:
    results = run(layerfs, tmp_path, tools=True)
    judge(results)
    assert sum(said is not None for _, said in results) == 6
