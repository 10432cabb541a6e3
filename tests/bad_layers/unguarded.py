"""A worker whose writer has no guards: paths are joined as text, and calls follow links.

It is what the table of attacks is tried on, to prove that the table proves something. Never run it on an
archive that leads anywhere but to a canary.
"""

import os
from typing import Any

from layerfs.extract import directories, placing, worker, writer
from layerfs.extract.directories import Directory
from layerfs.host import confine
from layerfs.layer.paths import join


class UnguardedDirectories(directories.Directories):
    """Opens whatever a joined path leads to."""

    target = b""

    def get(self, path: bytes) -> Directory:
        if not path:
            return self.root
        whole = os.path.join(self.target, path)
        os.makedirs(whole, exist_ok=True)
        return self._opened(path)

    def find(self, path: bytes) -> Directory | None:
        if not path:
            return self.root
        return self._opened(path) if os.path.isdir(os.path.join(self.target, path)) else None

    def make(self, parent: Directory, leaf: bytes, mode: int) -> tuple[Directory, bool]:
        path = join(parent.path, leaf)
        is_new = not os.path.isdir(os.path.join(self.target, path))
        os.makedirs(os.path.join(self.target, path), mode, exist_ok=True)
        return self._opened(path), is_new

    def _opened(self, path: bytes) -> Directory:
        whole = os.path.join(self.target, path)
        directory = Directory(os.open(whole, os.O_RDONLY | os.O_DIRECTORY), path, os.stat(whole).st_mtime_ns)
        self._keep(directory)
        return directory


def following(call: Any) -> Any:
    """Return *call* as it is without being told to follow no link."""

    def follow(*arguments: Any, **options: Any) -> Any:
        if "follow_symlinks" in options:
            options["follow_symlinks"] = True
        return call(*arguments, **options)

    return follow


def _open_root(target: str) -> Directory:
    UnguardedDirectories.target = os.fsencode(target)
    return directories.open_root(target)


def _no_clean(name: bytes, max_depth: int) -> bytes:
    return name.rstrip(b"/")


def main() -> None:
    """Take the guards off, then serve."""
    for module, name, replacement in (
        (placing, "clean", _no_clean),
        (placing, "_CREATE", os.O_WRONLY | os.O_CREAT | os.O_TRUNC),
        (writer, "Directories", UnguardedDirectories),
        (writer, "open_root", _open_root),
        (
            confine,
            "write_only_below",
            lambda *_directories: False,
        ),  # with it, the kernel refuses many of them
    ):
        assert hasattr(module, name)
        setattr(module, name, replacement)
    for name in ("chmod", "chown", "utime", "setxattr"):
        setattr(os, name, following(getattr(os, name)))
    worker.main()


if __name__ == "__main__":
    main()
