"""A registry that misbehaves on demand: real sockets on loopback, one switch for each fault.

`FaultyRegistry` serves images from memory, with a token server on the same port and a storage server
on another one, where blobs may be redirected to. Set the fields of ``faults`` at any time; ``asked``
and ``storage.asked`` tell what came in, headers included. It runs in threads of its own.
"""

import base64
import gzip
import json
import re
import socket
import ssl
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Literal, Self
from urllib.parse import parse_qs, urlsplit

from layerfs.oci import Digest, Repository
from layerfs.oci import mediatype as types
from tests.support.images import Built

USER, PASSWORD = "robot", "planted:päss word"
IDENTITY_TOKEN = "planted-identity-token"
SIGNATURE = "planted-presigned-signature"
TOKEN_PREFIX = "planted-token-"

_POLL_SECONDS = 0.004
"""How long a server takes to notice that it should end: hundreds of tests have one of their own."""

_MANIFEST = re.compile(r"/v2/(?P<name>.+)/manifests/(?P<reference>[^/]+)")
_BLOB = re.compile(r"/v2/(?P<name>.+)/blobs/(?P<digest>[^/]+)")
_TAGS = re.compile(r"/v2/(?P<name>.+)/tags/list")


@dataclass(frozen=True, slots=True)
class Asked:
    """One request that came in."""

    method: str
    path: str
    query: dict[str, list[str]]
    headers: dict[str, str]
    """Names in lower case."""
    form: dict[str, list[str]]
    status: int
    body: bytes = b""
    at: float = field(default=0.0, compare=False, repr=False)
    """When it came in, by time.monotonic()."""

    @property
    def line(self) -> str:
        """Method, path and status, for comparisons."""
        return f"{self.method} {self.path} {self.status}"


@dataclass(slots=True)
class Answer:
    """What to say, and how to say it wrong."""

    status: int = 200
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)
    length: int | None = None
    """Content-Length, if it is not that of the body."""
    cut: int | None = None
    """Close the connection after so many bytes of the body."""
    stall: bool = False
    """Send no more after ``cut``, but keep the connection."""
    chunked: bool = False
    trickle: bool = False
    """Send twenty bytes a second."""


@dataclass(slots=True)
class Faults:
    """The switches; all off."""

    auth: Literal["none", "bearer", "basic"] = "none"
    anonymous: bool = True
    """With bearer: a token without a login."""
    is_secret: Callable[[str], bool] | None = None
    """Judges passwords and identity tokens, in the place of the fixed ones; asked once for a request."""
    challenge: str | None = None
    """The WWW-Authenticate to send, with {realm}; None for the right one."""
    silent_challenge: bool = False
    """A 401 without WWW-Authenticate, except from /v2/."""
    realm: str | None = None
    token_answer: Answer | None = None
    token_life: int | None = 300
    token_key: str = "token"
    needed_scope: str = ""
    """A scope that a token must have, or the answer is insufficient_scope."""
    first: list[tuple[str, Answer]] = field(default_factory=list)
    """(part of "METHOD /path", answer) to be given once each, before anything else."""
    always: list[tuple[str, Answer]] = field(default_factory=list)
    redirect: Callable[[str], tuple[int, str] | None] | None = None
    """For a path of a blob, status and Location."""
    redirect_to_storage: bool = False
    ignore_range: bool = False
    refuse_range: bool = False
    range_status: int = 416
    """Of the refusal."""
    most_of_range: int = 0
    """Answer a range with at most so many bytes."""
    content_range: str | None = None
    cut_blobs: list[int] = field(default_factory=list)
    """For each next answer with a blob: close the connection after so many bytes of it."""
    short_blobs: list[int] = field(default_factory=list)
    """The same, but with a Content-Length that fits."""
    stall_blobs: list[int] = field(default_factory=list)
    """For each next answer with a larger blob: send no more after so many bytes of it. (A client that has the
    whole of a smaller one sends its next request to the stalled connection.)"""
    trickle_blobs: bool = False
    wrong_bytes: bool = False
    chunked: bool = False
    """Send bodies without a Content-Length."""
    gzip_bodies: bool = False
    encoding_label: str = ""
    """Say this Content-Encoding without applying it."""
    no_digest: bool = False
    wrong_digest: str = ""
    content_type: str | None = None
    page_size: int = 0
    link_host: str = ""
    warning: str = ""
    echo: int = 0
    """Answer what passed authentication with this status, and show all that was sent."""
    silent: bool = False
    """Accept connections and say nothing."""
    hold_blobs: threading.Event | None = None
    """Answer requests for blobs only when it is set."""


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def __init__(
        self, respond: Callable[["Asked"], Answer], context: ssl.SSLContext | None, address: str
    ) -> None:
        self.respond = respond
        self.context = context
        self.asked: list[Asked] = []
        self.accepted = 0
        self.closing = threading.Event()
        self.lock = threading.Lock()
        self.connections: set[socket.socket] = set()
        super().__init__((address, 0), _Handler)

    def get_request(self) -> tuple[socket.socket, Any]:
        connection, address = super().get_request()
        if self.context is not None:  # the handshake waits for the thread of the connection
            connection = self.context.wrap_socket(connection, server_side=True, do_handshake_on_connect=False)
        self.accepted += 1
        self.connections.add(connection)
        return connection, address

    def shutdown_request(self, request: Any) -> None:
        self.connections.discard(request)
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing: clients that hang up are part of the tests."""

    def drop_connections(self) -> None:
        for connection in list(self.connections):
            try:
                connection.shutdown(socket.SHUT_RDWR)
            except OSError:
                self.connections.discard(connection)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # else each body waits 40 ms for the client to acknowledge the headers
    server: _Server

    def do_GET(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        body = self.rfile.read(length)
        is_form = self.headers.get("Content-Type") == "application/x-www-form-urlencoded"
        form = parse_qs(body.decode()) if is_form else {}
        parts = urlsplit(self.path)
        headers = {name.lower(): value for name, value in self.headers.items()}
        asked = Asked(
            self.command, parts.path, parse_qs(parts.query), headers, form, 0, body, time.monotonic()
        )
        answer = self.server.respond(asked)
        self.server.asked.append(replace(asked, status=answer.status))
        self._send(answer)

    do_HEAD = do_POST = do_PUT = do_GET  # noqa: N815 - http.server looks for these names

    def _send(self, answer: Answer) -> None:
        self.send_response_only(answer.status)
        for name, value in answer.headers.items():
            for line in value.split("\n"):
                self.send_header(name, line)
        if answer.chunked:
            self.send_header("Transfer-Encoding", "chunked")
        else:
            length = len(answer.body) if answer.length is None else answer.length
            self.send_header("Content-Length", str(length))
        self.end_headers()
        if self.command == "HEAD":
            return
        if answer.chunked:
            self.wfile.write(b"%x\r\n%b\r\n" % (len(answer.body), answer.body))
            if answer.stall:
                self.server.closing.wait()
            self.wfile.write(b"0\r\n\r\n")
            return
        if answer.trickle:
            for byte in answer.body:
                self.wfile.write(bytes([byte]))
                if self.server.closing.wait(0.05):
                    return
        self.wfile.write(answer.body if answer.cut is None else answer.body[: answer.cut])
        self.wfile.flush()
        if answer.stall:
            self.server.closing.wait()
        if answer.cut is not None or answer.stall:
            self.close_connection = True

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing: `asked` is the log."""


class Running:
    """A server in a thread."""

    def __init__(
        self,
        respond: Callable[[Asked], Answer],
        context: ssl.SSLContext | None = None,
        address: str = "127.0.0.1",
    ) -> None:
        self._server = _Server(respond, context, address)
        self.port = self._server.server_address[1]
        self.host = f"{address}:{self.port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(_POLL_SECONDS,), daemon=True)
        self._thread.start()

    @property
    def asked(self) -> list[Asked]:
        """All requests so far, in order of their answers."""
        return list(self._server.asked)

    @property
    def accepted(self) -> int:
        """How many connections were made so far."""
        return self._server.accepted

    @property
    def closing(self) -> threading.Event:
        return self._server.closing

    def drop_connections(self) -> None:
        """Reset whatever is open, idle connections too."""
        self._server.drop_connections()

    def close(self) -> None:
        self._server.closing.set()
        self._server.shutdown()
        self._server.drop_connections()
        self._server.server_close()
        self._thread.join(10)


class FaultyRegistry:
    """The registry, at a loopback address. A context manager; ``context`` makes it speak TLS."""

    def __init__(self, context: ssl.SSLContext | None = None, address: str = "127.0.0.1") -> None:
        self.faults = Faults()
        self.tokens: dict[str, set[str]] = {}
        """Valid tokens and their scopes; clear it to expire all."""
        self.downloads_at_once = 0
        self._downloads = 0
        self._lock = threading.Lock()
        self._blobs: dict[str, bytes] = {}
        self._manifests: dict[tuple[str, str], tuple[bytes, str]] = {}
        self._tags: dict[str, list[str]] = {}
        self._context = context
        self._address = address
        self._main: Running | None = None
        self._storage: Running | None = None

    def __enter__(self) -> Self:
        self._main = Running(self._respond, self._context, self._address)
        return self

    def __exit__(self, *_: object) -> None:
        if self.faults.hold_blobs:
            self.faults.hold_blobs.set()
        self.main.close()
        if self._storage is not None:
            self._storage.close()

    @property
    def main(self) -> Running:
        """The registry and token server."""
        assert self._main is not None
        return self._main

    @property
    def storage(self) -> Running:
        """Where blobs may be redirected to; it runs once somebody asked for it."""
        with self._lock:
            if self._storage is None:
                self._storage = Running(self._respond_as_storage)
        return self._storage

    @property
    def host(self) -> str:
        """The name that stands in references."""
        return self.main.host

    @property
    def asked(self) -> list[Asked]:
        """All requests to the registry and its token server."""
        return self.main.asked

    def lines(self) -> list[str]:
        """Return method, path and status of all requests."""
        return [asked.line for asked in self.asked]

    def repository(self, path: str) -> Repository:
        """Name one of its repositories."""
        return Repository.of(self.host, path)

    def push(self, path: str, tag: str, built: Built) -> Repository:
        """Put an image in; return its repository."""
        for digest, content in built.blobs().items():
            self._blobs[str(digest)] = content
        for document in built.manifests():
            self._manifests[path, str(document.digest)] = document.manifest, document.media_type
        self.push_raw(path, tag, built.manifest, built.media_type)
        return self.repository(path)

    def push_raw(self, path: str, tag: str, document: bytes, media_type: str) -> Digest:
        """Put any document in as a manifest."""
        digest = Digest.of(document)
        self._manifests[path, tag] = self._manifests[path, str(digest)] = document, media_type
        self._tags.setdefault(path, []).append(tag)
        return digest

    def push_blob(self, content: bytes) -> Digest:
        """Put a blob in, of no image."""
        digest = Digest.of(content)
        self._blobs[str(digest)] = content
        return digest

    def spoil_blob(self, digest: Digest, content: bytes) -> None:
        """Answer with *content* where a blob is asked for."""
        self._blobs[str(digest)] = content

    # Answers

    def _respond(self, asked: Asked) -> Answer:
        if self.faults.silent:
            self.main.closing.wait()
        key = f"{asked.method} {asked.path}"
        planned = self._planned(key)
        if planned is not None:
            return planned
        if asked.path == "/token":
            return self._token(asked)
        refusal = self._refusal(asked)
        if refusal is not None:
            return refusal
        if self.faults.echo:
            return echo_answer(self.faults.echo, asked)
        answer = self._content(asked)
        if self.faults.warning:
            answer.headers["Warning"] = self.faults.warning
        return answer

    def _planned(self, key: str) -> Answer | None:
        with self._lock:
            for number, (part, answer) in enumerate(self.faults.first):
                if part in key:
                    del self.faults.first[number]
                    return answer
        return next((answer for part, answer in self.faults.always if part in key), None)

    def _content(self, asked: Asked) -> Answer:
        if match := _MANIFEST.fullmatch(asked.path):
            return self._manifest(match["name"], match["reference"])
        if match := _BLOB.fullmatch(asked.path):
            return self._located_blob(asked, match["digest"])
        if match := _TAGS.fullmatch(asked.path):
            return self._tag_list(asked, match["name"])
        return Answer(200, b"{}") if asked.path == "/v2/" else Answer(404)

    def _manifest(self, name: str, reference: str) -> Answer:
        found = self._manifests.get((name, reference))
        if found is None:
            known = any(path == name for path, _ in self._manifests)
            return error_answer(404, "MANIFEST_UNKNOWN" if known else "NAME_UNKNOWN", "not here")
        body, media_type = found
        answer = Answer(200, body, {"Content-Type": self.faults.content_type or media_type})
        if self.faults.content_type == "":
            del answer.headers["Content-Type"]
        if not self.faults.no_digest:
            answer.headers["Docker-Content-Digest"] = self.faults.wrong_digest or str(Digest.of(body))
        if self.faults.wrong_bytes:
            answer.body = body[:-1] + b" "
        return self._encoded(answer)

    def _located_blob(self, asked: Asked, digest: str) -> Answer:
        if self.faults.redirect is not None and (target := self.faults.redirect(asked.path)) is not None:
            return Answer(target[0], b"gone", {"Location": target[1]})
        if self.faults.redirect_to_storage:
            location = f"http://{self.storage.host}/data/{digest}?X-Amz-Signature={SIGNATURE}"
            return Answer(307, b"gone", {"Location": location})
        return self._blob(asked, digest)

    def _respond_as_storage(self, asked: Asked) -> Answer:
        if self.faults.echo:
            return echo_answer(self.faults.echo, asked)
        if "authorization" in asked.headers:  # what S3 does, too
            return Answer(400, b"Only one auth mechanism allowed")
        return self._blob(asked, asked.path.removeprefix("/data/"))

    def _blob(self, asked: Asked, digest: str) -> Answer:
        content = self._blobs.get(digest)
        if content is None:
            return error_answer(404, "BLOB_UNKNOWN", "not here")
        if self.faults.hold_blobs is not None:
            self._hold(self.faults.hold_blobs)
        answer = self._ranged(asked, content)
        if self.faults.wrong_bytes:
            answer.body = answer.body[:-1] + bytes([answer.body[-1] ^ 1])
        answer.headers["Content-Type"] = "application/octet-stream"
        return self._shortened(self._encoded(answer)) if asked.method == "GET" else answer

    def _hold(self, event: threading.Event) -> None:
        with self._lock:
            self._downloads += 1
            self.downloads_at_once = max(self.downloads_at_once, self._downloads)
        event.wait(60)
        with self._lock:
            self._downloads -= 1

    def _ranged(self, asked: Asked, content: bytes) -> Answer:
        wanted = re.fullmatch(r"bytes=(\d+)-(\d*)", asked.headers.get("range", ""))
        if wanted is None or self.faults.ignore_range:
            return Answer(200, content)
        first = int(wanted[1])
        if first >= len(content) or self.faults.refuse_range:
            return Answer(self.faults.range_status, b"", {"Content-Range": f"bytes */{len(content)}"})
        last = min(int(wanted[2] or len(content)), len(content) - 1)
        if self.faults.most_of_range:
            last = min(last, first + self.faults.most_of_range - 1)
        content_range = self.faults.content_range or f"bytes {first}-{last}/{len(content)}"
        return Answer(206, content[first : last + 1], {"Content-Range": content_range})

    def _encoded(self, answer: Answer) -> Answer:
        if self.faults.gzip_bodies:
            answer.body = gzip.compress(answer.body)
            answer.headers["Content-Encoding"] = "gzip"
        if self.faults.encoding_label:
            answer.headers["Content-Encoding"] = self.faults.encoding_label
        return answer

    def _shortened(self, answer: Answer) -> Answer:
        faults = self.faults
        answer.trickle = faults.trickle_blobs
        answer.chunked = faults.chunked
        with self._lock:
            if faults.cut_blobs:
                answer.cut = faults.cut_blobs.pop(0)
            elif faults.stall_blobs and faults.stall_blobs[0] < len(answer.body):
                answer.cut, answer.stall = faults.stall_blobs.pop(0), True
            elif faults.short_blobs:
                answer.body = answer.body[: faults.short_blobs.pop(0)]
        return answer

    def _tag_list(self, asked: Asked, name: str) -> Answer:
        tags = self._tags.get(name)
        if tags is None:
            return error_answer(404, "NAME_UNKNOWN", "not here")
        last = asked.query.get("last", [""])[0]
        start = tags.index(last) + 1 if last in tags else 0
        size = self.faults.page_size or len(tags)
        page = tags[start : start + size]
        answer = Answer(200, json.dumps({"name": name, "tags": page}).encode())
        if start + size < len(tags):
            link = f"{self.faults.link_host}/v2/{name}/tags/list?n={size}&last={page[-1]}"
            answer.headers["Link"] = f'<{link}>; rel="next"'
        return answer

    # Authentication

    def _refusal(self, asked: Asked) -> Answer | None:
        if self.faults.auth == "none":
            return None
        given = asked.headers.get("authorization", "")
        if self.faults.auth == "basic":
            return None if self._is_login(given) else self._unauthorized(asked)
        scopes = self.tokens.get(given.removeprefix("Bearer "))
        if scopes is None:
            return self._unauthorized(asked)
        if self.faults.needed_scope and self.faults.needed_scope not in scopes:
            return self._unauthorized(
                asked, f',scope="{self.faults.needed_scope}",error="insufficient_scope"'
            )
        return None

    def _unauthorized(self, asked: Asked, more: str = "") -> Answer:
        answer = error_answer(401, "UNAUTHORIZED", f"authentication required, got {asked.headers}")
        if self.faults.silent_challenge and asked.path != "/v2/":
            return answer
        realm = self.faults.realm or f"http://{self.host}/token"
        challenge = self.faults.challenge or (
            'Basic realm="here"' if self.faults.auth == "basic" else 'Bearer realm="{realm}",service="s,1"'
        )
        answer.headers["WWW-Authenticate"] = challenge.replace("{realm}", realm) + more
        return answer

    def _is_login(self, given: str) -> bool:
        if self.faults.is_secret is None:
            return given == basic(USER, PASSWORD)
        _, _, password = base64.b64decode(given.removeprefix("Basic ")).decode().partition(":")
        return self.faults.is_secret(password)

    def _token(self, asked: Asked) -> Answer:
        faults = self.faults
        if faults.token_answer is not None:
            return faults.token_answer
        if asked.method == "POST":
            [secret] = asked.form.get("refresh_token", [""])
            allowed = self.faults.is_secret(secret) if self.faults.is_secret else secret == IDENTITY_TOKEN
            scopes = asked.form.get("scope", [""])[0].split()
        else:
            given = asked.headers.get("authorization")
            allowed = self._is_login(given) if given else faults.anonymous
            scopes = asked.query.get("scope", [])
        if not allowed:
            return echo_answer(401, asked)
        with self._lock:
            token = f"{TOKEN_PREFIX}{len(self.tokens)}-{time.monotonic_ns()}"
            self.tokens[token] = set(scopes)
        body: dict[str, Any] = {faults.token_key: token}
        if faults.token_life is not None:
            body["expires_in"] = faults.token_life
        return Answer(200, json.dumps(body).encode())


def error_answer(status: int, code: str, message: str, **headers: str) -> Answer:
    """Make an answer with an error body."""
    body = json.dumps({"errors": [{"code": code, "message": message}]}).encode()
    return Answer(status, body, {name.replace("_", "-"): value for name, value in headers.items()})


def echo_answer(status: int, asked: Asked) -> Answer:
    """Make an answer that shows everything that was sent, also decoded."""
    given = asked.headers.get("authorization", "")
    seen = f"{given} {given.partition(' ')[2]} {asked.form} {asked.query}"
    if given.startswith("Basic "):
        seen += base64.b64decode(given.partition(" ")[2]).decode()
    answer = error_answer(status, "UNKNOWN", seen)
    answer.headers["Warning"] = f'299 - "{seen!a}"'
    if status == 204:
        answer.body = b""
    return answer


def basic(user: str, password: str) -> str:
    """Make the value of an Authorization header."""
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


def schema1(name: str) -> tuple[bytes, str]:
    """Make a manifest of Docker's first schema, and its media type."""
    document = {"schemaVersion": 1, "name": name, "tag": "1", "fsLayers": [], "history": []}
    return json.dumps(document).encode(), types.DOCKER_SCHEMA1_SIGNED
