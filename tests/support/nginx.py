"""nginx as a reverse proxy before a registry: a real one, in a directory of its own."""

import contextlib
import shutil
import signal
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from tests.support.clients import wait_until
from tests.support.registry import free_port

SERVER: Final = "nginx"
_CONFIG: Final = """\
user root;
worker_processes 1;
daemon off;
pid {directory}/pid;
error_log {directory}/error.log;
events {{}}
http {{
    access_log {directory}/access.log;
    client_body_temp_path {directory}/body;
    proxy_temp_path {directory}/proxy;
    fastcgi_temp_path {directory}/fastcgi;
    uwsgi_temp_path {directory}/uwsgi;
    scgi_temp_path {directory}/scgi;
    proxy_cache_path {directory}/cache keys_zone=blobs:1m;
    server {{
        listen 127.0.0.1:{port};
        location /v2/ {{
            proxy_pass http://{upstream};
            {more}
        }}
    }}
}}
"""
CACHING: Final = "proxy_cache blobs; proxy_cache_valid 200 10m; proxy_cache_lock on;"
NO_RANGES: Final = 'proxy_set_header Range ""; proxy_hide_header Accept-Ranges; max_ranges 0;'


def available() -> bool:
    """Say whether the server program is installed."""
    return shutil.which(SERVER) is not None


@contextlib.contextmanager
def nginx(directory: Path, upstream: str, more: str) -> Iterator[str]:
    """Run it before *upstream* for a block, with *more* said of its location; yield ``host:port``."""
    directory.mkdir()
    port = free_port()
    config = directory / "nginx.conf"
    config.write_text(_CONFIG.format(directory=directory, port=port, upstream=upstream, more=more))
    command = [SERVER, "-p", str(directory), "-e", str(directory / "error.log"), "-c", str(config)]
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL)
    try:
        wait_until(lambda: process.poll() is not None or _answers(port))
        assert process.poll() is None, (directory / "error.log").read_text()
        yield f"127.0.0.1:{port}"
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(10)
        finally:
            process.kill()


def _answers(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
        return True
    return False
