"""References: Docker's grammar and normal form.

The tables follow the rules of distribution/reference (regexp.go, normalize.go), case by case.
"""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from layerfs.errors import InvalidReference
from layerfs.oci import Digest, ImageReference, Repository
from layerfs.oci.reference import is_component, is_registry, is_tag
from tests.oci.strategies import components, digests, references, registries, repositories, tags

HEX = "0123456789abcdef" * 4
DIGEST = f"sha256:{HEX}"


@given(references)
def test_what_is_printed_is_read_back(reference: ImageReference) -> None:
    assert ImageReference.parse(str(reference)) == reference


@given(repositories)
def test_a_repository_in_normal_form_stays_as_it_is(repository: Repository) -> None:
    assert Repository.parse(str(repository)) == repository
    assert Repository.of(repository.registry, repository.path) == repository


@given(st.text(st.sampled_from("aZ0._-:/@[]~\0\n\u00e9"), max_size=40))
def test_any_text_is_a_reference_or_refused(text: str) -> None:
    try:
        reference = ImageReference.parse(text)
    except InvalidReference:
        return
    assert ImageReference.parse(str(reference)) == reference
    for part in str(reference.repository).split("/"):
        assert part not in ("", ".", "..")  # each part is a safe file name
        assert "\0" not in part


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        # Docker Hub
        ("alpine", "docker.io/library/alpine:latest"),
        ("alpine:3.20", "docker.io/library/alpine:3.20"),
        ("me/tool", "docker.io/me/tool:latest"),
        ("a/b/c/d", "docker.io/a/b/c/d:latest"),
        ("docker.io/alpine", "docker.io/library/alpine:latest"),
        ("index.docker.io/alpine", "docker.io/library/alpine:latest"),
        ("registry-1.docker.io/library/alpine", "docker.io/library/alpine:latest"),
        ("docker.io/me/tool:x", "docker.io/me/tool:x"),
        ("library/alpine", "docker.io/library/alpine:latest"),
        # The first component is a registry if it has a dot, a port, a capital, or is localhost
        ("localhost/a", "localhost/a:latest"),
        ("localhost", "docker.io/library/localhost:latest"),
        ("localhost:5000", "docker.io/library/localhost:5000"),
        ("localhost:5000/a", "localhost:5000/a:latest"),
        ("localhost:5000/a:b", "localhost:5000/a:b"),
        ("foo:5000", "docker.io/library/foo:5000"),
        ("foo:5000/a", "foo:5000/a:latest"),
        ("foo/a", "docker.io/foo/a:latest"),
        ("Foo/a", "Foo/a:latest"),
        ("quay.io/a/b", "quay.io/a/b:latest"),
        ("a.b", "docker.io/library/a.b:latest"),
        ("127.0.0.1/a", "127.0.0.1/a:latest"),
        ("127.0.0.1:5000/a:1", "127.0.0.1:5000/a:1"),
        ("[::1]/a", "[::1]/a:latest"),
        ("[::1]:5000/a:1", "[::1]:5000/a:1"),
        ("[2001:db8::1]:5000/a/b", "[2001:db8::1]:5000/a/b:latest"),
        ("xn--n3h.com/myimage:xn--n3h.com", "xn--n3h.com/myimage:xn--n3h.com"),
        ("sub-dom1.foo.com/bar/baz/quux:some-long-tag", "sub-dom1.foo.com/bar/baz/quux:some-long-tag"),
        # Separators inside components
        ("a.b_c__d-e---f", "docker.io/library/a.b_c__d-e---f:latest"),
        ("0/1", "docker.io/0/1:latest"),
        # Tags
        ("a:_", "docker.io/library/a:_"),
        ("a:A.b-C_", "docker.io/library/a:A.b-C_"),
        (f"a:{'t' * 128}", f"docker.io/library/a:{'t' * 128}"),
        # Digests
        (f"a@{DIGEST}", f"docker.io/library/a@{DIGEST}"),
        (f"a:1@{DIGEST}", f"docker.io/library/a:1@{DIGEST}"),
        (f"h.example:5000/a:1@{DIGEST}", f"h.example:5000/a:1@{DIGEST}"),
        (f"a@sha512:{HEX * 2}", f"docker.io/library/a@sha512:{HEX * 2}"),
        # Sixty-four hex digits may be part of a name, if they are not all of it
        (f"me/{HEX}", f"docker.io/me/{HEX}:latest"),
        (f"{HEX}:1", f"docker.io/library/{HEX}:1"),
        (f"{HEX[:-1]}", f"docker.io/library/{HEX[:-1]}:latest"),
        # As long as a name may be
        (f"h.example/{'a' * 245}", f"h.example/{'a' * 245}:latest"),
    ],
)
def test_a_reference_gets_its_normal_form(text: str, expected: str) -> None:
    assert str(ImageReference.parse(text)) == expected


def test_what_others_write_before_a_reference_is_understood_or_answered() -> None:
    expected = ImageReference.parse("quay.io/a/b:1")
    assert ImageReference.parse("docker://quay.io/a/b:1") == expected
    assert Repository.parse("docker://quay.io/a/b") == expected.repository
    for scheme in ("https", "http", "oci"):
        with pytest.raises(InvalidReference, match=r"a reference has no scheme; write 'quay\.io/a/b:1'"):
            ImageReference.parse(f"{scheme}://quay.io/a/b:1")
    for text in ("oci:/a", "docker-archive:./a.tar", "dir:../a", "oci-archive:/a:b"):
        with pytest.raises(InvalidReference, match="an image on this disk; layerfs import reads it"):
            ImageReference.parse(text)
    assert str(ImageReference.parse("oci:3")) == "docker.io/library/oci:3"


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("", id="nothing"),
        pytest.param(":tag", id="only a tag"),
        pytest.param(f"@{DIGEST}", id="only a digest"),
        pytest.param(":", id="only a colon"),
        pytest.param("/", id="only a slash"),
        pytest.param("/a", id="begins with a slash"),
        pytest.param("a/", id="ends with a slash"),
        pytest.param("a//b", id="two slashes"),
        pytest.param("a:", id="an empty tag"),
        pytest.param("a:.b", id="a tag with a dot first"),
        pytest.param("a:-b", id="a tag with a dash first"),
        pytest.param("a:b:c", id="two tags"),
        pytest.param("a:b c", id="a space in the tag"),
        pytest.param(f"a:{'t' * 129}", id="a tag too long"),
        pytest.param("a:\u00e9", id="a tag not in ASCII"),
        pytest.param("a:b\n", id="a line end"),
        pytest.param("Alpine", id="a capital"),
        pytest.param("a/B", id="a capital further on"),
        pytest.param("quay.io/A", id="a capital in the path"),
        pytest.param("uppercase/REPO:tag", id="capitals of a repository"),
        pytest.param("-a", id="a dash first"),
        pytest.param("a-", id="a dash last"),
        pytest.param("a..b", id="two dots"),
        pytest.param("a___b", id="three underscores"),
        pytest.param("a._b", id="a dot and an underscore"),
        pytest.param("_a", id="an underscore first"),
        pytest.param("..", id="the parent"),
        pytest.param("a/../b", id="the parent inside"),
        pytest.param("./a", id="this directory"),
        pytest.param(".git/a", id="a dot first"),
        pytest.param("a b", id="a space"),
        pytest.param("a\0b", id="a NUL"),
        pytest.param("http://h.example/a", id="a URL"),
        pytest.param("docker-daemon:alpine:3", id="a transport"),
        pytest.param("-h.example/a", id="a dash before the host"),
        pytest.param("h_x.example/a", id="an underscore in the host"),
        pytest.param("h..example/a", id="two dots in the host"),
        pytest.param(".example/a", id="a dot before the host"),
        pytest.param("h.example:/a", id="an empty port"),
        pytest.param("h.example:x/a", id="a port of letters"),
        pytest.param("h.example:65536/a", id="a port too large"),
        pytest.param("h.example:5000/", id="no name after the port"),
        pytest.param("user@h.example/a", id="a user"),
        pytest.param("[::1/a", id="half a bracket"),
        pytest.param("[::1]x/a", id="text after the bracket"),
        pytest.param("[fe80::1%eth0]/a", id="a zone"),
        pytest.param("[::::]/a", id="no IPv6 address"),
        pytest.param("[]/a", id="empty brackets"),
        pytest.param("::1/a", id="no brackets"),
        pytest.param(HEX, id="an image ID"),
        pytest.param(f"a@sha256:{HEX[:-1]}", id="a digest too short"),
        pytest.param(f"a@sha256:{HEX.upper()}", id="a digest in capitals"),
        pytest.param(f"a@{DIGEST}@{DIGEST}", id="two digests"),
        pytest.param(f"a@{DIGEST}:tag", id="a tag after the digest"),
        pytest.param("a@", id="an empty digest"),
        pytest.param("a@md5:d41d8cd98f00b204e9800998ecf8427e", id="an unsupported digest"),
        pytest.param(f"h.example/{'a' * 246}", id="a name too long"),
        pytest.param(f"h.example/{'a/' * 128}a", id="too many components"),
    ],
)
def test_what_is_no_reference_is_refused(text: str) -> None:
    with pytest.raises(InvalidReference) as caught:
        ImageReference.parse(text)
    assert str(caught.value)


def test_an_image_id_is_refused_with_advice() -> None:
    with pytest.raises(
        InvalidReference, match=f"looks like an image ID; name a repository, or name@{DIGEST}"
    ):
        ImageReference.parse(HEX)


@given(st.text(min_size=1, max_size=5000))
def test_an_endless_text_is_not_repeated_in_the_error(text: str) -> None:
    try:
        ImageReference.parse(text * 1000)
    except InvalidReference as exc:
        assert len(str(exc)) < 6000  # noqa: PT017 - most texts raise, not all


@given(repositories, tags, digests)
def test_a_repository_names_its_images(repository: Repository, tag: str, digest: Digest) -> None:
    assert ImageReference.parse(f"{repository}:{tag}").tag == repository.with_tag(tag)
    assert ImageReference.parse(f"{repository}@{digest}") == repository.with_digest(digest)


@pytest.mark.parametrize("tag", ["", ".", "..", "a/b", "a b", "-a", "a" * 129, "\u00e9", "a\n"])
def test_no_image_is_named_by_what_is_no_tag(tag: str) -> None:
    assert not is_tag(tag)
    with pytest.raises(InvalidReference, match="not a tag"):
        Repository.parse("a").with_tag(tag)


@given(repositories, tags, digests)
def test_the_digest_decides_else_the_tag_else_the_default_one(
    repository: Repository, tag: str, digest: Digest
) -> None:
    named = repository.with_tag(tag)
    assert ImageReference(repository, named, digest).target == digest
    assert ImageReference(repository, named, None).target == named
    assert ImageReference(repository, None, None).target == repository.with_tag("latest")


@given(registries, components, tags)
def test_the_three_kinds_of_names_are_told_apart(registry: str, component: str, tag: str) -> None:
    assert is_registry(registry)
    assert is_component(component)
    assert is_tag(tag)
    assert not is_registry("a-b")


@pytest.mark.parametrize(
    "text",
    ["", "foo", ".", "..", ".git", "HEAD/", "a b.c", "x:", ":5000", "a.b:123456", "a.b\n", "[1.2.3.4]"],
)
def test_what_cannot_be_a_registry_is_none(text: str) -> None:
    assert not is_registry(text)
