"""Images by fsspec: its own suite for what can be read, the entry point, and what is refused."""

import errno
import importlib.metadata
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from layerfs.errors import InvalidReference
from tests.support import images
from tests.support.registry import Registry

fsspec = pytest.importorskip("fsspec")  # of the extra layerfs[fsspec]

from fsspec.tests import abstract  # noqa: E402

from layerfs.api.on_fsspec import ImageFileSystem, split_path  # noqa: E402

Scenario = Callable[[Any, Callable[..., str], str], str]


@pytest.fixture(scope="module")
def filesystem(pulled: tuple[Path, str]) -> Iterator[ImageFileSystem]:
    store, _ = pulled
    made = ImageFileSystem(store=str(store), skip_instance_cache=True)
    yield made
    made.close()


class _Images(abstract.AbstractFixtures):  # type: ignore[misc]  # fsspec says nothing of its types
    """The scenarios of fsspec's suite, each as an image: nothing can be written into one."""

    @pytest.fixture
    def fs(self, filesystem: ImageFileSystem) -> ImageFileSystem:
        return filesystem

    @pytest.fixture
    def fs_path(self) -> str:
        return "read-only:1"

    @pytest.fixture
    def packed(
        self, tmp_path: Path, registry: Registry, local_fs: Any, local_join: Any
    ) -> Callable[[Scenario], str]:
        def pack(scenario: Scenario) -> str:
            base = tmp_path / "scenario"
            scenario(local_fs, local_join, str(base))
            entries = [
                images.directory(str(path.relative_to(base)))
                if path.is_dir()
                else images.file(str(path.relative_to(base)), path.read_bytes())
                for path in sorted(base.rglob("*"))
            ]
            name = scenario.__name__.strip("_")
            return f"{registry.push(f'fsspec/{name}', '1', images.image(images.layer(*entries)))}/source"

        return pack

    @pytest.fixture
    def fs_bulk_operations_scenario_0(self, packed: Callable[[Scenario], str]) -> str:
        return packed(self._bulk_operations_scenario_0)

    @pytest.fixture
    def fs_glob_edge_cases_files(self, packed: Callable[[Scenario], str]) -> str:
        return packed(self._glob_edge_cases_files)

    @pytest.fixture
    def fs_dir_and_file_with_same_name_prefix(self, packed: Callable[[Scenario], str]) -> str:
        return packed(self._dir_and_file_with_same_name_prefix)

    @pytest.fixture
    def fs_10_files_with_hashed_names(self, packed: Callable[[Scenario], str]) -> str:
        return packed(self._10_files_with_hashed_names)


@pytest.mark.long
class TestGet(_Images, abstract.AbstractGetTests):  # type: ignore[misc]
    """What fsspec expects of get, globs and listings. Its other classes write."""

    test_get_directory_recursive = None  # makes directories in the filesystem


def test_a_url_is_opened_by_the_entry_point(pulled: tuple[Path, str]) -> None:
    store, reference = pulled
    how = {"store": str(store), "skip_instance_cache": True}
    with fsspec.open(f"layerfs://{reference}/etc/self", **how) as file:
        assert file.read() == b"welcome"
    with fsspec.open(f"layerfs://{reference}/etc/motd", "rt", **how) as file:
        assert file.read() == "welcome"


def test_the_entry_point_is_that_of_the_project() -> None:
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
    found = importlib.metadata.entry_points(group="fsspec.specs", name="layerfs")

    assert project["entry-points"]["fsspec.specs"] == {"layerfs": "layerfs.api.on_fsspec:ImageFileSystem"}
    assert [one.value for one in found] == ["layerfs.api.on_fsspec:ImageFileSystem"]


def test_an_image_is_listed_and_told_of(filesystem: ImageFileSystem, reference: str) -> None:
    root = f"layerfs://{reference}"

    assert filesystem.ls(root, detail=False) == [f"{reference}/etc", f"{reference}/run"]
    assert filesystem.glob(f"{root}/etc/m*") == [f"{reference}/etc/motd"]
    assert filesystem.info(f"{root}/etc/out")["destination"] == "../../../../etc/motd"
    assert (filesystem.info(f"{root}/run")["type"], filesystem.isdir(f"{root}/run")) == ("directory", True)
    assert filesystem.info(f"{root}/etc/loop")["type"] == "other"
    assert filesystem.size(f"{root}/etc/new") == 100_000
    assert filesystem.cat_file(f"{root}/etc/motd", 3, -1) == b"com"
    assert not filesystem.exists(f"{root}/etc/old")
    assert filesystem.modified(f"{root}/etc/motd").year > 2000


@pytest.mark.parametrize("mode", ["wb", "ab", "xb", "r+b"])
def test_nothing_can_be_written(filesystem: ImageFileSystem, reference: str, mode: str) -> None:
    with pytest.raises(OSError, match="read-only") as caught:
        filesystem.open(f"{reference}/etc/motd", mode)

    assert caught.value.errno == errno.EROFS


@pytest.mark.parametrize(
    ("path", "split"),
    [
        (
            "docker.io/library/alpine:3.20/etc/os-release",
            ("docker.io/library/alpine:3.20", "/etc/os-release"),
        ),
        ("alpine:3.20/etc/a:b", ("alpine:3.20", "/etc/a:b")),
        ("alpine:3/etc", ("alpine:3", "/etc")),
        ("localhost:5000/a/b:1", ("localhost:5000/a/b:1", "/")),
        ("localhost:5000/a@sha256:00/etc", ("localhost:5000/a@sha256:00", "/etc")),
        ("r.example:5000/a:1@sha256:00/x/y:z", ("r.example:5000/a:1@sha256:00", "/x/y:z")),
    ],
)
def test_a_path_names_an_image_and_a_file(path: str, split: tuple[str, str]) -> None:
    assert split_path(path) == split


@pytest.mark.parametrize("path", ["", "alpine", "docker.io/library/alpine/etc", "localhost:5000/a/etc"])
def test_a_path_that_names_no_image_is_refused(path: str) -> None:
    with pytest.raises(InvalidReference, match="expected NAME:TAG/PATH"):
        split_path(path)
