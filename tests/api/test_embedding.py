"""The programs and the example of docs/embedding.md, run as they stand there."""

import doctest
import json
import re
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path

import pytest

import layerfs
from layerfs.store import ImageStorage
from tests.api.conftest import IMAGE
from tests.overlay.scene import BUSYBOX
from tests.support import images, lazy_images, mounts
from tests.support.registry import Registry

DOCUMENT = Path(__file__).parents[2] / "docs/embedding.md"


def program(name: str, directory: Path) -> list[str]:
    """Write a program of the document; return how it is started."""
    text = DOCUMENT.read_text(encoding="utf-8")
    found = re.search(rf"<!-- program {name} -->\n```python\n(.*?)```", text, re.DOTALL)
    assert found is not None
    path = directory / f"{name}.py"
    path.write_text(found[1])
    return [sys.executable, "-W", "error", str(path)]


def run(*words: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(list(map(str, words)), capture_output=True, text=True)


def test_every_program_is_run_by_a_test() -> None:
    named = re.findall(r"<!-- program (\w+) -->", DOCUMENT.read_text(encoding="utf-8"))

    assert sorted(named) == ["puller", "sandbox", "scanner", "server", "warmer"]


def test_the_puller_names_lower_directories(store: Path, reference: str, tmp_path: Path) -> None:
    done = run(*program("puller", tmp_path), store, reference)
    name, digest, lowers = done.stdout.split()

    assert (name, digest, done.returncode) == (reference, str(IMAGE.digest), 0)
    assert all(Path(path).is_dir() for path in lowers.split(":"))
    assert done.stderr.count(" done ") == 2


@pytest.mark.needs_root
def test_the_sandbox_runs_a_command_and_forgets_what_it_wrote(
    store: Path, registry: Registry, tmp_path: Path
) -> None:
    reference = registry.push("api/sandbox", "1", images.image(images.layer(*BUSYBOX)))
    script = "echo mine > /new && cat /new && exit 3"
    done = run(*program("sandbox", tmp_path), store, reference, "/bin/sh", "-c", script)

    assert (done.stdout, done.stderr, done.returncode) == ("mine\n", "", 3)
    assert list((store / "overlays").iterdir()) == []


def test_the_scanner_reads_files_and_pulls_nothing(store: Path, registry: Registry, tmp_path: Path) -> None:
    reference = lazy_images.push_lazy(registry, lazy_images.LAZY[0], "api/scanner")
    size = sum(layer.size for layer in lazy_images.load(lazy_images.LAZY[0]).layers)
    mark = registry.mark()
    done = run(*program("scanner", tmp_path), store, reference)

    assert (done.stderr, done.returncode) == ("", 0)
    assert done.stdout.count("\n") == 2
    assert sum(one.size for one in registry.requests(mark) if one.blob is not None) < size


@pytest.mark.long
def test_the_warmer_has_what_can_be_had(store: Path, reference: str, tmp_path: Path) -> None:
    (names := tmp_path / "names").write_text(f"{reference}\n{reference}-nothing\n")
    done = run(*program("warmer", tmp_path), store, names)

    assert done.stdout == "1 of 2 here, 0 bytes freed\n"
    assert (done.returncode, done.stderr.startswith(f"{reference}-nothing: ")) == (1, True)
    with layerfs.Store.open(store, offline=True) as opened:
        assert opened.image(reference).read_bytes("etc/motd") == b"welcome"


@pytest.mark.long
def test_the_server_leases_what_it_names(store: Path, reference: str, tmp_path: Path) -> None:
    with subprocess.Popen(
        [*program("server", tmp_path), str(store)], stdout=subprocess.PIPE, text=True
    ) as server:
        try:
            assert server.stdout is not None
            url = f"http://127.0.0.1:{int(server.stdout.readline())}/{reference}"
            with urllib.request.urlopen(url) as answer:
                lowers = json.load(answer)["lowerdirs"]
            with pytest.raises(urllib.error.HTTPError, match="502"):
                urllib.request.urlopen(f"{url}-nothing")
        finally:
            server.kill()

    assert all(Path(path).is_dir() for path in lowers)
    held = [name for name, _ in ImageStorage(store).leases.holding()]
    assert held == [f"served-{IMAGE.digest.hex[:12]}"]


@pytest.mark.needs_root
def test_the_example_does_what_it_says(store: Path, reference: str, mountpoint: Path) -> None:
    names = {"STORE": str(store), "REFERENCE": reference, "DIRECTORY": str(mountpoint)}
    example = doctest.DocTestParser().get_doctest(
        DOCUMENT.read_text(encoding="utf-8"), names, "embedding", str(DOCUMENT), 0
    )
    try:
        assert example.examples
        assert doctest.DocTestRunner().run(example).failed == 0
    finally:
        mounts.clear(mountpoint)


@pytest.mark.long
def test_reference_pages_are_written_without_a_warning(tmp_path: Path) -> None:
    script = DOCUMENT.parents[1] / "scripts/docs"
    done = subprocess.run([script, tmp_path], capture_output=True, text=True)

    assert (done.returncode, "arning" in done.stderr) == (0, False)
    assert "fail_after" in (tmp_path / "layerfs/api/blocking.html").read_text()
