"""What a target asks for: every form that the specification has, and nothing else."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from layerfs.oci import Digest
from layerfs.serve.asks import (
    Ask,
    BlobAsk,
    ManifestAsk,
    MetricsAsk,
    Name,
    ReferrersAsk,
    TagsAsk,
    VersionAsk,
    parse,
)
from layerfs.serve.replies import Refused

DIGEST = Digest.of(b"x")
ALPINE = Name("library/alpine", "docker.io")


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        ("/v2/", VersionAsk()),
        ("/v2", VersionAsk()),
        ("/v2/app/manifests/1.0", ManifestAsk(Name("app"), "1.0")),
        (f"/v2/app/manifests/{DIGEST}", ManifestAsk(Name("app"), DIGEST)),
        (f"/v2/app/manifests/sha256%3A{DIGEST.hex}", ManifestAsk(Name("app"), DIGEST)),
        (f"/v2/team/app/blobs/{DIGEST}", BlobAsk(Name("team/app"), DIGEST)),
        ("/v2/team/app/tags/list", TagsAsk(Name("team/app"))),
        ("/v2/app/tags/list?n=3&last=b", TagsAsk(Name("app"), 3, "b")),
        ("/v2/app/tags/list?n=99999999999999999999", TagsAsk(Name("app"), 1000)),
        (f"/v2/app/referrers/{DIGEST}?artifactType=x", ReferrersAsk(Name("app"), DIGEST)),
        ("/v2/docker.io/library/alpine/manifests/3", ManifestAsk(ALPINE, "3")),
        ("/v2/library/alpine/manifests/3?ns=docker.io", ManifestAsk(ALPINE, "3")),
        ("/v2/library/alpine/manifests/3?ns=registry-1.docker.io", ManifestAsk(ALPINE, "3")),
        ("/v2/a/b/manifests/3?ns=r.test%3A5000", ManifestAsk(Name("a/b", "r.test:5000"), "3")),
        ("/v2/r.test/a/manifests/3?ns=mirror.test", ManifestAsk(Name("r.test/a", "mirror.test"), "3")),
        ("/v2/manifests/blobs/tags/list", TagsAsk(Name("manifests/blobs"))),
    ],
)
def test_a_target_is_read(target: str, expected: Ask) -> None:
    assert parse("GET", target) == expected
    assert parse("HEAD", target) == expected


@pytest.mark.parametrize(
    ("method", "target", "status", "code"),
    [
        pytest.param("POST", "/v2/app/blobs/uploads/", 405, "UNSUPPORTED", id="an upload"),
        pytest.param("DELETE", "/v2/app/manifests/1", 405, "UNSUPPORTED", id="a removal"),
        pytest.param("GET", "/", 404, "UNSUPPORTED", id="the root"),
        pytest.param("GET", "/v1/search", 404, "UNSUPPORTED", id="an older API"),
        pytest.param("GET", "/v2/_catalog", 404, "UNSUPPORTED", id="the catalog"),
        pytest.param("GET", "/v2/app/_trust/tuf/root.json", 404, "UNSUPPORTED", id="signatures of Notary"),
        pytest.param("GET", "http://other.test/v2/", 404, "UNSUPPORTED", id="as of a proxy"),
        pytest.param("GET", "/v2/../../etc/manifests/passwd", 400, "NAME_INVALID", id="a way up"),
        pytest.param("GET", "/v2/..%2f..%2fetc/manifests/1", 400, "UNSUPPORTED", id="a way up, escaped"),
        pytest.param("GET", "/v2/a//b/manifests/1", 400, "NAME_INVALID", id="an empty component"),
        pytest.param("GET", "/v2//etc/manifests/1", 400, "NAME_INVALID", id="an absolute path"),
        pytest.param("GET", "/v2/a\\b/manifests/1", 400, "NAME_INVALID", id="a backslash"),
        pytest.param("GET", "/v2/A/manifests/1", 400, "NAME_INVALID", id="upper case"),
        pytest.param("GET", f"/v2/{'a' * 300}/manifests/1", 400, "NAME_INVALID", id="a long name"),
        pytest.param("GET", "/v2/a/manifests/..", 400, "MANIFEST_INVALID", id="a way up as tag"),
        pytest.param("GET", "/v2/a/manifests/" + "t" * 129, 400, "MANIFEST_INVALID", id="a long tag"),
        pytest.param("GET", "/v2/a/blobs/sha256:../../x", 404, "UNSUPPORTED", id="a way up as digest"),
        pytest.param("GET", f"/v2/a/blobs/md5:{'0' * 32}", 400, "DIGEST_INVALID", id="a weak digest"),
        pytest.param("GET", "/v2/a/tags/list?n=-1", 400, "UNSUPPORTED", id="a negative number"),
        pytest.param("GET", "/v2/a/tags/list?n=%C2%B2", 400, "UNSUPPORTED", id="a number of Unicode"),
        pytest.param("GET", "/v2/a/manifests/1?ns=../..", 400, "NAME_INVALID", id="a way up as registry"),
        pytest.param("GET", "/v2/a/manifests/1?ns=quay.io&ns=x.io", 400, "UNSUPPORTED", id="two registries"),
    ],
)
def test_anything_else_is_refused(method: str, target: str, status: int, code: str) -> None:
    with pytest.raises(Refused) as refused:
        parse(method, target)

    assert (refused.value.status, refused.value.code) == (status, code)


@given(
    st.lists(
        st.sampled_from(["/v2/", "a", "/", "..", "manifests", "blobs", "tags/list", "%3A", "%2e", "?", "ns="])
    )
    .map("".join)
    .flatmap(lambda start: st.text(st.characters(min_codepoint=33, max_codepoint=126)).map(start.__add__))
)
def test_no_target_leads_out_of_the_grammar(target: str) -> None:
    try:
        ask = parse("GET", target)
    except Refused:
        return
    if not isinstance(ask, (VersionAsk, MetricsAsk)):
        assert ".." not in ask.name.path.split("/")
        ask.name.at(ask.name.registry or "docker.io")  # it is the name of a repository
