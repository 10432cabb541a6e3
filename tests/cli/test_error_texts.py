"""What people read when something is wrong: one row a situation, provoked for real, with the exact text.

``error_texts/`` has the texts, to be read as a whole; with LAYERFS_WRITE_EXPECTED=1 they are written
anew. What differs from run to run is a word in it: HOST, CLOSED, HOME, SECONDS.
"""

import os
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import pytest

from tests.cli.conftest import CommandLine
from tests.support.certificates import authority, issue
from tests.support.faulty_registry import USER, Answer, FaultyRegistry
from tests.support.images import file, image, index, layer
from tests.support.mounts import tmpfs
from tests.support.proxy import Proxy

EXPECTED: Final = Path(__file__).parent / "error_texts"
_IMAGE: Final = image(layer(file("a", b"x" * 1000)))
_FORBIDDEN: Final = re.compile(r"\[Errno|sub-exception|_ssl\.c|Traceback|WRONG_VERSION|Exception ignored")


@dataclass(frozen=True)
class Situation:
    """What is prepared and what is run in it; the words of the command may name what `Place` knows."""

    name: str
    command: str
    code: int
    prepare: Callable[["Place"], object] = lambda place: None
    stdin: str = ""
    environment: dict[str, str] = field(default_factory=dict)


@dataclass
class Place:
    """Where the situations happen."""

    layerfs: CommandLine
    faulty: FaultyRegistry
    proxy: Proxy
    other_disk: Path

    def words(self) -> dict[str, str]:
        """Return what a command may name, and what its texts are told of by."""
        return {
            "HOST": self.faulty.host,
            "PROXY": self.proxy.url,
            "OTHER": str(self.other_disk),
            "HOME": str(self.layerfs.home),
            "CLOSED": _closed(),
        }


def _closed() -> str:
    """Return an address where nothing listens: port 1 (tcpmux) is nobody's."""
    return "127.0.0.1:1"


def _auth(place: Place) -> None:
    place.faulty.faults.auth, place.faulty.faults.anonymous = "basic", False


def _bearer(place: Place) -> None:
    place.faulty.faults.auth, place.faulty.faults.anonymous = "bearer", False


def _config(text: str) -> Callable[[Place], object]:
    return lambda place: (place.layerfs.home / "c.toml").write_text(text)


def _file(place: Place) -> None:
    (place.layerfs.home / "file").write_text("x")


def _directories(place: Place) -> None:
    for name in ("up", "m", "full"):
        (place.layerfs.home / name).mkdir(exist_ok=True)
    (place.layerfs.home / "full/file").write_text("x")
    (place.other_disk / "wk").mkdir(exist_ok=True)


def _wrong_bytes(place: Place) -> None:
    place.faulty.faults.wrong_bytes = True


def _wrong_layer(place: Place) -> None:
    blob = _IMAGE.layers[0].descriptor()
    answer = Answer(200, bytes(blob.size))
    place.faulty.faults.always = [(f"blobs/{blob.digest}", answer)]


def _index(place: Place) -> None:
    place.faulty.push("a/index", "1", index(_IMAGE))


def _broken_login(place: Place) -> None:
    _auth(place)
    (place.layerfs.home / "auth.json").write_text("{nope")


_PROXY: Final = {"HTTPS_PROXY": "PROXY"}
_LOGIN: Final = f"login HOST --username {USER} --password-stdin"

SITUATIONS: Final = {
    "names": [
        Situation("E4 a URL", "pull https://HOST/a/b:1", 2),
        Situation("E6 capitals", "pull A/B:1", 2),
        Situation("E7 a short digest", "pull HOST/a/b@sha256:12", 2),
        Situation("E8 nothing", "pull ''", 2),
        Situation("E14 no such platform", "pull --platform linux/s390x HOST/a/index:1", 3, _index),
        Situation("E15 no platform", "pull --platform nonsense HOST/a/b:1", 2),
        Situation("E16 not in the store", "rm nope:1", 3),
    ],
    "registries": [
        Situation("E2 no such tag", "pull HOST/a/b:nope", 3),
        Situation("E3 no such repository", "tags HOST/no/such", 3),
        Situation("E10 nothing listens", "digest --retry 1 CLOSED/a/b:1", 5),
        Situation("E11 no such host", "digest no.such.invalid/a/b:1", 5),
        Situation("offline", "pull --offline HOST/a/b:9", 5),
        Situation("9 wrong bytes of a document", "pull HOST/a/b:1", 6, _wrong_bytes),
        Situation("9 wrong bytes of a layer", "pull HOST/a/b:1", 6, _wrong_layer),
    ],
    "TLS": [
        Situation(
            "A11 an authority of their own",
            "digest registry.test/a/b:1",
            5,
            environment=_PROXY,
        ),
        Situation("E13 no TLS", "digest --retry 1 plain.test/a/b:1", 5, environment=_PROXY),
    ],
    "auth": [
        Situation("no login", "pull HOST/a/b:1", 4, _auth),
        Situation("A12 wrong password, basic", _LOGIN, 4, _auth, "wrong"),
        Situation("A12 wrong password, token", _LOGIN, 4, _bearer, "wrong"),
        Situation("no password", _LOGIN, 2),
        Situation("wrong --creds", "pull --creds nobody:wrong-secret HOST/a/b:1", 4, _auth),
        Situation("--creds without a password", "pull --creds nobody HOST/a/b:1", 2, _auth),
        Situation("--creds without a name", "pull --creds :wrong-secret HOST/a/b:1", 2, _auth),
        Situation("A13 no such file of logins", "pull --authfile HOME/none HOST/a/b:1", 2),
        Situation("a broken file of logins", "pull --authfile HOME/auth.json HOST/a/b:1", 4, _broken_login),
        Situation("not logged in", "logout HOST", 3),
    ],
    "store and files": [
        Situation("E17 the store is a file", "pull --store HOME/file HOST/a/b:1", 1, _file),
        Situation("E57 no such directory", "export HOST/a/b:1 -o /nope/x.tar", 2),
        Situation("import of nothing", "import oci:/nope", 3),
        Situation("import of another kind", "import zip:/nope", 2),
        Situation("import of what is no archive", "import docker-archive:HOME/file", 1, _file),
    ],
    "options": [
        Situation("E52 two that exclude each other", "inspect --raw --config HOST/a/b:1", 2),
        Situation("E32 no option of mount", "mount -o foo HOME/m", 2, _directories),
        Situation("no number", "mount -o tag_ttl=x HOME/m", 2, _directories),
        Situation("three places", "mount a b c", 2),
        Situation("no such certificates", "tags --cert-dir HOME/none HOST/a/b", 2),
        Situation("no duration", "pull --timeout soon HOST/a/b:1", 2),
        Situation("E45 --upper alone", "overlay HOST/a/b:1 HOME/m --upper HOME/up", 2, _directories),
    ],
    "configuration": [
        Situation("no such file", "--config HOME/none images", 2),
        Situation("E70 unknown key", "--config HOME/c.toml images", 2, _config("[log]\nlevle = 'info'")),
        Situation("E71 another type", "--config HOME/c.toml images", 2, _config("store = 1")),
        Situation("E71 a list", "--config HOME/c.toml images", 2, _config("registries = 'a'")),
        Situation("E72 an open string", "--config HOME/c.toml images", 2, _config('store = "a\nb"')),
        Situation("E73 another word", "--config HOME/c.toml images", 2, _config("[log]\nlevel = 'loud'")),
        Situation(
            "a number too small", "--config HOME/c.toml images", 2, _config("[budgets]\nmax_depth = -1")
        ),
        Situation("a relative path", "--config HOME/c.toml images", 2, _config("store = 'x'")),
    ],
    "mountpoints": [
        Situation("E21 none", "mount HOME/none", 1),
        Situation("E22 a file", "mount HOME/file", 1, _file),
        Situation("E38 no directory for the log", "mount --log-file /proc/x/log HOME/m", 1, _directories),
        Situation("E38 in the foreground", "mount -f --log-file /proc/x/log HOME/m", 1, _directories),
        Situation("E23 not empty", "mount --log-file /proc/x/log HOME/full", 1, _directories),
        Situation("E24 nothing is mounted", "umount HOME/m", 1, _directories),
        Situation("several, and none is mounted", "umount HOME/m HOME/none /proc", 1, _directories),
        Situation("no layerfs mount", "status HOME/m", 1, _directories),
    ],
    "overlay": [
        Situation("E41 no directory", "overlay HOST/a/b:1 /nope", 1),
        Situation(
            "E46 two filesystems",
            "overlay HOST/a/b:1 HOME/m --upper HOME/up --work OTHER/wk",
            2,
            _directories,
        ),
        Situation("T9 another mount", "overlay --umount /proc", 1),
        Situation("nothing is mounted", "overlay --umount HOME/m", 1, _directories),
    ],
}


@pytest.mark.needs_root
@pytest.mark.parametrize("group", SITUATIONS)
def test_error_texts(layerfs: CommandLine, tmp_path: Path, group: str) -> None:
    context = issue(tmp_path, authority(tmp_path), "registry.test").server_context()
    with FaultyRegistry(context) as tls, FaultyRegistry() as plain, tmpfs(tmp_path / "disk") as disk:
        places = {"registry.test:443": tls.main.port, "plain.test:443": plain.main.port}
        with Proxy(places) as proxy:
            text = "\n".join(_told(one, layerfs, proxy, disk) for one in SITUATIONS[group])
    assert _FORBIDDEN.findall(text) == []
    expected = EXPECTED / f"{group.replace(' ', '-')}.txt"
    if os.environ.get("LAYERFS_WRITE_EXPECTED"):
        expected.write_text(text)
    assert text == expected.read_text()


def _told(one: Situation, layerfs: CommandLine, proxy: Proxy, disk: Path) -> str:
    """Return the situation and what it makes layerfs say, with names for what differs."""
    with FaultyRegistry() as faulty:
        faulty.push("a/b", "1", _IMAGE)
        return _said(one, Place(layerfs, faulty, proxy, disk))


def _said(one: Situation, place: Place) -> str:
    one.prepare(place)
    words = place.words()
    environment = {name: _filled(value, words) for name, value in one.environment.items()}
    command = [_filled(word, words) if word != "''" else "" for word in one.command.split()]
    done = place.layerfs(*command, code=one.code, stdin=one.stdin, environment=environment)
    text = done.stderr
    for name, value in words.items():
        text = text.replace(value, name)
    text = re.sub(r"(?<=after )\d+(?= s )", "SECONDS", text)
    return f"# {one.name}: {one.command} ({one.code})\n{text}"


def _filled(word: str, words: dict[str, str]) -> str:
    return re.sub("|".join(words), lambda name: words[name[0]], word)
