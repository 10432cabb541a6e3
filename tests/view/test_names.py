"""Names below ``images/`` are judged by grammar alone: nothing is asked, nothing waits."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from layerfs.oci import Digest, ImageReference, Repository, Tag
from layerfs.view.names import (
    Alias,
    Component,
    ImageName,
    image_name,
    parse_entry,
    parse_id,
    parse_registry,
    tag_name,
)

HEX = "a" * 64
DIGEST = Digest("sha256", HEX)


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, id=repr(name))
        for name in [
            b".git",
            b"HEAD",
            b".hidden",
            b"objects",
            b"alpine",
            b"..",
            b"a b.c",
            b"\xff.org",
            b"host:x",
            b"host:123456",
            b"-a.b",
            b"a" * 300 + b".org",
            b"",
            b"Makefile",
            b"a.b@sha256:" + HEX.encode(),
        ]
    ],
)
def test_what_no_registry_can_be_called_does_not_exist(name: bytes) -> None:
    assert parse_registry(name) is None


@pytest.mark.parametrize(
    "name", ["docker.io", "localhost", "localhost:5000", "host:1", "Host.org", "[::1]:80"]
)
def test_any_registry_can_be_entered(name: str) -> None:
    assert parse_registry(name.encode()) == Component(name)


@pytest.mark.parametrize("name", [b"index.docker.io", b"registry-1.docker.io"])
def test_docker_hub_has_one_place(name: bytes) -> None:
    assert parse_registry(name) == Alias("docker.io")


@pytest.mark.parametrize("prefix", ["", "a", "a/b"])
@pytest.mark.parametrize(
    "name",
    [
        b".git",
        b"HEAD",
        b".hidden",
        b"A",
        b"a:",
        b"a:b:c",
        b":b",
        b"@sha256:" + HEX.encode(),
        b"a@",
        b"a@md5:00",
        b"a@sha256:" + HEX.upper().encode(),
        b"a@sha256:" + b"a" * 63,
        b"a:.b",
        b"a@@",
        b"\xff",
        b"a/b",
        b"a" * 256,
        b"a:!@sha256:" + HEX.encode(),
        b"a:" + b"b" * 129,
        b"a..b",
        b"a@sha256-" + HEX.encode(),
    ],
    ids=repr,
)
def test_what_no_reference_can_contain_does_not_exist(prefix: str, name: bytes) -> None:
    assert parse_entry("host.org", prefix, name) is None


@pytest.mark.parametrize("name", [b"a", b"a-b", b"a__b", b"a.b", b"0"])
def test_any_component_can_be_entered(name: bytes) -> None:
    assert parse_entry("host.org", "x", name) == Component(name.decode())


def test_a_colon_makes_a_tag_and_an_at_sign_an_image() -> None:
    repository = Repository.of("host.org", "x/a")
    assert parse_entry("host.org", "x", b"a:3.20_B") == repository.with_tag("3.20_B")
    assert parse_entry("host.org", "x", f"a@{DIGEST}".encode()) == ImageName(repository, DIGEST)
    sha512 = Digest("sha512", "b" * 128)
    assert parse_entry("host.org", "x", f"a@{sha512}".encode()) == ImageName(repository, sha512)


def test_with_tag_and_digest_the_digest_decides() -> None:
    assert parse_entry("host.org", "", f"a:1@{DIGEST}".encode()) == Alias(f"a@{DIGEST}")


def test_short_names_of_docker_hub_lead_to_its_library() -> None:
    assert parse_entry("docker.io", "", b"alpine:3") == Alias("library/alpine:3")
    assert parse_entry("docker.io", "", f"alpine@{DIGEST}".encode()) == Alias(f"library/alpine@{DIGEST}")
    assert parse_entry("docker.io", "", b"library") == Component("library")
    assert parse_entry("docker.io", "library", b"alpine:3") == Tag(
        Repository.of("docker.io", "library/alpine"), "3"
    )


def test_a_repository_name_that_is_too_long_does_not_exist() -> None:
    assert parse_entry("host.org", "/".join(["a" * 60] * 4), b"b" * 60) is None


@given(
    path=st.lists(st.from_regex(r"[a-z0-9]{1,8}", fullmatch=True), min_size=1, max_size=4),
    tag=st.from_regex(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,20}", fullmatch=True),
)
def test_the_names_of_an_image_are_read_as_written(path: list[str], tag: str) -> None:
    repository = Repository.of("host.org", "/".join(path))
    prefix = "/".join(path[:-1])
    assert parse_entry("host.org", prefix, tag_name(Tag(repository, tag))) == Tag(repository, tag)
    assert parse_entry("host.org", prefix, image_name(repository, DIGEST)) == ImageName(repository, DIGEST)
    assert ImageReference.parse(f"host.org/{'/'.join(path)}:{tag}").tag == repository.with_tag(tag)


@given(name=st.binary(max_size=300))
def test_any_bytes_have_an_answer(name: bytes) -> None:
    parse_registry(name)
    parse_entry("host.org", "a", name)
    parse_id(name)


def test_ids_are_twenty_characters_of_base32() -> None:
    assert parse_id(DIGEST.short_id.encode()) == DIGEST.short_id
    assert parse_id(b"a" * 19) is None
    assert parse_id(b"A" * 20) is None
    assert parse_id(b"1" * 20) is None
    assert parse_id(b"a" * 20 + b"\n") is None
