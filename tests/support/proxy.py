"""An HTTP proxy on loopback that leads any host name to a port of the test's choice.

So a test can give a server on loopback a public name, with TLS and all. It runs in threads of its own.
"""

import base64
import socket
import threading
from contextlib import suppress
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit

_CHUNK = 1 << 16


class Proxy:
    """A context manager; ``asked`` holds the targets, host:port, in order."""

    def __init__(self, targets: dict[str, int], login: str = "") -> None:
        self.asked: list[str] = []
        self._targets = targets
        self._login = f"Basic {base64.b64encode(login.encode()).decode()}" if login else ""
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.host = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self.url = f"http://{login}@{self.host}" if login else f"http://{self.host}"
        self._open: set[socket.socket] = set()
        self._thread = threading.Thread(target=self._accept, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for connection in list(self._open):
            _shut(connection)
        self._thread.join(10)

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with client, suppress(OSError):  # clients that hang up are part of the tests
            self._open.add(client)
            head = b""
            while b"\r\n\r\n" not in head:
                chunk = client.recv(_CHUNK)
                if not chunk:
                    return
                head += chunk
            method, target, _ = head.split(b"\r\n")[0].decode().split(" ")
            if self._login and self._login.encode() not in head:
                client.sendall(b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n")
                return
            name = target if method == "CONNECT" else urlsplit(target).netloc
            self.asked.append(name)
            self._lead(client, head, method, name)
            self._open.discard(client)

    def _lead(self, client: socket.socket, head: bytes, method: str, name: str) -> None:
        port = self._targets.get(name)
        if port is None:
            client.sendall(b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n")
            return
        with socket.create_connection(("127.0.0.1", port)) as server:
            self._open.add(server)
            if method == "CONNECT":
                client.sendall(b"HTTP/1.1 200 Connected\r\n\r\n")
            else:  # one request a connection is enough for a test
                server.sendall(head.replace(f"http://{name}".encode(), b"", 1))
            back = threading.Thread(target=_pump, args=(server, client), daemon=True)
            back.start()
            _pump(client, server)
            back.join(10)
            self._open.discard(server)


def _pump(source: socket.socket, target: socket.socket) -> None:
    try:
        while chunk := source.recv(_CHUNK):
            target.sendall(chunk)
    except OSError:
        pass
    finally:
        _shut(target)


def _shut(connection: socket.socket) -> None:
    try:
        connection.shutdown(socket.SHUT_RDWR)
    except OSError:
        return
