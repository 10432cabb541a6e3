"""The pure readers and rules: challenges, retries, ranges, URLs, redirects, proxies, errors, pages."""

import gzip
import zlib
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from itertools import pairwise

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from layerfs.errors import RegistryMisbehaved
from layerfs.oci import Digest, Repository
from layerfs.registry import RetryPolicy
from layerfs.registry.challenge import Challenge, parse_challenges
from layerfs.registry.encoding import Decoder
from layerfs.registry.hosts import BlobOf, Greeting, ManifestOf, TagsOf, Target, asks_next, hosts
from layerfs.registry.paging import next_page, parse_tags
from layerfs.registry.problem import Problem, without_secrets
from layerfs.registry.proxies import proxy_for
from layerfs.registry.ranges import Range, part_of_body
from layerfs.registry.reach import Reach
from layerfs.registry.redirects import Request, follow
from layerfs.registry.retry import parse_retry_after
from layerfs.registry.token import parse_token
from layerfs.registry.weborigin import WebOrigin, is_loopback, redact

# Challenges

TOKENS = st.text("abcdefghijklmnopqrstuvwxyz-_.", min_size=1, max_size=10)
VALUES = st.text(st.characters(codec="latin-1", exclude_characters="\r\n\0"), max_size=30)
CHALLENGES = st.builds(
    Challenge, TOKENS, st.dictionaries(TOKENS, VALUES, max_size=5).map(lambda found: tuple(found.items()))
)


@given(st.lists(CHALLENGES, max_size=4), st.booleans())
def test_printed_challenges_are_read_back(challenges: list[Challenge], in_one_header: bool) -> None:
    texts = [str(challenge) for challenge in challenges]
    headers = [", ".join(texts)] if in_one_header else texts
    assert parse_challenges(headers) == tuple(challenges)


@given(st.lists(st.text(max_size=100), max_size=3))
def test_any_text_is_read_without_an_error(headers: list[str]) -> None:
    for challenge in parse_challenges(headers):
        assert challenge.scheme == challenge.scheme.lower()
        assert challenge.scheme


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ("", []),
        ("Basic", [("basic", {})]),
        ("Basic, Bearer", [("basic", {}), ("bearer", {})]),
        ("Negotiate YWJj==, Basic realm=x", [("negotiate", {}), ("basic", {"realm": "x"})]),
        ('Bearer realm="a,b" , service = "c\\"d"', [("bearer", {"realm": "a,b", "service": 'c"d'})]),
        ('Bearer realm="x",realm="y"', [("bearer", {"realm": "x"})]),
        ("Bearer realm=http://h/t?a=b,service=s", [("bearer", {"realm": "http://h/t?a=b", "service": "s"})]),
        ('Bearer realm="never ends', [("bearer", {"realm": "never ends"})]),
        ('realm="x"', []),
        (',, ;;= Bearer realm="x"', [("bearer", {"realm": "x"})]),
    ],
)
def test_challenges_as_registries_write_them(header: str, expected: list[tuple[str, dict[str, str]]]) -> None:
    found = parse_challenges([header])
    assert [(challenge.scheme, dict(challenge.parameters)) for challenge in found] == expected


# Retries


@given(st.integers(1, 10), st.floats(0, 100), st.floats(0, 1))
def test_a_retry_waits_no_longer_than_its_cap_and_ends_with_its_window(
    attempt: int, elapsed: float, chance: float
) -> None:
    policy = RetryPolicy()
    delay = policy.delay(attempt, elapsed, None, chance)
    if attempt >= policy.attempts:
        assert delay is None
    if delay is not None:
        assert 0 <= delay <= policy.cap
        assert elapsed + delay <= policy.window


@given(st.floats(0, 1000), st.floats(0, 1000))
def test_a_wish_is_waited_for_in_full_or_not_at_all(wish: float, elapsed: float) -> None:
    delay = RetryPolicy().delay(1, elapsed, wish)
    assert (delay is None) == (wish > RetryPolicy().longest_wish)
    assert delay is None or delay >= wish


NOW = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (None, None),
        ("", None),
        ("7", 7.0),
        (" 7 ", 7.0),
        ("-7", None),
        ("\u0667", None),
        ("soon", None),
        ("9" * 400, 9999999999.0),
        (format_datetime(NOW + timedelta(seconds=90), usegmt=True), 90.0),
        (format_datetime(NOW - timedelta(seconds=90), usegmt=True), 0.0),
        ("Thu, 01 Jan 2026 00:00:05", 5.0),
        ("Thu, 99 Jan 2026 00:00:05 GMT", None),
    ],
)
def test_retry_after_is_read_as_seconds_or_as_a_date(text: str | None, expected: float | None) -> None:
    assert parse_retry_after(text, NOW) == expected


@given(st.text())
def test_any_retry_after_is_read_without_an_error(text: str) -> None:
    found = parse_retry_after(text, NOW)
    assert found is None or found >= 0


# Ranges


@given(st.integers(0, 1 << 40), st.integers(1, 1 << 40))
def test_the_range_that_was_asked_for_is_accepted(first: int, length: int) -> None:
    size = first + length
    for total in (str(size), "*"):
        headers = {"content-range": f"bytes {first}-{size - 1}/{total}"}
        assert part_of_body(Range(first), size, 206, headers) == (first, size)
    assert part_of_body(Range(first), size, 200, {}) == (0, size)


@given(st.integers(0, 1 << 40), st.integers(1, 1 << 40), st.integers(0, 1 << 40))
def test_a_range_with_an_end_is_asked_for_and_accepted_as_such(first: int, length: int, rest: int) -> None:
    asked = Range(first, first + length - 1)
    assert asked.header == f"bytes={first}-{first + length - 1}"
    size = first + length + rest
    end = first + length
    for last in {first, (first + end - 1) // 2, end - 1}:  # a shorter part is one, too
        headers = {"content-range": f"bytes {first}-{last}/{size}"}
        assert part_of_body(asked, size, 206, headers) == (first, last + 1)
    with pytest.raises(RegistryMisbehaved):
        part_of_body(asked, size, 206, {"content-range": f"bytes {first}-{end}/{size}"})


@pytest.mark.parametrize(
    ("asked", "header"), [(Range(), None), (Range(5), "bytes=5-"), (Range(0, 0), "bytes=0-0")]
)
def test_all_of_something_is_asked_for_without_a_range(asked: Range, header: str | None) -> None:
    assert asked.header == header


@given(st.integers(0, 1000), st.integers(1, 1000), st.text(max_size=40))
def test_any_other_range_is_refused(first: int, length: int, text: str) -> None:
    size = first + length
    if text not in (f"bytes {first}-{size - 1}/{size}", f"bytes {first}-{size - 1}/*"):
        with pytest.raises(RegistryMisbehaved, match=f"expected bytes {first}-"):
            part_of_body(Range(first), size, 206, {"content-range": text})


# URLs


@pytest.mark.parametrize(
    ("registry", "insecure", "expected"),
    [
        ("docker.io", (), ["https://registry-1.docker.io"]),
        ("quay.io", (), ["https://quay.io"]),
        ("quay.io:8443", (), ["https://quay.io:8443"]),
        ("localhost:5000", (), ["http://localhost:5000", "https://localhost:5000"]),
        ("127.9.9.9", (), ["http://127.9.9.9", "https://127.9.9.9"]),
        ("[::1]:5000", (), ["http://[::1]:5000", "https://[::1]:5000"]),
        ("10.0.0.1:5000", (), ["https://10.0.0.1:5000"]),
        ("10.0.0.1:5000", ("10.0.0.1:5000",), ["https://10.0.0.1:5000", "http://10.0.0.1:5000"]),
        ("lan.example", ("lan.example",), ["https://lan.example", "http://lan.example"]),
        ("lan.example:80", ("lan.example",), ["https://lan.example:80"]),
        ("Quay.IO", (), ["https://quay.io"]),
    ],
)
def test_a_registry_is_asked_with_tls_unless_it_is_loopback_or_insecure(
    registry: str, insecure: tuple[str, ...], expected: list[str]
) -> None:
    found = hosts(registry, frozenset(insecure))
    assert [str(host.origin) for host in found] == expected
    assert all(host.insecure == bool(registry in insecure) for host in found)


ALPINE = Repository("docker.io", "library/alpine")


@pytest.mark.parametrize(
    ("target", "path"),
    [
        (Greeting("docker.io"), "/v2/"),
        (ManifestOf(ALPINE, "3.20"), "/v2/library/alpine/manifests/3.20"),
        (ManifestOf(ALPINE, Digest.of(b"")), f"/v2/library/alpine/manifests/{Digest.of(b'')}"),
        (BlobOf(ALPINE, Digest.of(b"")), f"/v2/library/alpine/blobs/{Digest.of(b'')}"),
        (TagsOf(ALPINE), "/v2/library/alpine/tags/list"),
        (TagsOf(ALPINE, "n=1&last=x"), "/v2/library/alpine/tags/list?n=1&last=x"),
    ],
)
def test_a_host_knows_where_it_has_what_is_asked_for(target: Target, path: str) -> None:
    (host,) = hosts("docker.io", frozenset())
    assert host.url(target) == f"https://registry-1.docker.io{path}"


@pytest.mark.parametrize(
    ("status", "expected"),
    [(None, [True, True]), (400, [True, False]), (404, [False, False]), (503, [False, False])],
)
def test_the_next_host_is_asked_after_silence_or_a_refusal_of_plain_http(
    status: int | None, expected: list[bool]
) -> None:
    assert [asks_next(host, status) for host in hosts("localhost", frozenset())] == expected


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("localhost", True),
        ("LOCALHOST.", True),
        ("a.localhost", True),
        ("127.0.0.2", True),
        ("::1", True),
        ("[::1]", True),
        ("localhost.example.org", False),
        ("127.0.0.1.example.org", False),
        ("notlocalhost", False),
        ("10.0.0.1", False),
        ("", False),
    ],
)
def test_only_this_machine_is_loopback(host: str, expected: bool) -> None:
    assert is_loopback(host) is expected


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        (
            "https://h/p?X-Sig=abc&ns=docker.io&empty=&alone#f",
            "https://h/p?X-Sig=...&ns=docker.io&empty=...&...",
        ),
        ("https://user:secret@h:1/p", "https://h:1/p"),
        ("https://h/", "https://h/"),
        ("http://[::1", "(unreadable URL)"),
    ],
)
def test_a_shown_url_holds_no_secret(url: str, expected: str) -> None:
    assert redact(url) == expected


@given(st.text())
def test_any_text_is_redacted_or_refused_as_a_url(text: str) -> None:
    redact(text)
    try:
        origin = WebOrigin.of(text)
    except RegistryMisbehaved:
        return
    assert origin.scheme in ("http", "https")
    assert WebOrigin.of(f"{origin}/") == origin


# Redirects

PUBLIC = Reach("public")
REQUEST = Request("GET", "https://h.example/v2/x", range=Range(7), authorization="secret")


@pytest.mark.parametrize(
    ("location", "url", "keeps"),
    [
        ("/y", "https://h.example/y", True),
        ("y?z", "https://h.example/v2/y?z", True),
        ("https://h.example:443/y", "https://h.example:443/y", True),
        ("https://H.EXAMPLE/y", "https://H.EXAMPLE/y", True),
        ("//other.example/y", "https://other.example/y", False),
        ("https://h.example:444/y", "https://h.example:444/y", False),
        ("https://sub.h.example/y", "https://sub.h.example/y", False),
    ],
)
def test_authorization_stays_with_its_origin(location: str, url: str, keeps: bool) -> None:
    found = follow(REQUEST, 307, location, PUBLIC)
    assert found == msgspec.structs.replace(
        REQUEST, url=url, authorization="secret" if keeps else None, reach=None if keeps else PUBLIC
    )
    back = follow(found, 307, REQUEST.url, PUBLIC)
    assert back.authorization == ("secret" if keeps else None)  # once dropped, it does not come back


def test_only_an_insecure_registry_may_redirect_to_http() -> None:
    with pytest.raises(RegistryMisbehaved, match="from https to"):
        follow(REQUEST, 307, "http://h.example/y", PUBLIC)
    assert (
        follow(
            msgspec.structs.replace(REQUEST, insecure=True), 307, "http://h.example/y", PUBLIC
        ).authorization
        is None
    )


# Proxies


@pytest.mark.parametrize(
    ("url", "environment", "expected"),
    [
        ("https://h.example", {}, None),
        ("https://h.example", {"HTTPS_PROXY": "http://p:1"}, "http://p:1"),
        ("https://h.example", {"https_proxy": "p:1"}, "http://p:1"),
        ("https://h.example", {"HTTP_PROXY": "http://p:1"}, None),
        ("http://h.example", {"HTTP_PROXY": "http://p:1"}, "http://p:1"),
        ("http://h.example", {"HTTP_PROXY": "http://p:1", "REQUEST_METHOD": "GET"}, None),
        ("https://h.example", {"ALL_PROXY": "http://p:1"}, "http://p:1"),
        ("https://h.example", {"HTTPS_PROXY": "", "ALL_PROXY": "http://p:1"}, "http://p:1"),
        ("https://localhost", {"HTTPS_PROXY": "http://p:1"}, None),
        ("http://127.0.0.1:5000", {"HTTP_PROXY": "http://p:1"}, None),
    ],
)
def test_the_proxy_comes_from_the_environment(
    url: str, environment: dict[str, str], expected: str | None
) -> None:
    assert proxy_for(WebOrigin.of(url), environment) == expected


@pytest.mark.parametrize(
    ("url", "rules", "excluded"),
    [
        ("https://h.example", "*", True),
        ("https://h.example", "h.example", True),
        ("https://h.example", " other , H.EXAMPLE ", True),
        ("https://sub.h.example", "h.example", True),
        ("https://noth.example", "h.example", False),
        ("https://h.example", ".h.example", False),
        ("https://sub.h.example", ".h.example", True),
        ("https://sub.h.example", "*.h.example", True),
        ("https://h.example", "h.example:443", True),
        ("https://h.example", "h.example:444", False),
        ("https://10.1.2.3", "10.0.0.0/8", True),
        ("https://11.1.2.3", "10.0.0.0/8", False),
        ("https://h.example", "10.0.0.0/8", False),
        ("https://h.example", "nonsense/8", False),
        ("https://10.1.2.3", "10.1.2.3", True),
        ("https://10.1.2.3", "1.2.3", False),
        ("https://10.1.2.3:5000", "10.1.2.3:5000", True),
        ("https://[fd00::2]", "fd00::2", True),
        ("https://[fd00::2]", "[fd00::2]", True),
        ("https://[fd00::2]:5000", "[fd00:0::2]:5000", True),
        ("https://[fd00::2]", "fd00::/8", True),
        ("https://h.example", "", False),
        ("https://h.example", ",,", False),
    ],
)
def test_no_proxy_follows_go(url: str, rules: str, excluded: bool) -> None:
    environment = {"HTTPS_PROXY": "http://p:1", "no_proxy": rules}
    assert (proxy_for(WebOrigin.of(url), environment) is None) is excluded


@given(st.text())
def test_any_no_proxy_is_read_without_an_error(text: str) -> None:
    proxy_for(WebOrigin.of("https://h.example"), {"HTTPS_PROXY": "p", "NO_PROXY": text})


# Bodies


@given(st.binary(max_size=300), st.integers(400, 599))
def test_any_error_body_is_read_without_an_error(body: bytes, status: int) -> None:
    error = Problem.parse(status, body).error("thing", "registry")
    assert str(error).isprintable()


@given(st.binary(max_size=300))
def test_any_token_body_is_a_token_or_refused(body: bytes) -> None:
    try:
        token = parse_token(body, "server")
    except RegistryMisbehaved:
        return
    assert token.value
    assert token.life >= 60


@pytest.mark.parametrize(
    ("expires_in", "life"),
    [
        ("300", 300),
        ('"300"', 300),
        ("1", 60),
        ("null", 60),
        ("-5", 60),
        ('"x"', 60),
        ('"nan"', 60),
        ("1e300", 1e9),
    ],
)
def test_the_life_of_a_token_is_a_minute_at_least(expires_in: str, life: float) -> None:
    token = parse_token(b'{"token": "t", "expires_in": %s}' % expires_in.encode(), "server")
    assert token.life == life


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("plain text: 1/2", "plain text: 1/2"),
        ("a\nb\x1b[0m\0c", r"a b\x1b[0m\x00c"),
        ("sent Authorization: Bearer abc.def-1 twice", "sent Authorization: ... twice"),
        ("basic dXNlcjpwYXNz!", "...!"),
        ("token eyJhbGciOi.eyJzdWIi.c2ln is bad", "token ... is bad"),
        ("see https://u:p@h/x?sig=1&b=2 for more", "see https://...h/x?... for more"),
        ("x" * 1000, "x" * 299 + "…"),
        ("echo hunter2", "echo ..."),
    ],
)
def test_foreign_text_is_one_short_line_without_secrets(text: str, expected: str) -> None:
    assert without_secrets(text, ("hunter2",)) == expected


def compressed(content: bytes, encoding: str) -> bytes:
    if encoding == "identity":
        return content
    return gzip.compress(content) if encoding == "gzip" else zlib.compress(content)


@given(
    st.lists(st.binary(max_size=3000), max_size=3),
    st.lists(st.integers(0, 5000), max_size=5),
    st.sampled_from(["gzip", "deflate", "identity"]),
)
def test_any_chunking_of_a_compressed_body_inflates_to_the_same(
    members: list[bytes], cuts: list[int], encoding: str
) -> None:
    body = b"".join(compressed(member, encoding) for member in members)
    edges = [0, *sorted(min(cut, len(body)) for cut in cuts), len(body)]
    decoder = Decoder(encoding)
    pieces = [piece for start, end in pairwise(edges) for piece in decoder.feed(body[start:end])]
    assert b"".join(pieces) == b"".join(members)
    assert decoder.finished


def test_a_bomb_inflates_in_small_pieces() -> None:
    bomb = gzip.compress(bytes(50 << 20))
    assert max(len(piece) for piece in Decoder("gzip").feed(bomb)) == 1 << 20


# Pages


@pytest.mark.parametrize(
    ("links", "expected"),
    [
        ([], None),
        (['</v2/a/tags/list?last=x&n=1>; rel="next"'], "last=x&n=1"),
        (["</v2/a/tags/list?a,b;c>; rel=next"], "a,b;c"),
        (['<list?last=x#f>; title="a, <b>"; REL="prev next"'], "last=x"),
        (['</v2/b?b>; rel="prev", </v2/c?c>; rel="next"'], "c"),
        (['</v2/b?b>; rel="prev"', '</v2/c?c>; rel="next"'], "c"),
        (["<http://10.0.0.1/v2/c?c>; rel=next"], "c"),
        (["</admin?c>; rel=next"], "c"),
        (["<http://[::1?c>; rel=next"], "c"),
        (['</v2/b?b>; rel="nextish"'], None),
        (["nonsense"], None),
    ],
)
def test_of_the_next_page_only_the_query_counts(links: list[str], expected: str | None) -> None:
    assert next_page(links) == expected


@pytest.mark.parametrize("link", ["</admin>; rel=next", "</v2/a/list?>; rel=next", "<file:///x>; rel=next"])
def test_a_next_page_without_a_query_is_refused(link: str) -> None:
    with pytest.raises(RegistryMisbehaved, match="a link with a query"):
        next_page([link])


def test_a_null_in_a_document_of_a_registry_is_nothing() -> None:
    """Programs in Go write null for what is not set, and read it as that."""
    problem = Problem.parse(403, b'{"errors": [{"code": "DENIED", "message": null, "detail": null}, null]}')
    assert problem.codes == {"DENIED"}
    assert problem.message == ""
    assert Problem.parse(400, b'{"errors": [{"code": null, "message": "no"}]}').message == "no"
    assert Problem.parse(401, b'{"details": null, "error": null, "error_description": "no"}').message == "no"
    assert Problem.parse(401, b'{"errors": null, "details": null}').message == ""
    assert parse_tags(b'{"name": null, "tags": ["a", null, "b"]}', "tags") == ["a", "b"]
    assert parse_tags(b'{"tags": null}', "tags") == []
