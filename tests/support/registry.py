"""Runs Debian's docker-registry on a free loopback port, and reads its access log.

`Registry` is a context manager over one server process with a directory of its own. Its log is
the proof of what a client asked for: `blob_requests()` and `requests()` give it as values. The server writes
a line after the answer, so both wait until it has nothing more to do.
"""

import contextlib
import json
import os
import random
import re
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

import httpx

from layerfs.oci import Digest, Repository, Tag
from tests.support.images import Built, flip_byte

SERVER = "docker-registry"
_START_SECONDS = 60
_SETTLE_SECONDS = 10
# The combined log format: host - - [time] "METHOD path HTTP/1.1" status size "referer" "agent"
_ACCESS = re.compile(r'\] "(?P<method>[A-Z]+) (?P<path>\S+) HTTP/[\d.]+" (?P<status>\d{3}) (?P<size>\d+|-)')
_BLOB = re.compile(r"/v2/(?P<repository>.+)/blobs/(?P<digest>sha\d+:[0-9a-f]+)")

_CONFIG = """\
version: 0.1
log: {{level: warn, accesslog: {{disabled: false}}}}
storage:
  filesystem: {{rootdirectory: {storage}, maxthreads: 100}}
  delete: {{enabled: true}}
  maintenance: {{uploadpurging: {{enabled: false}}}}
http: {{addr: "127.0.0.1:{port}", secret: layerfs-tests}}
"""
_PROXY = 'proxy: {{remoteurl: "http://{}"}}\n'


@dataclass(frozen=True, slots=True)
class Request:
    """One line of the access log; written when the response is complete, soon after its last byte."""

    method: str
    path: str
    status: int
    size: int

    @property
    def blob(self) -> Digest | None:
        """The blob that was asked for, None if it was something else."""
        found = _BLOB.match(self.path)
        return Digest.parse(found["digest"]) if found else None


def available() -> bool:
    """Say whether the server program is installed."""
    return shutil.which(SERVER) is not None


class Registry:
    """A real registry over plain HTTP. Enter it to start the server; leaving stops it."""

    def __init__(self, directory: Path, upstream: str = "") -> None:
        """Keep everything in *directory*; with *upstream* (``host:port``) be a proxy with a cache there."""
        self.directory = directory
        self.upstream = upstream
        self.storage = directory / "storage"
        self.log = directory / "registry.log"
        self.port = free_port()
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def host(self) -> str:
        """The name that stands in image references: ``127.0.0.1:port``."""
        return f"127.0.0.1:{self.port}"

    @property
    def url(self) -> str:
        """The address of its API, without a slash at the end."""
        return f"http://{self.host}/v2"

    @property
    def pid(self) -> int:
        """Of the server process."""
        assert self._process is not None
        return self._process.pid

    def repository(self, path: str) -> Repository:
        """Name one of its repositories."""
        return Repository.of(self.host, path)

    # Running

    def start(self) -> None:
        """Start the server, or start it again; return when it answers."""
        assert self._process is None, "the registry is running"
        self.storage.mkdir(parents=True, exist_ok=True)
        config = self.directory / "config.yml"
        text = _CONFIG.format(storage=self.storage, port=self.port)
        config.write_text(f"{text}{_PROXY.format(self.upstream) if self.upstream else ''}", encoding="utf-8")
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [SERVER, "serve", str(config)], stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        deadline = time.monotonic() + _START_SECONDS
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.stop()
                raise RuntimeError(f"the registry does not start: {self.log.read_text()[-2000:]}")
            time.sleep(0.02)

    def stop(self) -> None:
        """Stop the server at once; its storage and log stay."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()  # also ends a stopped process
            process.wait()

    def pause(self) -> None:
        """Freeze the server: it accepts connections but answers nothing."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Undo `pause`."""
        self._signal(signal.SIGCONT)

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """Freeze the server for a block."""
        self.pause()
        try:
            yield
        finally:
            self.resume()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    # Content

    def push(self, path: str, tag: str, built: Built) -> Tag:
        """Upload *built* by plain HTTP and tag it; return its name by tag."""
        repository = self.repository(path)
        with self._client() as client:
            for digest, content in built.blobs().items():
                self._push_blob(client, path, digest, content)
            for document in built.manifests():
                self._put_manifest(client, path, str(document.digest), document)
            self._put_manifest(client, path, tag, built)
        return repository.with_tag(tag)

    def blob_file(self, digest: Digest) -> Path:
        """Return where the server keeps a blob or manifest."""
        return self.storage / f"docker/registry/v2/blobs/sha256/{digest.hex[:2]}/{digest.hex}/data"

    def corrupt(self, digest: Digest, at: int = -9) -> None:
        """Flip one bit of a stored blob: the server then sends wrong bytes of the right size."""
        path = self.blob_file(digest)
        path.write_bytes(flip_byte(path.read_bytes(), at))

    # Log

    def requests(self, since: int = 0) -> list[Request]:
        """Return the requests that were answered after the first *since* ones, uploads included."""
        self._settle()
        found = []
        for line in self.log.read_text(encoding="utf-8", errors="replace").splitlines():
            match = _ACCESS.search(line)
            if match:
                size = int(match["size"]) if match["size"] != "-" else 0
                found.append(Request(match["method"], match["path"], int(match["status"]), size))
        return found[since:]

    def blob_requests(self, since: int = 0) -> list[Digest]:
        """Return the digest of each GET of a blob, in order, repeats included."""
        return [
            digest for request in self.requests(since) if request.method == "GET" and (digest := request.blob)
        ]

    def mark(self) -> int:
        """Return the number of requests so far, for *since*."""
        return len(self.requests())

    def _settle(self) -> None:
        """Return once the server only waits: a client may see the end of an answer before its line is there.

        That is when all its threads sleep at two looks and none ran in between.
        """
        if self._process is None:
            return
        deadline = time.monotonic() + _SETTLE_SECONDS
        before = None
        while (now := _asleep(self._process.pid)) is None or now != before:
            if time.monotonic() > deadline:
                return
            before = now
            time.sleep(0.002)

    def _signal(self, number: int) -> None:
        assert self._process is not None, "the registry is not running"
        self._process.send_signal(number)

    def _answers(self) -> bool:
        # A connection is enough; a request would stand in the log.
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), timeout=1):
            return True
        return False

    def _client(self) -> httpx.Client:
        return httpx.Client(trust_env=False, timeout=60)

    def _push_blob(self, client: httpx.Client, path: str, digest: Digest, content: bytes) -> None:
        if client.head(f"{self.url}/{path}/blobs/{digest}").status_code == httpx.codes.OK:
            return
        started = client.post(f"{self.url}/{path}/blobs/uploads/")
        started.raise_for_status()
        location = httpx.URL(f"http://{self.host}").join(started.headers["location"])
        sent = client.put(
            location.copy_merge_params({"digest": str(digest)}),
            content=content,
            headers={"Content-Type": "application/octet-stream"},
        )
        sent.raise_for_status()

    def _put_manifest(self, client: httpx.Client, path: str, name: str, built: Built) -> None:
        answer = client.put(
            f"{self.url}/{path}/manifests/{name}",
            content=built.manifest,
            headers={"Content-Type": built.media_type},
        )
        if answer.is_error:
            raise RuntimeError(f"the registry refuses {path}:{name}: {json.dumps(answer.json())}")


def free_port() -> int:
    """Return a loopback port that nobody listens on now, and that no outgoing connection gets by chance."""
    first_outgoing = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    usable = range(10_000, first_outgoing)
    for port in [*random.sample(usable, min(100, len(usable))), 0]:
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return int(probe.getsockname()[1])
    raise RuntimeError("no port is free")


def _asleep(pid: int) -> list[str] | None:
    """Say how often each thread of a process has run so far; None if one runs now."""
    found = []
    for thread in os.listdir(f"/proc/{pid}/task"):
        try:
            status = Path(f"/proc/{pid}/task/{thread}/status").read_text()
        except OSError:  # it has just ended
            return None
        facts = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
        if facts["State"][0] not in "ST":
            return None
        found.append(f"{thread} {facts['voluntary_ctxt_switches']} {facts['nonvoluntary_ctxt_switches']}")
    return found
