"""The recipes of docs/scale-out.md: each file is read, and leads where its engine is."""

import re
from pathlib import Path
from typing import Final

import pytest

from layerfs import config
from layerfs.oci import Repository
from layerfs.registry.mirrors import places
from layerfs.registry.mirrors.endpoints import Policy, candidates

_TEXT: Final = (Path(__file__).parents[2] / "docs/scale-out.md").read_text()
_BLOCK: Final = re.compile(r"```toml\n# (?P<path>\S+)\n(?P<text>.*?)```", re.DOTALL)
RECIPES: Final = [(Path(found["path"]), found["text"]) for found in _BLOCK.finditer(_TEXT)]

WANTED: Final = {
    "http://127.0.0.1:4001/v2/library/alpine": "alpine",
    "http://127.0.0.1:30020/v2/library/alpine": "alpine",
    "http://127.0.0.1:30081/v2/a/b": "registry.example.com/a/b",
    "https://cache.lan:5000/v2/library/alpine": "alpine",
    "https://harbor.lan/v2/hub/library/alpine": "alpine",
    "https://123456789012.dkr.ecr.eu-central-1.amazonaws.com/v2/docker-hub/library/alpine": "alpine",
    "http://10.0.0.5:5000/v2/library/alpine": "alpine",
}
"""Where the recipes lead first, and for which image."""


def _first(path: Path, text: str, name: str, tmp_path: Path) -> str:
    """Return the URL that is asked first for an image, with that file alone."""
    here = tmp_path / (
        path.name if path.name == "registries.conf" else f"certs.d/{path.parent.name}/hosts.toml"
    )
    here.parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / "certs.d").mkdir(exist_ok=True)
    here.write_text(text)
    conf = here if path.name == "registries.conf" else Path("/dev/null")
    repository = Repository.parse(name)
    found = candidates(Policy(places.load({}, conf, tmp_path / "certs.d")), repository)
    host = found[0].hosts[0]
    return f"{host.origin}{host.root}/{host.path_of(repository)}"


@pytest.mark.parametrize(("path", "text"), [one for one in RECIPES if one[0].name != "config.toml"])
def test_a_recipe_leads_to_its_engine(path: Path, text: str, tmp_path: Path) -> None:
    found = {_first(path, text, name, tmp_path) for name in set(WANTED.values())}
    assert found & WANTED.keys()


def test_each_engine_has_a_recipe(tmp_path: Path) -> None:
    found = set()
    for number, (path, text) in enumerate(one for one in RECIPES if one[0].name != "config.toml"):
        found |= {_first(path, text, name, tmp_path / str(number)) for name in set(WANTED.values())}
    assert found >= WANTED.keys()


def test_what_the_configuration_says_there_is_read(tmp_path: Path) -> None:
    [text] = [text for path, text in RECIPES if path.name == "config.toml"]
    (tmp_path / "config.toml").write_text(text)
    settings = config.settings_of({"LAYERFS_CONFIG": str(tmp_path / "config.toml"), "HOME": "/h"}, 1000)
    assert settings.forward_credentials == {"127.0.0.1:4001"}
