"""A process that extracts what it is told to, in the worker that it is told to use.

Reads one `ExtractJob` in JSON from each line of standard input, answers with one line of JSON each. Run as
``python -m tests.bad_layers.driver WORKER_MODULE``.
"""

import json
import subprocess
import sys
from typing import Any

import msgspec

from layerfs.errors import LayerfsError
from layerfs.extract import client
from layerfs.extract.job import ExtractJob


def main() -> None:
    """Obey until standard input ends."""
    _replace_worker(sys.argv[1])
    extractor = client.Extractor()
    for line in sys.stdin.buffer:
        extractor.start(msgspec.json.decode(line, type=ExtractJob))
        answer: dict[str, Any] = {"error": "", "message": ""}
        try:
            extractor.result()
        except LayerfsError as exc:
            answer = {"error": type(exc).__name__, "message": str(exc)}
        if not extractor.is_alive:
            extractor.close()
            extractor = client.Extractor()
        print(json.dumps(answer), flush=True)  # noqa: T201 - the protocol
    extractor.close()


def _replace_worker(module: str) -> None:
    """Let extractors start *module* in place of the worker."""
    start = subprocess.Popen

    def popen(command: list[str], **options: Any) -> Any:
        return start([*command[:-1], module], **options)

    setattr(subprocess, "Popen", popen)  # noqa: B010 - mypy knows it as a class


if __name__ == "__main__":
    main()
