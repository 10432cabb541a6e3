"""One blob into one tree: streams, writer, worker process. No trio, no httpx, no credentials."""

import layerfs.spared  # noqa: F401 - before a worker imports msgspec
