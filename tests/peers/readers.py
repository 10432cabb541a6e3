"""One archive, read by layerfs and by the tools of the field, each into a directory of its own."""

import os
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from layerfs.errors import LayerfsError
from tests.extract.extracting import Extract
from tests.peers.differences import Peer
from tests.support import canary, images
from tests.support.canary import Snapshot


@dataclass(frozen=True, slots=True)
class Read:
    """What a reader made of an archive."""

    tree: Snapshot
    error: str = ""
    """Why it says that it failed; the tree is then what it made all the same."""


@dataclass(frozen=True, slots=True)
class Ours(Read):
    """The same of layerfs."""

    implied: frozenset[bytes] = frozenset()
    """Directories that the archive does not list: their times mean nothing."""


def read_by_layerfs(extract: Extract, content: bytes) -> Ours:
    """Extract an archive as the daemon does, in a warm worker."""
    try:
        tree = extract(archive=content, whiteout_devices=False)
    except LayerfsError as error:
        return Ours({}, f"{type(error).__name__}: {error}")
    return Ours(canary.snapshot(tree.path), implied=frozenset(map(os.fsencode, tree.listed("implied"))))


def _tar(base: Path, content: bytes) -> Read:
    # Not --recursive-unlink, which empties a directory that is listed twice.
    options = ["--numeric-owner", "--xattrs", "--xattrs-include=*", "--delay-directory-restore"]
    return _piped(base / "tar", ["tar", "-xpf", "-", *options], content)


def _bsdtar(base: Path, content: bytes) -> Read:
    return _piped(base / "bsdtar", ["bsdtar", "-xpf", "-", "--numeric-owner"], content)


def _piped(directory: Path, command: list[str], content: bytes) -> Read:
    directory.mkdir()
    environment = os.environ | {"LC_ALL": "C.UTF-8"}
    done = subprocess.run(
        command, cwd=directory, input=content, capture_output=True, umask=0o022, env=environment
    )
    return Read(canary.snapshot(directory), _said(done))


def _umoci(base: Path, content: bytes) -> Read:
    layer = images.layer(archive=content, compression="none")
    layout = images.write_layout(base / "layout", images.image(layer))
    rootfs = base / "umoci"
    command = ["umoci", "raw", "unpack", "--image", f"{layout}:latest", str(rootfs)]
    done = subprocess.run(command, capture_output=True, umask=0o022)
    return Read({}, _said(done)) if done.returncode else Read(canary.snapshot(rootfs))


def _said(done: subprocess.CompletedProcess[bytes]) -> str:
    if not done.returncode:
        return ""
    return done.stderr.decode("utf-8", "replace") or f"exit status {done.returncode}"


PEERS: Final[Mapping[Peer, Callable[[Path, bytes], Read]]] = {
    "GNU tar": _tar,
    "bsdtar": _bsdtar,
    "umoci": _umoci,
}


def differences(ours: Ours, peer: Peer, theirs: Read) -> list[str]:
    """Say how what *peer* made differs from what layerfs made; empty if it does not.

    A tool that complains, and makes the same tree, agrees. Left out is what no archive decides: the times of
    the root, which bsdtar does not set, and of directories that are not listed; umoci obeys markers, and
    changes the times of directories that it has set before.
    """
    if ours.error and theirs.error:
        return []
    if ours.error:
        return [f"layerfs refuses it ({ours.error}), {peer} does not"]
    obeys = peer == "umoci"

    def comparable(tree: Snapshot) -> Snapshot:
        return {
            path: replace(fact, mtime_ns=0)
            if not path or path in ours.implied or (obeys and fact.kind == "d")
            else fact
            for path, fact in tree.items()
            if not (obeys and b"/.wh." in b"/" + path)
        }

    lines = canary.differences(comparable(theirs.tree), comparable(ours.tree))
    return [f"{peer}: {theirs.error or 'no error'}", *lines] if lines else []
