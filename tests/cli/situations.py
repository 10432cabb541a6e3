"""Situations in which something is wrong, each with the command that shows what people read then."""

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from signal import Signals
from typing import Final

from layerfs.store import ImageStorage
from tests.cli.conftest import CommandLine
from tests.support.faulty_registry import USER, Answer, FaultyRegistry
from tests.support.images import file, image, index, layer, write_layout
from tests.support.proxy import Proxy

IMAGE: Final = image(layer(file("a", b"x" * 1000), compression="none"))


@dataclass(frozen=True)
class Situation:
    """What is prepared and what is run in it; the words of the command may name what `Place` knows."""

    name: str
    command: str
    code: int
    prepare: Callable[["Place"], object] = lambda place: None
    stdin: str = ""
    environment: dict[str, str] = field(default_factory=dict)
    shell: str = ""
    """A line of bash that runs the command, which is ``"$@"`` in it."""
    signal: Signals | None = None
    """What ends the command once it has asked for a blob."""


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
    blob = IMAGE.layers[0].descriptor()
    answer = Answer(200, bytes(blob.size))
    place.faulty.faults.always = [(f"blobs/{blob.digest}", answer)]


def _index(place: Place) -> None:
    place.faulty.push("a/index", "1", index(IMAGE))


def _answering(part: str, status: int, code: str) -> Callable[[Place], object]:
    body = json.dumps({"errors": [{"code": code, "message": "so be it"}]}).encode()

    def prepare(place: Place) -> None:
        place.faulty.faults.always = [(part, Answer(status, body, {"Content-Type": "application/json"}))]

    return prepare


def _page(place: Place) -> None:
    page = Answer(200, b"<html>Please log in to the hotel</html>", {"Content-Type": "text/html"})
    place.faulty.faults.always = [("manifests/1", page)]


def _hung_up(place: Place) -> None:
    place.faulty.faults.always = [("manifests/1", Answer(200, b"x" * 100, cut=0))]


def _a_store(place: Place) -> None:
    ImageStorage(place.layerfs.store).close()


def _theirs(place: Place) -> None:
    ImageStorage(place.layerfs.home / "theirs").close()
    os.chown(place.layerfs.home / "theirs", 12345, 12345)


def _open_to_others(place: Place) -> None:
    ImageStorage(place.layerfs.home / "open").close()
    (place.layerfs.home / "open").chmod(0o777)


def _of_the_future(place: Place) -> None:
    ImageStorage(place.layerfs.home / "future").close()
    owner = place.layerfs.home / "future/owner.json"
    owner.write_text(json.dumps(json.loads(owner.read_text()) | {"version": 99}))


def _damaged(place: Place) -> None:
    place.layerfs("pull", "-q", f"{place.faulty.host}/a/b:1")
    (place.layerfs.store / "manifests" / f"{IMAGE.digest.name}.json").write_bytes(b"{}")


def _layout(place: Place) -> None:
    shutil.rmtree(place.layerfs.home / "layout", ignore_errors=True)
    write_layout(place.layerfs.home / "layout", IMAGE)


def _layout_without_blobs(place: Place) -> None:
    _layout(place)
    shutil.rmtree(place.layerfs.home / "layout/blobs")


def _no_token_server(place: Place) -> None:
    _bearer(place)
    place.faulty.faults.realm = f"http://{_closed()}/token"


def _no_helper(place: Place) -> None:
    _auth(place)
    helpers = {"credHelpers": {place.faulty.host: "nope"}}
    (place.layerfs.home / "run/containers").mkdir(exist_ok=True)
    (place.layerfs.home / "run/containers/auth.json").write_text(json.dumps(helpers))


def _trusting(place: Place) -> None:
    (place.layerfs.home / "certs").mkdir(exist_ok=True)
    shutil.copy(place.layerfs.home.parent / "authority.crt", place.layerfs.home / "certs/ca.crt")


def _no_certificate(place: Place) -> None:
    (place.layerfs.home / "certs/ca.crt").write_text("none")


def _redirecting(place: Place) -> None:
    place.faulty.faults.redirect = lambda path: (307, "http://169.254.169.254/latest/meta-data")


def _broken_login(place: Place) -> None:
    _auth(place)
    (place.layerfs.home / "auth.json").write_text("{nope")


_OFFLINE: Final = {"LAYERFS_OFFLINE": "1"}
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
        Situation("E14 no such platform, one image", "pull --platform linux/s390x HOST/a/b:1", 3),
        Situation("E16 not in the store", "rm nope:1", 3),
        Situation("N9 digits of nothing", "inspect --offline 188292495d2a", 5, _a_store),
        Situation("a tag that is none", "pull HOST/a/b:a+b", 2),
        Situation("E12 a port that is none", "pull 127.0.0.1:99999/a/b:1", 2),
    ],
    "registries": [
        Situation("E2 no such tag", "pull HOST/a/b:nope", 3),
        Situation("E3 no such repository", "tags HOST/no/such", 3),
        Situation("E10 nothing listens", "digest --retry 1 CLOSED/a/b:1", 5),
        Situation("E11 no such host", "digest no.such.invalid/a/b:1", 5),
        Situation("offline", "pull --offline HOST/a/b:9", 5),
        Situation("9 wrong bytes of a document", "pull HOST/a/b:1", 6, _wrong_bytes),
        Situation("9 wrong bytes of a layer", "pull HOST/a/b:1", 6, _wrong_layer),
        Situation("E5 docker://", "digest docker://HOST/a/b:nope", 3),
        Situation("403", "digest HOST/a/b:1", 4, _answering("manifests/1", 403, "DENIED")),
        Situation("429", "digest --retry 1 HOST/a/b:1", 5, _answering("manifests/1", 429, "TOOMANYREQUESTS")),
        Situation("500", "digest --retry 1 HOST/a/b:1", 1, _answering("manifests/1", 500, "UNKNOWN")),
        Situation("405", "digest HOST/a/b:1", 1, _answering("manifests/1", 405, "UNSUPPORTED")),
        Situation("a web page", "pull HOST/a/b:1", 1, _page),
        Situation(
            "a layer that is not there", "pull HOST/a/b:1", 3, _answering("blobs/", 404, "BLOB_UNKNOWN")
        ),
        Situation("it hangs up", "digest --retry 1 HOST/a/b:1", 5, _hung_up),
        Situation("a redirect into the network", "pull HOST/a/b:1", 4, _redirecting),
    ],
    "TLS": [
        Situation(
            "A11 an authority of their own",
            "digest registry.test/a/b:1",
            5,
            environment=_PROXY,
        ),
        Situation("E13 no TLS", "digest --retry 1 plain.test/a/b:1", 5, environment=_PROXY),
        Situation("another name", "digest --cert-dir HOME/certs other.test/a/b:1", 5, _trusting, "", _PROXY),
        Situation(
            "a certificate that is none",
            "digest --cert-dir HOME/certs other.test/a/b:1",
            2,
            _no_certificate,
            environment=_PROXY,
        ),
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
        Situation("not logged in, either", "login --get-login HOST", 3),
        Situation("no token server", "digest --retry 1 HOST/a/b:1", 5, _no_token_server),
        Situation("no credential helper", "digest HOST/a/b:1", 4, _no_helper),
        Situation("login to nobody", "login CLOSED --username u --password-stdin", 5, stdin="p"),
        Situation(
            "403 with a login",
            "login HOST --username u --password-stdin",
            4,
            _answering("/v2/", 403, "DENIED"),
            "p",
        ),
    ],
    "store and files": [
        Situation("E17 the store is a file", "pull --store HOME/file HOST/a/b:1", 1, _file),
        Situation("E57 no such directory", "export HOST/a/b:1 -o /nope/x.tar", 2),
        Situation("E20 no store", "images --store HOME/typo", 3),
        Situation("E20 no store to verify", "verify --store HOME/typo --all", 3),
        Situation("nothing to verify", "verify nope:1", 3, _a_store),
        Situation("no such lease", "lease rm nope", 3, _a_store),
        Situation("E123 another's store", "images --store HOME/theirs", 1, _theirs),
        Situation("a store that others may change", "images --store HOME/open", 0, _open_to_others),
        Situation("a store of the future", "images --store HOME/future", 1, _of_the_future),
        Situation("a damaged document", "inspect --offline HOST/a/b:1", 5, _damaged),
        Situation("E57 an output that is a directory", "export HOST/a/b:1 -o HOME/run", 2),
        Situation("import of nothing", "import oci:/nope", 3),
        Situation("E61 import of a layout that is none", "import oci:HOME/run", 1),
        Situation("E62 import of no such tag", "import oci:HOME/layout:nope", 3, _layout),
        Situation(
            "E64 import of a layout without its blobs",
            "import --store HOME/new oci:HOME/layout",
            3,
            _layout_without_blobs,
        ),
        Situation("import of another kind", "import zip:/nope", 2),
        Situation("import of what is no archive", "import docker-archive:HOME/file", 1, _file),
    ],
    "serve": [
        Situation("no address", "serve --listen nowhere", 2),
        Situation("somebody listens there", "serve --listen HOST", 1, _a_store),
        Situation("a certificate without its key", "serve --tls-cert HOME/x.crt", 2),
        Situation("no such certificate", "serve --tls-cert HOME/none --tls-key HOME/none", 2),
        Situation("what is no certificate", "serve --tls-cert HOME/file --tls-key HOME/file", 2, _file),
        Situation("to fetch anything", "serve --fetch", 2),
        Situation("to fetch from anywhere", "serve --fetch --repository */app", 2),
        Situation("to fetch offline", "serve --fetch --repository ghcr.io/*", 2, environment=_OFFLINE),
    ],
    "push and save": [
        Situation("nothing listens", "push -q --retry 1 HOST/a/b:1 CLOSED/c:1", 5),
        Situation("offline", "push --offline HOST/a/b:1 CLOSED/c:1", 5),
        Situation("a registry that takes nothing", "push -q HOST/a/b:1 HOST/c:1", 3),
        Situation("the digest of another image", f"push HOST/a/b:1 HOST/c@sha256:{'0' * 64}", 2),
        Situation("a directory without a name", "save --format oci-dir HOST/a/b:1", 2),
        Situation("E57 no such directory", "save HOST/a/b:1 -o /nope/x.tar", 2),
        Situation("offline, and not here", "save --offline HOST/a/b:9 -o HOME/x", 5),
    ],
    "options": [
        Situation("E52 two that exclude each other", "inspect --raw --config HOST/a/b:1", 2),
        Situation("E32 no option of mount", "mount -o foo HOME/m", 2, _directories),
        Situation("no number", "mount -o tag_ttl=x HOME/m", 2, _directories),
        Situation("three places", "mount a b c", 2),
        Situation("no such certificates", "tags --cert-dir HOME/none HOST/a/b", 2),
        Situation("no duration", "pull --timeout soon HOST/a/b:1", 2),
        Situation("no such verb", "pul HOST/a/b:1", 2),
        Situation("no such option", "pull --nope HOST/a/b:1", 2),
        Situation("no argument", "pull", 2),
        Situation("an argument too many", "history HOST/a/b:1 HOST/a/b:1", 2),
        Situation("no value", "tree HOST/a/b:1 --layer", 2),
        Situation("no number, either", "tree HOST/a/b:1 --layer x", 2),
        Situation("a layer too many", "tree HOST/a/b:1 --layer 9", 2),
        Situation("C2 two forms", "pull -q --json HOST/a/b:1", 2),
        Situation("--filter", "images --filter a", 2),
        Situation("--rw and --upper", "overlay a HOME/m --rw --upper HOME/up --work HOME/m", 2, _directories),
        Situation("--umount and an image", "overlay --umount a HOME/m", 2, _directories),
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
