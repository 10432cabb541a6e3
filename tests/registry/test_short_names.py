"""Names without a registry: aliases, one registry that is searched, or Docker's rule; nothing is guessed."""

import os
from pathlib import Path

import pytest

from layerfs import naming
from layerfs.errors import InvalidReference, InvalidSettings
from layerfs.oci import Digest
from layerfs.settings import Settings

DIGEST = Digest.of(b"")
ALIASES = (
    '[aliases]\n"fedora" = "registry.fedoraproject.org/fedora"\n"ubi8/httpd" = "quay.io/ubi8/httpd-24"\n'
)


def meant(tmp_path: Path, conf: str, text: str) -> str:
    (tmp_path / "registries.conf").write_text(conf)
    settings = Settings(store=tmp_path, registries_conf=tmp_path / "registries.conf")
    return str(naming.reference(settings, text))


@pytest.mark.parametrize(
    ("conf", "text", "expected"),
    [
        ("", "alpine", "docker.io/library/alpine:latest"),
        (ALIASES, "alpine:3", "docker.io/library/alpine:3"),
        (ALIASES, "fedora", "registry.fedoraproject.org/fedora:latest"),
        (ALIASES, "fedora:40", "registry.fedoraproject.org/fedora:40"),
        (ALIASES, f"fedora@{DIGEST}", f"registry.fedoraproject.org/fedora@{DIGEST}"),
        (ALIASES, f"fedora:40@{DIGEST}", f"registry.fedoraproject.org/fedora:40@{DIGEST}"),
        (ALIASES, "ubi8/httpd:1", "quay.io/ubi8/httpd-24:1"),
        (ALIASES, "ubi8/other:1", "docker.io/ubi8/other:1"),
        (ALIASES, "docker.io/fedora", "docker.io/library/fedora:latest"),
        (ALIASES, "docker://fedora", "docker.io/library/fedora:latest"),
        ('unqualified-search-registries = ["a.io"]', "x/y:1", "a.io/x/y:1"),
        ('unqualified-search-registries = ["docker.io"]', "x", "docker.io/library/x:latest"),
        (f'unqualified-search-registries = ["a.io", "b.io"]\n{ALIASES}', "fedora:1",
         "registry.fedoraproject.org/fedora:1"),
        ('unqualified-search-registries = ["a.io", "b.io"]', "b.io/x", "b.io/x:latest"),
        ('unqualified-search-registries = ["a.io", "b.io"]', "localhost/x", "localhost/x:latest"),
    ],
)  # fmt: skip
def test_a_short_name_means_one_thing(tmp_path: Path, conf: str, text: str, expected: str) -> None:
    assert meant(tmp_path, conf, text) == expected


@pytest.mark.parametrize("search", ['["a.io", "b.io"]', "[]"])
def test_what_would_have_to_be_guessed_is_an_error_with_its_line(tmp_path: Path, search: str) -> None:
    with pytest.raises(InvalidReference, match=r"registries\.conf, line 2 searches \d registries"):
        meant(tmp_path, f"\nunqualified-search-registries = {search}", "x:1")


def test_a_file_that_is_wrong_is_an_error_for_short_names_alone(tmp_path: Path) -> None:
    assert meant(tmp_path, "nonsense", "a.io/x") == "a.io/x:latest"
    with pytest.raises(InvalidSettings):
        meant(tmp_path, "nonsense", "x")


@pytest.mark.skipif(
    not os.path.exists("/etc/containers/registries.conf.d/shortnames.conf"),
    reason="has no shortnames.conf of containers-common",
)
def test_the_aliases_that_distributions_ship_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert str(naming.reference(Settings(store=tmp_path), "centos:7")) == "quay.io/centos/centos:7"
