"""Writes logins into a credential file, as ``layerfs login`` and ``layerfs logout`` do. Blocking.

The format is containers-auth.json(5), so that podman, skopeo and buildah see them too; whatever else
stands in the file stays as it is.
"""

import json
import os
import tempfile
from base64 import b64encode
from pathlib import Path
from typing import Any

import msgspec

from layerfs.errors import InvalidSettings
from layerfs.host.files import read_believed
from layerfs.registry.credentials import AuthFile, helper_server
from layerfs.registry.keychain import MAX_FILE, places
from layerfs.registry.settings import RegistrySettings


def login_file(settings: RegistrySettings) -> Path:
    """Return the file that logins are written to: the first that is read, except systemd's."""
    environment = dict(settings.variables)
    environment.pop("CREDENTIALS_DIRECTORY", None)
    path, _ = next(places(msgspec.structs.replace(settings, environment=environment)))
    return path


def require_user_name(text: str) -> str:
    """Return *text*, a name that a login may have. Raises InvalidSettings."""
    if not text or ":" in text:
        raise InvalidSettings(f"not a user name: {text[:80]!r} (expected one without ':')")
    return text


def save_login(path: Path, registry: str, username: str, password: str) -> None:
    """Add or replace the login for *registry*. Raises InvalidSettings for a file that is none of ours."""
    require_user_name(username)
    document = _read(path)
    auth = b64encode(f"{username}:{password}".encode()).decode("ascii")
    document.setdefault("auths", {})[registry] = {"auth": auth}
    _write(path, document)


def remove_login(path: Path, registry: str) -> bool:
    """Remove the login for *registry*, also the one docker wrote; False if there was none."""
    document = _read(path)
    auths = document.get("auths") or {}
    found = [key for key in (registry, helper_server(registry)) if key in auths]
    for key in dict.fromkeys(found):
        del auths[key]
    if found:
        _write(path, document)
    return bool(found)


def remove_all_logins(path: Path) -> list[str]:
    """Remove all logins that the file itself holds; return their keys. What helpers keep stays."""
    document = _read(path)
    found = list(document.get("auths") or {})
    if found:
        document["auths"] = {}
        _write(path, document)
    return found


def _read(path: Path) -> dict[str, Any]:
    try:
        raw = read_believed(path, MAX_FILE)
    except FileNotFoundError:
        return {}
    except OSError as exc:
        raise InvalidSettings(f"{path}: cannot be read: {exc.strerror}") from exc
    AuthFile.parse(raw, str(path))  # refuses what the reader would
    document: dict[str, Any] = json.loads(raw or b"{}")
    return document


def _write(path: Path, document: dict[str, Any]) -> None:
    """Replace the file in one step; nobody else may ever read it."""
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        target = path.resolve()  # a symlink stays one
        descriptor, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
        try:
            with os.fdopen(descriptor, "w", encoding="utf-8") as file:
                json.dump(document, file, indent="\t")
            Path(name).replace(target)
        except BaseException:
            Path(name).unlink()
            raise
    except OSError as exc:
        raise InvalidSettings(f"{path}: cannot be written: {exc.strerror}") from exc
