"""Checks of what stands between us and registries: logins, and policies. Secrets are not shown."""

import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

import msgspec

from layerfs.doctor.observation import Observation, failure, ok, warning
from layerfs.errors import InvalidSettings
from layerfs.foreign import strict_json
from layerfs.host.files import read_believed
from layerfs.host.places import xdg
from layerfs.registry import RegistrySettings
from layerfs.registry.credentials import AuthFile, helper_program
from layerfs.registry.keychain import places, read_authfile

_MAX_POLICY: Final = 1 << 20
_ACCEPTING: Final = "insecureAcceptAnything"


def logins(settings: RegistrySettings) -> Iterator[Observation]:
    """Read the credential files that would be read; ask no helper."""
    check = "credentials"
    seen = False
    for path, legacy in places(settings):
        try:
            file = read_authfile(path, legacy)
        except InvalidSettings as exc:
            seen = True
            yield failure(check, str(exc))
            continue
        if file is None:
            continue
        seen = True
        missing = [program for program in _programs(file) if not shutil.which(program)]
        for program in missing:
            yield failure(check, f"{path}: names {program}, which is not installed")
        if not missing:
            names = ", ".join(sorted(file.registries())) or "no registry"
            yield ok(check, f"{path}: {names}")
    if not seen:
        yield ok(check, "none: registries are asked anonymously (layerfs login HOST)")


def _programs(file: AuthFile) -> list[str]:
    """Return the programs that keep logins, as a file names them."""
    names = dict.fromkeys((*file.helpers.values(), *([file.store] if file.store else [])))
    return [helper_program(name) for name in names]


def policy(environ: Mapping[str, str]) -> Iterator[Observation]:
    """Look for a policy of podman and skopeo that demands more than layerfs checks: signatures."""
    config = xdg(environ, "config")
    below = [] if config is None else [config / "containers"]
    for path in (directory / "policy.json" for directory in (*below, Path("/etc/containers"))):
        try:
            demands = _demands(strict_json(read_believed(path, _MAX_POLICY), _Policy))
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OSError as exc:
            yield warning("policy", f"{path}: {exc.strerror}")
            return
        except msgspec.DecodeError as exc:
            yield warning("policy", f"{path}: {exc}")
            return
        if demands:
            yield warning(
                "policy",
                f"{path} demands {', '.join(sorted(demands))}; layerfs checks digests, no signatures",
                "skopeo copy what needs a signature into a layout, and layerfs mount that",
            )
        else:
            yield ok("policy", f"{path} accepts every image whose digests are right")
        return
    yield ok("policy", "none; every image is accepted whose digests are right")


class _Requirement(msgspec.Struct, frozen=True):
    type: str


class _Policy(msgspec.Struct, frozen=True):
    """containers-policy.json(5), as far as it says whether something is demanded."""

    default: list[_Requirement]
    transports: dict[str, dict[str, list[_Requirement]]] = {}


def _demands(found: _Policy) -> set[str]:
    """Return the types of all demands of a policy that an image may fail to meet."""
    scopes = [found.default, *(one for scopes in found.transports.values() for one in scopes.values())]
    return {one.type for requirements in scopes for one in requirements} - {_ACCEPTING}
