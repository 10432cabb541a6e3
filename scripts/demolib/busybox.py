"""A small real image: a busybox userland, a layer that deletes, a layer that replaces a directory."""

import subprocess
from pathlib import Path

from tests.support import images
from tests.support.images import BuiltImage, BuiltLayer, directory, file, opaque, symlink, whiteout

_BUSYBOX = Path("/bin/busybox")


def image() -> BuiltImage:
    """Build the three layers and pair them with a config."""
    return images.image(_userland(), _deletion(), _replacement(), runtime={"Cmd": ["/bin/sh"]})


def _userland() -> BuiltLayer:
    applets = subprocess.run([_BUSYBOX, "--list"], check=True, capture_output=True, text=True).stdout.split()
    return images.layer(
        *(directory(name) for name in ("bin", "dev", "etc", "proc", "srv", "srv/www", "sys")),
        directory("root", mode=0o700),
        directory("tmp", mode=0o1777),
        file("bin/busybox", _BUSYBOX.read_bytes(), mode=0o755),
        *(symlink(f"bin/{applet}", "busybox") for applet in applets if applet != "busybox"),
        file("etc/passwd", b"root:x:0:0:root:/root:/bin/sh\n"),
        file("etc/group", b"root:x:0:\n"),
        file("etc/motd", b"Welcome to the base layer.\n"),
        file("etc/old.conf", b"# nobody needs this any more\n"),
        file("srv/www/draft.html", b"<p>not yet\n"),
        file("srv/www/index.html", b"<p>old\n"),
        command="busybox userland",
    )


def _deletion() -> BuiltLayer:
    return images.layer(
        directory("etc"),
        whiteout("etc/old.conf"),
        file("etc/new.conf", b"# instead of the old one\n"),
        command="rm /etc/old.conf",
    )


def _replacement() -> BuiltLayer:
    return images.layer(
        directory("srv"),
        directory("srv/www"),
        opaque("srv/www"),
        file("srv/www/index.html", b"<p>new\n"),
        command="rm -r /srv/www && publish /srv/www",
    )
