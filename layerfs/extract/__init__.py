"""One blob into one tree: streams, writer, worker process. No trio, no httpx, no credentials."""
