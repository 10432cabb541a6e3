"""What the user decided: flags, `LAYERFS_` variables, configuration files, defaults. Parsed once, frozen.

Imports only errors, oci and layer; the command line makes one `Settings`, `layerfs.app` reads it.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from layerfs.errors import InvalidSettings
from layerfs.host.places import xdg
from layerfs.layer.record import Budgets
from layerfs.oci import Platform

SYSTEM_STORE: Final = Path("/var/lib/layerfs")


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Everything a daemon or a command needs to know."""

    store: Path
    platform: Platform = field(default_factory=Platform.of_this_machine)
    insecure_registries: frozenset[str] = frozenset()
    """Hosts that are spoken to over plain HTTP, beside the loopback ones."""
    authfile: Path | None = None
    offline: bool = False
    """Contact no registry; serve what the store has."""
    fetch_timeout: float = 900.0
    """Seconds that one waiting system call waits at most; the download goes on."""
    tag_ttl: float | None = None
    """Seconds after which a pinned tag is resolved anew; None for never."""
    allow_other: bool = False
    registries: frozenset[str] | None = None
    """Those that may be contacted. None: any by a private mount, and by one that others may read only those
    that have a login or are configured."""
    budgets: Budgets = field(default_factory=Budgets)
    mount_options: tuple[str, ...] = ()
    """Words for the kernel, from ``-o``."""
    log_level: str = "info"
    log_json: bool = False
    log_file: Path | None = None
    """Where a daemon in the background logs, if not at the default place."""


def default_store(environ: Mapping[str, str], uid: int, *, namespace: bool = False) -> Path:
    """Say where the store is unless ``--store`` says otherwise.

    ``$LAYERFS_STORE``, else /var/lib/layerfs for root, else below ``$XDG_DATA_HOME``. In a user *namespace*
    root is its maker, who has another store outside: the two cannot share one. Raises InvalidSettings.
    """
    chosen = environ.get("LAYERFS_STORE")
    if chosen:
        return absolute(Path(chosen), "LAYERFS_STORE")
    if uid == 0 and not namespace:
        return SYSTEM_STORE
    name = "layerfs-namespace" if uid == 0 else "layerfs"
    base = xdg(environ, "data")
    if base is None:
        raise InvalidSettings("no place for the store: HOME is not set (give --store DIR)")
    return base / name


def absolute(path: Path, what: str) -> Path:
    """Return *path* made absolute, links as given. Raises InvalidSettings for an empty one."""
    if path == Path():
        raise InvalidSettings(f"{what}: empty path")
    return Path.cwd() / path
