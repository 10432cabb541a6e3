"""A worker that gives up its rights before it begins: it runs as an ordinary user.

It starts with them, because the interpreter of a test run may be out of an ordinary user's reach.
"""

import importlib
import os

from layerfs.extract import worker

USER = 65534

if __name__ == "__main__":
    for late in ("gzip", "none", "zstd", "bzip2", "xz"):
        # while the interpreter's own files can be read
        importlib.import_module(f"layerfs.compression.{late}")
    os.setgroups([])
    os.setgid(USER)
    os.setuid(USER)
    worker.main()
