"""hosts.toml, as containerd documents it ("Registry Configuration - Introduction"): text to values.

containerd skips a file that it cannot read; here it is an error, since without it others would be asked.
"""

import re
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import msgspec

from layerfs.durations import seconds_of
from layerfs.errors import InvalidSettings, RegistryMisbehaved
from layerfs.registry.mirrors.values import HostEntry, HostLink, Namespace
from layerfs.registry.weborigin import WebOrigin, redact
from layerfs.tomlfile import Key, TomlFile

_CAPABILITIES: Final = frozenset({"pull", "resolve", "push", "referrers"})
_HEADER_NAME: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_OURS: Final = frozenset(
    {"host", "content-length", "transfer-encoding", "connection", "range", "accept-encoding"}
)
"""What a request is made of: another value would change what it means."""
_PROXIES: Final = frozenset({"http", "https", "socks5", "socks5h"})


class _Fields(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    capabilities: list[str] = []
    ca: str | list[str] = []
    client: str | list[str | list[str]] = []
    skip_verify: bool = False
    header: dict[str, str | list[str]] = {}
    override_path: bool = False
    dial_timeout: str = ""
    proxy: str = ""


class _File(_Fields, frozen=True, kw_only=True, forbid_unknown_fields=True):
    server: str = ""
    host: dict[str, Any] = {}


def parse(document: TomlFile) -> Namespace:
    """Return what one file says. Raises InvalidSettings with file and line."""
    file = document.converted(document.content, _File)
    hosts = []
    for url, content in file.host.items():  # in the order of the file
        at: Key = ("host", url)
        hosts.append(_entry(document, url, document.converted(content, _Fields, at), at))
    hosts.append(_entry(document, file.server, file, ()))
    return Namespace(document.path.parent.name, tuple(hosts), str(document.path))


def of_certificates(directory: Path, names: list[str]) -> Namespace:
    """Return what files after Docker's pattern say: *.crt are authorities, NAME.cert and NAME.key our own.

    Raises InvalidSettings for one without the other.
    """
    pairs = []
    for name in sorted(names):
        stem, dot, kind = name.rpartition(".")
        if dot and kind in ("cert", "key"):
            other = f"{stem}.{'key' if kind == 'cert' else 'cert'}"
            if other not in names:
                raise InvalidSettings(f"{directory / name}: {other} is missing beside it")
            if kind == "cert":
                pairs.append((directory / name, directory / other))
    link = HostLink(
        authorities=tuple(directory / name for name in sorted(names) if name.endswith(".crt")),
        client=tuple(pairs),
    )
    return Namespace(directory.name, (HostEntry(None, link=link, place=str(directory)),), str(directory))


def _entry(document: TomlFile, url: str, said: _Fields, at: Key) -> HostEntry:
    origin, root = _root(document, url, said.override_path, at or ("server",))
    capabilities = {one.lower() for one in said.capabilities}
    if unknown := capabilities - _CAPABILITIES:
        document.fail(
            (*at, "capabilities"),
            f"{sorted(unknown)[0][:80]!r} (expected some of {', '.join(sorted(_CAPABILITIES))})",
        )
    pulls = not capabilities or "pull" in capabilities
    return HostEntry(
        origin=origin,
        root=root,
        pulls=pulls,
        resolves=pulls and (not capabilities or "resolve" in capabilities),
        headers=tuple(_headers(document, said.header, (*at, "header"))),
        link=_link(document, said, at),
        place=document.place(at or ("server",)),
    )


def _root(document: TomlFile, url: str, overridden: bool, at: Key) -> tuple[WebOrigin | None, str]:
    """Return whom *url* names, None for the registry itself, and where its API is."""
    if not url:
        return None, "/v2"
    full = url if re.match(r"[a-z][a-z0-9+]*://", url, re.IGNORECASE) else f"https://{url}"
    try:
        origin, parts = WebOrigin.of(full), urlsplit(full)
    except RegistryMisbehaved as exc:
        document.fail(at, str(exc))
    if parts.query or parts.fragment or "@" in parts.netloc:
        document.fail(at, f"{redact(full)!r}: user, query or fragment (expected scheme://host[:port][/path])")
    path = re.sub(r"/{2,}", "/", parts.path).rstrip("/")
    if "/.." in path or "/./" in path:
        document.fail(at, f"{redact(full)!r}: a path with dots")
    return origin, path if overridden or path.endswith("/v2") else f"{path}/v2"


def _link(document: TomlFile, said: _Fields, at: Key) -> HostLink:
    base = document.path.parent
    return HostLink(
        authorities=tuple(base / path for path in ([said.ca] if isinstance(said.ca, str) else said.ca)),
        client=tuple(_pairs(document, said.client, (*at, "client"))),
        skip_verify=said.skip_verify,
        connect_timeout=_duration(document, said.dial_timeout, (*at, "dial_timeout")),
        proxy=_proxy(document, said.proxy, (*at, "proxy")),
    )


def _pairs(document: TomlFile, said: str | list[str | list[str]], at: Key) -> list[tuple[Path, Path | None]]:
    base, found = document.path.parent, list[tuple[Path, Path | None]]()
    for one in [said] if isinstance(said, str) else said:
        pair = [one, ""] if isinstance(one, str) else one
        if len(pair) != 2 or not pair[0]:
            document.fail(at, f"{len(pair)} files (expected a certificate and its key)")
        found.append((base / pair[0], base / pair[1] if pair[1] else None))
    return found


def _headers(document: TomlFile, said: dict[str, str | list[str]], at: Key) -> list[tuple[str, str]]:
    found = []
    for name, values in said.items():
        if not _HEADER_NAME.fullmatch(name) or name.lower() in _OURS:
            document.fail((*at, name), "no header that may be set (expected a name of its own)")
        for value in [values] if isinstance(values, str) else values:
            if not value.isprintable() or not value.isascii():
                document.fail((*at, name), "a value that no header can have (expected printable ASCII)")
            found.append((name, value))
    return found


def _duration(document: TomlFile, text: str, at: Key) -> float | None:
    seconds = seconds_of(text)
    if text and seconds is None:
        document.fail(at, f"{text[:100]!r} is no duration (expected 200ms, 1s or 1m30s)")
    return seconds


def _proxy(document: TomlFile, text: str, at: Key) -> str | None:
    if not text:
        return None
    try:
        parts = urlsplit(text)
        fit = parts.scheme in _PROXIES and bool(parts.hostname) and parts.path in ("", "/")
        fit = fit and not parts.query and not parts.fragment and (parts.port is None or parts.port > 0)
    except ValueError:
        fit = False
    if not fit:
        document.fail(at, "no URL of a proxy (expected http, https, socks5 or socks5h://host[:port])")
    return text.rstrip("/")
