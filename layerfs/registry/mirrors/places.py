"""Finds and reads the files of podman and containerd that say who stands before a registry. Blocking.

registries.conf: ``$CONTAINERS_REGISTRIES_CONF``; else ~/.config/containers/registries.conf if it exists, else
/etc/containers/registries.conf. Then registries.conf.d beside both, the user's last; after the user's own
file only the user's. hosts.toml: ~/.config/containerd/certs.d (where rootless nerdctl looks), then
/etc/containerd/certs.d.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

from layerfs.errors import InvalidSettings
from layerfs.host.places import xdg
from layerfs.registry.mirrors import hosts_toml, registries_conf
from layerfs.registry.mirrors.values import Mirrors, Namespace, ShortNames
from layerfs.tomlfile import read

SYSTEM: Final = Path("/etc/containers")
VARIABLE: Final = "CONTAINERS_REGISTRIES_CONF"
"""Names one file that is read instead of registries.conf, as for podman."""
SYSTEM_HOSTS: Final = Path("/etc/containerd/certs.d")


def load(
    environ: Mapping[str, str], registries_file: Path | None = None, hosts_dir: Path | None = None
) -> Mirrors:
    """Read all files there are, or of each kind what is given instead. Raises InvalidSettings."""
    found = _registries_conf(environ, registries_file)
    if hosts_dir is not None and not hosts_dir.is_dir():
        raise InvalidSettings(f"{hosts_dir}: no such directory (expected one with HOST/hosts.toml)")
    directories = hosts_dirs(environ) if hosts_dir is None else [hosts_dir]
    namespaces = tuple(one for directory in directories for one in _namespaces(directory))
    return Mirrors(found.tables, namespaces, found.short_names)


def short_names(environ: Mapping[str, str], registries_file: Path | None = None) -> ShortNames:
    """Read what names without a registry mean. Raises InvalidSettings."""
    return _registries_conf(environ, registries_file).short_names


def _registries_conf(environ: Mapping[str, str], given: Path | None) -> Mirrors:
    files = []
    for path, required in _files(environ, given):
        document = read(path)
        if document is not None:
            files.append(registries_conf.parse(document))
        elif required:
            raise InvalidSettings(f"{path}: no such file (expected a registries.conf)")
    return registries_conf.merged(files)


def _files(environ: Mapping[str, str], given: Path | None) -> Iterator[tuple[Path, bool]]:
    """Yield the files to read, the weakest first, and whether each has to exist."""
    if given is not None:  # drop-ins belong to the file that is not read
        yield given, True
        return
    base = xdg(environ, "config")
    user = None if base is None else base / "containers"
    if named := environ.get(VARIABLE):
        yield Path(named), True
    elif user is not None and (user / "registries.conf").exists():
        yield user / "registries.conf", False
    else:
        yield SYSTEM / "registries.conf", False
    alone = user is not None and not named and (user / "registries.conf").exists()
    for directory in (SYSTEM, user):
        if directory is not None and not (alone and directory == SYSTEM):
            yield from ((path, False) for path in _dropins(directory / "registries.conf.d"))


def _dropins(directory: Path) -> list[Path]:
    return [directory / name for name in _names(directory) if name.endswith(".conf")]


def hosts_dirs(environ: Mapping[str, str]) -> list[Path]:
    """Return the directories with HOST/hosts.toml, the user's first; they need not exist."""
    base = xdg(environ, "config")
    own = [] if base is None else [base / "containerd/certs.d"]
    return [*own, SYSTEM_HOSTS]


def _namespaces(directory: Path) -> Iterator[Namespace]:
    for name in _names(directory):
        below = directory / name
        document = read(below / "hosts.toml")
        if document is not None and document.text.strip():
            yield hosts_toml.parse(document)
        elif names := _names(below):
            yield hosts_toml.of_certificates(below, names)


def _names(directory: Path) -> list[str]:
    try:
        return sorted(entry.name for entry in directory.iterdir())
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as exc:
        raise InvalidSettings(f"{directory}: cannot be listed: {exc.strerror}") from exc
