"""The real command before real clients: podman, skopeo, another layerfs, a second node, and kills."""

import contextlib
import json
import os
import socket
import ssl
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from layerfs.store import ImageStorage
from tests.support import mounts
from tests.support.certificates import authority, issue
from tests.support.clients import wait_until
from tests.support.daemon import LAYERFS, clean_environment, running
from tests.support.faulty_registry import FaultyRegistry
from tests.support.images import Built, file, image, layer
from tests.support.nodes import fleet
from tests.support.registry import Registry, free_port
from tests.support.serving import fill, serving

IMAGE = image(layer(file("etc/motd", b"hello\n")), layer(file("large", os.urandom(1 << 20))))
NAME = "registry.test/team/app"
HUGE = layer(file("huge", os.urandom(24 << 20)), compression="none")


def filled(store: Path, built: Built = IMAGE) -> Path:
    with ImageStorage(store) as storage:
        fill(storage, NAME, "1", built)
    return store


def pull(store: Path, *words: str, before: tuple[str, ...] = (), code: int = 0) -> str:
    done = subprocess.run(
        [*before, *LAYERFS, "pull", "--store", str(store), *words],
        env=clean_environment(),
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout


def test_podman_skopeo_and_layerfs_pull_from_it(tmp_path: Path) -> None:
    with serving(filled(tmp_path / "store"), "--log-level", "debug") as server:
        name = f"{server.address}/team/app:1"
        copied = [
            "skopeo",
            "copy",
            "--src-tls-verify=false",
            f"docker://{name}",
            f"oci:{tmp_path / 'copy'}:1",
        ]
        subprocess.run(copied, check=True, capture_output=True)
        with tempfile.TemporaryDirectory(prefix="p") as run:  # podman refuses a longer path
            podman = ["podman", "--root", str(tmp_path / "root"), "--runroot", run, "--storage-driver", "vfs"]
            pulled = [*podman, "pull", "-q", "--tls-verify=false", name]
            found = subprocess.run(pulled, check=True, capture_output=True, text=True).stdout.strip()
        pull(tmp_path / "other", name)
        log = server.log()

    assert found == IMAGE.config_digest.hex
    copy = json.loads((tmp_path / "copy/index.json").read_text())
    assert copy["manifests"][0]["digest"] == str(IMAGE.digest)
    with ImageStorage(tmp_path / "other") as other:
        assert other.verify_blobs_exist([one.digest for one in IMAGE.layers])
    assert f"GET /v2/team/app/blobs/{IMAGE.layers[1].digest}: 200, {IMAGE.layers[1].size} bytes" in log


@pytest.mark.needs_root
def test_a_second_node_takes_from_the_first_and_the_registry_is_asked_once(
    tmp_path: Path, own_registry: Registry
) -> None:
    tag = own_registry.push("team/app", "1", IMAGE)
    with fleet(1, "lfsm") as machines:
        pull(tmp_path / "first", str(tag))
        mark = own_registry.mark()
        with serving(tmp_path / "first", listen=f"{machines.host}:0") as server:
            [node] = machines.nodes
            words = ("--insecure-registry", server.address, f"{server.address}/team/app:1")
            pull(tmp_path / "second", *words, before=node.inside)

    assert own_registry.requests(mark) == []
    assert sorted(own_registry.blob_requests()) == sorted(IMAGE.blobs())
    with ImageStorage(tmp_path / "second") as second:
        assert second.verify_blobs_exist([one.digest for one in IMAGE.layers])


@pytest.mark.needs_root
def test_a_second_node_has_the_first_for_a_mirror_and_the_registry_sends_each_layer_once(
    tmp_path: Path,
) -> None:
    with fleet(1, "lfsn") as machines, FaultyRegistry(address=machines.host) as registry:
        registry.push("team/app", "1", IMAGE)
        name, insecure = f"{registry.host}/team/app:1", ("--insecure-registry", registry.host)
        pull(tmp_path / "first", *insecure, name)
        with serving(tmp_path / "first", listen=f"{machines.host}:0") as server:
            hosts = tmp_path / "certs.d" / registry.host
            hosts.mkdir(parents=True)
            (hosts / "hosts.toml").write_text(f'[host."http://{server.address}"]\ncapabilities = ["pull"]\n')
            (tmp_path / "config.toml").write_text(f'hosts_dir = "{tmp_path}/certs.d"\n')
            inside = (*machines.nodes[0].inside, "env", f"LAYERFS_CONFIG={tmp_path}/config.toml")
            pull(tmp_path / "second", *insecure, name, before=inside)
        asked = [one.line for one in registry.asked if one.method == "GET"]

    blobs = sorted(f"GET /v2/team/app/blobs/{digest} 200" for digest in IMAGE.blobs())
    assert sorted(one for one in asked if "/blobs/" in one) == blobs
    assert len(asked) == len(blobs) + 1  # the first's manifest; the second asked what the tag means, by HEAD
    with ImageStorage(tmp_path / "second") as second:
        assert second.verify_blobs_exist([one.digest for one in IMAGE.layers])


def test_with_fetch_many_askers_cost_one_download(tmp_path: Path, own_registry: Registry) -> None:
    own_registry.push("team/app", "1", IMAGE)
    large = IMAGE.layers[1]
    host = own_registry.host
    with (
        serving(tmp_path / "store", "--fetch", "--repository", f"{host}/team/*") as server,
        httpx.Client(base_url=f"http://{server.address}/v2", trust_env=False, timeout=60) as client,
        ThreadPoolExecutor(6) as threads,
    ):

        def ask(target: str) -> httpx.Response:
            return client.get(f"/team/app/{target}", params={"ns": host})

        manifests = list(threads.map(ask, ["manifests/1"] * 6))
        blobs = list(threads.map(ask, [f"blobs/{large.digest}"] * 6))
        assert client.get("/other/app/manifests/1", params={"ns": host}).status_code == 404
        assert ask(f"blobs/{IMAGE.config_digest}").content == IMAGE.config

    assert {answer.content for answer in manifests} == {IMAGE.manifest}
    assert {answer.content for answer in blobs} == {large.blob}
    assert own_registry.blob_requests().count(large.digest) == 1
    assert not any("other" in request.path for request in own_registry.requests())


class Gate:
    """Forwards connections to a port, and lets *most* bytes come back until it is opened."""

    def __init__(self, port: int, most: int) -> None:
        self._port = port
        self._left = most
        self._opened = threading.Event()
        self.full = threading.Event()
        """Set once so many bytes came back."""
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self._accepting = threading.Thread(target=self._accept, daemon=True)
        self._accepting.start()

    def open(self) -> None:
        """Let everything pass."""
        self._opened.set()

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)  # wakes who accepts
        self._accepting.join()
        self._listener.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                try:
                    server = socket.create_connection(("127.0.0.1", self._port))
                except OSError:
                    client.close()
                    continue
                threading.Thread(target=self._pump, args=(client, server, False), daemon=True).start()
                threading.Thread(target=self._pump, args=(server, client, True), daemon=True).start()

    def _pump(self, source: socket.socket, target: socket.socket, limited: bool) -> None:
        with contextlib.suppress(OSError):
            while piece := source.recv(1 << 16):
                if limited and not self._opened.is_set():
                    self._left -= len(piece)
                    if self._left < 0:
                        self.full.set()
                        self._opened.wait()
                target.sendall(piece)
        for one in (source, target):
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()


@contextlib.contextmanager
def gate(port: int, most: int) -> Iterator[Gate]:
    made = Gate(port, most)
    try:
        yield made
    finally:
        made.open()
        made.close()


def test_a_reader_goes_on_where_a_killed_server_stopped(tmp_path: Path) -> None:
    store, port = filled(tmp_path / "store", image(HUGE)), free_port()
    listen = f"127.0.0.1:{port}"
    with gate(port, 8 << 20) as way, ThreadPoolExecutor(1) as thread:
        with serving(store, listen=listen) as first:
            pulled = thread.submit(pull, tmp_path / "other", f"{way.address}/team/app:1")
            assert way.full.wait(60)
            first.process.kill()
            first.process.wait()
        with serving(store, "--log-level", "debug", listen=listen) as second:
            way.open()
            pulled.result(120)
            log = second.log()

    with ImageStorage(tmp_path / "other") as other:
        assert other.has_layer(HUGE.digest)
    assert f"blobs/{HUGE.digest}: 206, " in log
    assert f"blobs/{HUGE.digest}: 200, " not in log


def test_a_killed_server_leaves_leases_that_hold_nothing(tmp_path: Path) -> None:
    store = filled(tmp_path / "store", image(HUGE))
    with serving(store) as server:
        host, _, port = server.address.rpartition(":")
        with socket.create_connection((host, int(port))) as reader:
            reader.sendall(f"GET /v2/team/app/blobs/{HUGE.digest} HTTP/1.1\r\nHost: a\r\n\r\n".encode())
            reader.recv(1)
            server.process.kill()
            server.process.wait()
    with ImageStorage(store) as storage:
        assert len(list(storage.leases.all())) == 1
        assert storage.leases.holding() == []


def test_tls_is_spoken_with_the_given_certificate(tmp_path: Path) -> None:
    by = authority(tmp_path)
    shown = issue(tmp_path, by, "127.0.0.1")
    files = ("--tls-cert", str(shown.certificate), "--tls-key", str(shown.key))
    trusting = ssl.create_default_context(cafile=by.certificate)
    large = IMAGE.layers[1]
    with serving(filled(tmp_path / "store"), *files) as server:
        with httpx.Client(verify=trusting, trust_env=False) as client:
            url = f"https://{server.address}/v2/team/app/blobs/{large.digest}"
            assert client.get(url).content == large.blob
            assert client.get(url, headers={"Range": "bytes=10-19"}).content == large.blob[10:20]
        with pytest.raises(httpx.HTTPError), httpx.Client(trust_env=False) as plain:
            plain.get(f"http://{server.address}/v2/")


def test_a_socket_of_this_machine_is_for_its_user_and_goes_at_the_end(tmp_path: Path) -> None:
    with tempfile.TemporaryDirectory(prefix="s") as short:  # a socket's name has 107 bytes at most
        path = Path(short, "serve.sock")
        with socket.socket(socket.AF_UNIX) as abandoned:
            abandoned.bind(str(path))
        with serving(filled(tmp_path / "store"), listen=f"unix:{path}") as server:
            assert server.address == str(path)
            assert path.stat().st_mode & 0o777 == 0o600
            transport = httpx.HTTPTransport(uds=str(path))
            with httpx.Client(transport=transport) as client:
                answer = client.get("http://node/v2/team/app/manifests/1")
                assert answer.content == IMAGE.manifest
        assert not path.exists()


_AS_SYSTEMD = """\
import os, sys
os.dup2(int(sys.argv[1]), 3)
os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS="1")
os.execv(sys.argv[2], sys.argv[2:])
"""
"""Descriptor 3, and the pid of the program that this becomes (sd_listen_fds(3))."""


def test_systemd_hands_over_sockets_and_is_told(tmp_path: Path) -> None:
    with (
        tempfile.TemporaryDirectory(prefix="s") as short,
        socket.create_server(("127.0.0.1", 0)) as listener,
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify,
    ):
        notify.bind(f"{short}/notify")
        notify.settimeout(60)
        command = [*LAYERFS, "serve", "--store", str(filled(tmp_path / "store")), "--listen", "127.0.0.1:1"]
        process = subprocess.Popen(
            [sys.executable, "-c", _AS_SYSTEMD, str(listener.fileno()), *command],
            env=clean_environment() | {"NOTIFY_SOCKET": f"{short}/notify"},
            pass_fds=[listener.fileno()],
            stdout=subprocess.DEVNULL,
        )
        try:
            assert notify.recv(100) == b"READY=1"
            answer = httpx.get(f"http://127.0.0.1:{listener.getsockname()[1]}/v2/", trust_env=False)
            assert answer.status_code == 200
            process.terminate()
            assert process.wait(60) == 0
            assert notify.recv(100) == b"STOPPING=1"
        finally:
            process.kill()
            process.wait()


@pytest.mark.needs_fuse
def test_a_mount_serves_its_store_where_the_configuration_says_so(tmp_path: Path, mountpoint: Path) -> None:
    store = filled(tmp_path / "store")
    with tempfile.TemporaryDirectory(prefix="s") as short:
        path = Path(short, "serve.sock")
        configuration = tmp_path / "layerfs.toml"
        configuration.write_text(f'[serve]\nlisten = "unix:{path}"\nrepositories = ["registry.test/*"]\n')
        chosen = {"LAYERFS_CONFIG": str(configuration)}
        with running(store, mountpoint, "--offline", environment=chosen) as daemon:
            wait_until(path.exists)
            with httpx.Client(transport=httpx.HTTPTransport(uds=str(path), retries=3)) as client:
                answer = client.get("http://node/v2/team/app/manifests/1?ns=registry.test")
                assert answer.content == IMAGE.manifest
                assert client.get("http://node/v2/team/app/manifests/1?ns=other.test").status_code == 404
            daemon.kill()
            wait_until(lambda: not path.exists())  # the other process ends with its daemon


@pytest.mark.needs_fuse
def test_a_mount_in_the_background_that_serves_holds_nothing_of_who_started_it(
    tmp_path: Path, mountpoint: Path
) -> None:
    configuration = tmp_path / "layerfs.toml"
    environment = clean_environment() | {"LAYERFS_CONFIG": str(configuration)}
    with tempfile.TemporaryDirectory(prefix="s") as short:
        path = Path(short, "serve.sock")
        configuration.write_text(f'[serve]\nlisten = "unix:{path}"\n[log]\nfile = "{tmp_path}/layerfs.log"\n')
        command = [
            *LAYERFS,
            "mount",
            "--offline",
            "--store",
            str(filled(tmp_path / "store")),
            str(mountpoint),
        ]
        try:  # to the end of its output, which whoever inherited that would hold open
            subprocess.run(command, env=environment, check=True, capture_output=True, timeout=60)
            wait_until(path.exists)
            subprocess.run([*LAYERFS, "umount", str(mountpoint)], env=environment, check=True)
            wait_until(lambda: not path.exists())
        finally:
            mounts.clear(mountpoint)
    assert f"at unix:{path}" in (tmp_path / "layerfs.log").read_text()
