"""Platforms: normal forms, and containerd's order of candidates (platforms/compare.go)."""

import platform as host

import pytest
from hypothesis import given

from layerfs.errors import InvalidSettings
from layerfs.oci import Platform
from tests.oci.strategies import platforms


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("linux", "amd64"), "linux/amd64"),
        (("Linux", "X86_64"), "linux/amd64"),
        (("linux", "x86-64", "v1"), "linux/amd64"),
        (("linux", "amd64", "V2"), "linux/amd64/v2"),
        (("linux", "aarch64"), "linux/arm64"),
        (("linux", "arm64", "v8"), "linux/arm64"),
        (("linux", "arm64", "8"), "linux/arm64"),
        (("linux", "arm64", "v8.0"), "linux/arm64"),
        (("linux", "arm64", "9"), "linux/arm64/v9"),
        (("linux", "arm64", "9.0"), "linux/arm64/v9"),
        (("linux", "arm64", "v9.0"), "linux/arm64/v9"),
        (("linux", "arm64", "v8.2"), "linux/arm64/v8.2"),
        (("linux", "armhf"), "linux/arm/v7"),
        (("linux", "armel"), "linux/arm/v6"),
        (("linux", "armv7l"), "linux/arm/v7"),
        (("linux", "arm"), "linux/arm/v7"),
        (("linux", "arm", "5"), "linux/arm/v5"),
        (("linux", "arm", "7"), "linux/arm/v7"),
        (("linux", "i686"), "linux/386"),
        (("linux", "i386"), "linux/386"),
        (("linux", "loongarch64"), "linux/loong64"),
        (("linux", "ppc64le"), "linux/ppc64le"),
        (("macos", "arm64"), "darwin/arm64"),
        (("windows", "amd64"), "windows/amd64"),
    ],
)
def test_words_are_brought_into_normal_form(words: tuple[str, ...], expected: str) -> None:
    assert str(Platform.of(*words)) == expected
    assert str(Platform.parse("/".join(words))) == expected


@given(platforms)
def test_text_and_file_name_lead_back(platform: Platform) -> None:
    assert Platform.parse(str(platform)) == platform
    assert Platform.from_name(platform.name) == platform


@given(platforms)
def test_candidates_are_normal_different_and_begin_with_the_platform_itself(platform: Platform) -> None:
    candidates = list(platform.candidates())
    assert candidates[0] == platform
    assert len(set(candidates)) == len(candidates)
    assert all(Platform.parse(str(candidate)) == candidate for candidate in candidates)
    assert {candidate.os for candidate in candidates} == {platform.os}


@pytest.mark.parametrize(
    ("platform", "expected"),
    [
        ("linux/amd64", "amd64 386"),
        ("linux/amd64/v3", "amd64/v3 amd64/v2 amd64 386"),
        ("linux/386", "386"),
        ("linux/arm/v5", "arm/v5"),
        ("linux/arm/v7", "arm/v7 arm/v6 arm/v5"),
        ("linux/arm/v8", "arm/v8 arm/v7 arm/v6 arm/v5"),
        ("linux/arm64", "arm64 arm/v8 arm/v7 arm/v6 arm/v5"),
        ("linux/arm64/v8.2", "arm64/v8.2 arm64/v8.1 arm64 arm/v8 arm/v7 arm/v6 arm/v5"),
        (
            "linux/arm64/v9",
            "arm64/v9 arm64/v8.5 arm64/v8.4 arm64/v8.3 arm64/v8.2 arm64/v8.1 arm64 "
            "arm/v8 arm/v7 arm/v6 arm/v5",
        ),
        (
            "linux/arm64/v9.1",
            "arm64/v9.1 arm64/v9 arm64/v8.6 arm64/v8.5 arm64/v8.4 arm64/v8.3 arm64/v8.2 arm64/v8.1 arm64 "
            "arm/v8 arm/v7 arm/v6 arm/v5",
        ),
        ("linux/riscv64", "riscv64"),
        ("linux/s390x", "s390x"),
    ],
)
def test_candidates_come_in_the_order_of_containerd(platform: str, expected: str) -> None:
    found = [str(candidate) for candidate in Platform.parse(platform).candidates()]
    assert found == [f"linux/{candidate}" for candidate in expected.split()]


@pytest.mark.parametrize("text", ["", "linux", "linux/", "/amd64", "linux//v7", "a/b/c/d", "linux/arm/"])
def test_what_is_no_platform_is_refused(text: str) -> None:
    with pytest.raises(InvalidSettings, match="expected os/arch"):
        Platform.parse(text)


@pytest.mark.parametrize(
    "name", ["", "linux", "linux-", "linux-x86_64", "Linux-amd64", "linux-arm-v7-x", "linux-arm"]
)
def test_a_platform_has_only_one_file_name(name: str) -> None:
    assert Platform.from_name(name) is None


@pytest.mark.parametrize(
    ("machine", "expected"),
    [("x86_64", "linux/amd64"), ("aarch64", "linux/arm64"), ("armv7l", "linux/arm/v7")],
)
def test_this_machine_runs_what_its_kernel_says(
    monkeypatch: pytest.MonkeyPatch, machine: str, expected: str
) -> None:
    monkeypatch.setattr(host, "machine", lambda: machine)
    assert str(Platform.of_this_machine()) == expected
