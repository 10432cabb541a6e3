"""``layerfs serve``: the store for other nodes, as a registry that can only be read."""

import json
import os
import signal
import sys

from layerfs.cli import interrupts, logs, options
from layerfs.cli.app import app
from layerfs.cli.opening import open_store
from layerfs.host import readiness
from layerfs.host.supervisor import here
from layerfs.settings import Address, Settings


@app.verb(epilog="Example: layerfs serve --listen 127.0.0.1:5000 --repository 'docker.io/library/*' &")
@options.configured(*options.DISTRIBUTING)
def serve(settings: Settings, as_json: options.Json = False) -> None:
    """Serve the store to other nodes as a read-only registry.

    What is here can be pulled by podman, skopeo, containerd and layerfs, or read by them as from a mirror:
    tags as they are pinned here, manifests, configs and layers by their digests. The registry is said by ns=,
    as containerd does, or as the first part of the name (HOST:PORT/docker.io/library/alpine); without either
    a name means the one repository of that path that is here.

    Whoever reaches the address may read: there are no logins. It stays in the foreground; SIGTERM gives what
    is being sent 30 seconds. Sockets of systemd (ListenStream=, Accept=no) are used in place of --listen.

    With --json a line of JSON says where it listens once it does.
    """
    from layerfs.serving import serve

    settings.serve.require_sound(settings)
    logs.log_to_stderr(settings.log_level, as_json=settings.log_json)
    if not readiness.has_terminal():
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
    storage, started_by = open_store(settings), here()

    def ready(places: list[Address]) -> None:
        _announce(settings, places, as_json=as_json)
        started_by.ready()

    try:
        interrupts.run(lambda: serve(settings, storage, ready))
    finally:
        started_by.stopping()


def _announce(settings: Settings, places: list[Address], *, as_json: bool) -> None:
    """Say where the store is served."""
    scheme = "http" if settings.serve.tls_cert is None else "https"
    if as_json:
        ready = {
            "pid": os.getpid(),
            "store": str(settings.store),
            "addresses": [str(place) for place in places],
            "tls": scheme == "https",
        }
        sys.stdout.write(json.dumps(ready) + "\n")
    else:
        shown = (f"{scheme}://{place}" if place.path is None else str(place) for place in places)
        sys.stdout.write(f"serving {settings.store} at {', '.join(shown)}\n")
    sys.stdout.flush()
