"""Servers that stand before registries in fleets, with the manners of two real ones that no test can install.

Both are of the tests' own and share no code with those; what each refuses is what its model refuses.
"""

import re
from types import TracebackType
from typing import Final, Self

import httpx

from tests.support.faulty_registry import Answer, Asked, Running, error_answer
from tests.support.images import Built

_BLOB: Final = re.compile(r"/v2/.+/blobs/(sha256:[0-9a-f]{64})")
_MANIFEST: Final = re.compile(r"/v2/(.+)/manifests/(.+)")
_PASSED_ON: Final = ("content-type", "content-range", "www-authenticate", "docker-content-digest", "location")


class _Engine:
    """A context manager over one server."""

    def __enter__(self) -> Self:
        self._running = Running(self.respond)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._running.close()

    @property
    def host(self) -> str:
        """``127.0.0.1:port``."""
        return self._running.host

    @property
    def asked(self) -> list[Asked]:
        """All requests so far, in order of their answers."""
        return self._running.asked

    def respond(self, asked: Asked) -> Answer:
        raise NotImplementedError


class DragonflyShaped(_Engine):
    """A dfdaemon: passes requests on to the registry that they name, and keeps whole blobs for peers.

    Names are taken from ``X-Dragonfly-Registry``, else ``ns``; *upstreams* says where each is. Without a name
    it would ask its one configured registry: there is none here, so that is an error of the proxy. It has no
    logins: a demand for one passes through, and so does the answer to it.
    """

    def __init__(self, upstreams: dict[str, str]) -> None:
        self.kept: dict[str, bytes] = {}
        """Blobs by digest, as peers have them."""
        self._upstreams = upstreams

    def respond(self, asked: Asked) -> Answer:
        """Answer one request."""
        named = asked.headers.get("x-dragonfly-registry", "").partition("://")[2]
        upstream = self._upstreams.get(named or asked.query.get("ns", [""])[0])
        if upstream is None:
            return Answer(502, b"no registry is named", {"X-Dragonfly-Error-Type": "proxy"})
        blob = _BLOB.fullmatch(asked.path)
        whole = blob is not None and asked.method == "GET" and "range" not in asked.headers
        if blob is not None and whole and blob[1] in self.kept:
            return Answer(200, self.kept[blob[1]])
        kept = {"authorization", "accept", "accept-encoding", "range"}
        headers = {name: value for name, value in asked.headers.items() if name in kept}
        found = httpx.request(
            asked.method, f"http://{upstream}{asked.path}", headers=headers, trust_env=False
        )
        if blob is not None and whole and found.status_code == 200:
            self.kept[blob[1]] = found.content
        answer = Answer(found.status_code, found.content)
        answer.headers = {name: found.headers[name] for name in _PASSED_ON if name in found.headers}
        if asked.method == "HEAD":
            answer.length = int(found.headers.get("content-length", 0))
        return answer


class SpegelShaped(_Engine):
    """A Spegel node: gives what its containerd or a peer has, and knows of no registry.

    A tag without ``ns`` is an error, what nobody has a 404, and so is a range of what only a peer has. With a
    *login* (``Basic ...``) a 401 says nothing of how to log in. Whoever sends its own header is taken for a
    peer, and is given what is here alone.
    """

    def __init__(self, login: str = "") -> None:
        self.login = login
        self._here: dict[str, tuple[bytes, str]] = {}
        self._at_peers: dict[str, tuple[bytes, str]] = {}
        self._tags: dict[str, str] = {}

    def has(self, name: str, tag: str, built: Built, *, at_peer: bool = False) -> None:
        """Put an image in, of the registry and repository *name*."""
        place = self._at_peers if at_peer else self._here
        place.update(
            {str(digest): (blob, "application/octet-stream") for digest, blob in built.blobs().items()}
        )
        place.update({str(one.digest): (one.manifest, one.media_type) for one in built.manifests()})
        self._tags[f"{name}:{tag}"] = str(built.digest)

    def respond(self, asked: Asked) -> Answer:
        """Answer one request."""
        if asked.method not in ("GET", "HEAD"):
            return Answer(405)
        if self.login and asked.headers.get("authorization") != self.login:
            return error_answer(401, "UNAUTHORIZED", "invalid basic authentication")
        if asked.path == "/v2/":
            return Answer(200)
        if blob := _BLOB.fullmatch(asked.path):
            return self._content(asked, blob[1])
        if (manifest := _MANIFEST.fullmatch(asked.path)) is None:
            return Answer(404)
        name, reference = manifest.groups()
        if ":" in reference:
            return self._content(asked, reference)
        if "ns" not in asked.query:
            return error_answer(404, "UNKNOWN", "registry parameter needs to be set for tag references")
        digest = self._tags.get(f"{asked.query['ns'][0]}/{name}:{reference}")
        return self._content(asked, digest) if digest else Answer(404)

    def _content(self, asked: Asked, digest: str) -> Answer:
        found = self._here.get(digest)
        peers = None if "x-spegel-mirrored" in asked.headers or "range" in asked.headers else self._at_peers
        if found is None and (found := (peers or {}).get(digest)) is None:
            return error_answer(404, "UNKNOWN", "could not be found")
        body, media_type = found
        headers = {"Content-Type": media_type, "Docker-Content-Digest": digest}
        wanted = re.fullmatch(r"bytes=(\d+)-(\d*)", asked.headers.get("range", ""))
        if wanted is None:
            return Answer(200, body, headers)
        first, last = int(wanted[1]), min(int(wanted[2] or len(body)), len(body) - 1)
        return Answer(
            206, body[first : last + 1], headers | {"Content-Range": f"bytes {first}-{last}/{len(body)}"}
        )
