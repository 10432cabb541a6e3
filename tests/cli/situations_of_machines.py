"""Situations in which this machine lacks something: room, streams, a device, a directory that is free."""

import shutil
from collections.abc import Mapping, Sequence
from signal import SIGHUP, SIGINT, SIGTERM
from threading import Event
from typing import Final

from layerfs.store import ImageStorage
from tests.cli.situations import Place, Situation
from tests.store.test_full_disk import fill_up
from tests.support.images import file, image, layer

SMALL_DISK: Final = ("size=1m", "nr_inodes=100")
"""How OTHER is mounted for these."""

_LARGE: Final = image(layer(file("large", bytes(2 << 20)), compression="none"))
_MANY: Final = image(layer(*(file(str(number)) for number in range(200)), compression="none"))


def _empty(place: Place) -> None:
    for path in place.other_disk.iterdir():
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    place.faulty.push("a/large", "1", _LARGE)
    place.faulty.push("a/many", "1", _MANY)


def _full(place: Place) -> None:
    _empty(place)
    ImageStorage(place.other_disk / "store").close()
    fill_up(place.other_disk)


def _pulled(place: Place) -> None:
    """Have an image whose export does not fit, nor what is written to it."""
    _full(place)
    place.layerfs("pull", "-q", f"{place.faulty.host}/a/large:1")


def _held(place: Place) -> None:
    place.faulty.faults.hold_blobs = Event()
    shutil.rmtree(place.layerfs.store, ignore_errors=True)


def _local(place: Place) -> None:
    place.layerfs("pull", "-q", f"{place.faulty.host}/a/b:1")


def _mountpoint(place: Place) -> None:
    (place.layerfs.home / "m").mkdir(exist_ok=True)


_MOUNT: Final = "mount --log-file HOME/log HOME/m"
_WITHOUT_FUSE: Final = (
    'unshare -m sh -c \'mount -t tmpfs none /dev; mknod /dev/null c 1 3; exec "$@"\' sh "$@"'
)
_NOBODY_READS: Final = '"$@" | true; exit ${PIPESTATUS[0]}'
_TWICE: Final = '"$@" && "$@"; code=$?; layerfs umount HOME/m; exit $code'
_AND_BACK: Final = '"$@"; code=$?; layerfs umount HOME/m; exit $code'
_BUSY: Final = """layerfs mount --log-file HOME/log HOME/m; cd HOME/m; "$@"; code=$?
cd /; layerfs umount HOME/m; exit $code"""

OF_MACHINES: Final[Mapping[str, Sequence[Situation]]] = {
    "disks": [
        Situation("E101 blobs that do not fit", "pull --store OTHER/s HOST/a/large:1", 1, _empty),
        Situation("E101 a layer that does not fit", "pull --store OTHER/s HOST/a/many:1", 1, _empty),
        Situation("E102 no room at all", "pull --store OTHER/store HOST/a/b:1", 1, _full),
        Situation("E103 no room for a store", "pull --store OTHER/s HOST/a/b:1", 1, _full),
        Situation("no room for an export", "export HOST/a/large:1 -o OTHER/x.tar", 1, _pulled),
        Situation("stdout full", "images", 1, _local, shell='"$@" >/dev/full'),
        Situation("stdout full, of an export", "export HOST/a/b:1", 1, _local, shell='"$@" >/dev/full'),
    ],
    "signals and streams": [
        Situation("C7 Ctrl-C", "pull -q HOST/a/b:1", 128 + SIGINT, _held, signal=SIGINT),
        Situation("S3 SIGTERM", "pull -q HOST/a/b:1", 128 + SIGTERM, _held, signal=SIGTERM),
        Situation("S3 SIGHUP", "pull -q HOST/a/b:1", 128 + SIGHUP, _held, signal=SIGHUP),
        Situation(
            "C8 the reader ends", "export HOST/a/b:1", 141, _local, shell='"$@" | true; exit ${PIPESTATUS[0]}'
        ),
        Situation("stdin closed", "login HOST --username u --password-stdin", 2, shell='"$@" <&-'),
        Situation("stdin is no terminal", "login HOST --username u", 2, shell='"$@" </dev/null'),
        Situation("stdout closed", "export HOST/a/b:1", 0, _local, shell='"$@" >&-'),
        Situation("stderr closed", "pull HOST/a/b:nope", 3, shell='"$@" 2>&-'),
    ],
    "mounts": [
        Situation("E108 no /dev/fuse", _MOUNT, 1, _mountpoint, shell=_WITHOUT_FUSE),
        Situation("E26 mounted already", _MOUNT, 1, _mountpoint, shell=_TWICE),
        Situation("A5 nothing to contact", f"{_MOUNT} --allow-other", 0, _mountpoint, shell=_AND_BACK),
        Situation("A15 in use", "umount HOME/m", 1, _mountpoint, shell=_BUSY),
    ],
}
