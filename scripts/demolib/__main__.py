"""Tells the story: build, push, mount, read, overlay, mount again. The registry's log is the witness."""

import contextlib
import os
import signal
import stat
import subprocess
import sys
from pathlib import Path
from typing import NoReturn

from demolib import busybox
from demolib.stage import Failed, Stage
from tests.support import images, mounts
from tests.support.registry import Registry


class Story:
    """The parts of the demonstration, in their order; each leaves what the next one needs."""

    def __init__(self, stage: Stage, work: Path, registry: Registry) -> None:
        self.stage = stage
        self.work = work
        self.registry = registry
        self.mount = work / "mnt"
        self.built = busybox.image()
        self.image = self.mount / "images" / registry.host / "demo:latest"

    def tell(self) -> None:
        """Show everything. Raises Failed at the first claim that does not hold."""
        self.push()
        self.mount_empty_store()
        self.read_one_layer()
        self.show_whiteouts()
        self.run_a_container()
        self.ask_the_witness()
        self.mount_again()

    def push(self) -> None:
        self.stage.title("A three-layer image, in a registry on this machine")
        images.write_layout(self.work / "image", self.built)
        self.stage.let("work", str(self.work))
        self.stage.let("registry", self.registry.host)
        self.stage.run(
            "skopeo copy -q --dest-tls-verify=false oci:$work/image:latest docker://$registry/demo:latest"
        )

    def mount_empty_store(self) -> None:
        self.stage.title("Mount an empty store, and look at the image without pulling it")
        self.mount.mkdir()
        self.mark = self.registry.mark()
        self.stage.let("mnt", "$work/mnt")
        self.stage.run("layerfs mount --store $work/store $mnt")
        self.stage.run("mount | grep $mnt")
        self.stage.let("image", "$mnt/images/$registry/demo:latest")
        listing = self.stage.run("ls $image/")
        wanted = {"config.json", "history", "layers", "lowerdir", "lowerdirs", "manifest.json", "rootfs"}
        self.stage.check("ls shows the image", expected=[], found=sorted(wanted - set(listing.split())))
        self.stage.run("cat $image/history")
        lowerdir = self.stage.run("cat $image/lowerdir")
        self.stage.check("lowerdir is a mount option", expected="lowerdir=", found=lowerdir[:9])
        self.stage.check("no layer was asked for yet", expected=[], found=self._layers_fetched())

    def read_one_layer(self) -> None:
        self.stage.title("Read a file: that layer, and no other, is downloaded, verified and extracted")
        motd = self.stage.run("cat $image/layers/00/diff/etc/motd")
        self.stage.check("the file has its content", expected="Welcome to the base layer.\n", found=motd)
        self.stage.check("exactly layer 00 was fetched", expected=["00"], found=self._layers_fetched())

    def show_whiteouts(self) -> None:
        self.stage.title("A deleted file and a replaced directory, as archived and as overlayfs wants them")
        names = self.stage.run("ls -A $image/layers/01/diff/etc $image/layers/02/diff/srv/www")
        self.stage.check(
            "diff/ keeps the markers",
            expected=[".wh..wh..opq", ".wh.old.conf"],
            found=sorted(name for name in names.split() if name.startswith(".wh.")),
        )
        self.stage.run("ls -l $image/layers/01/lower/etc")
        whiteout = os.lstat(self.image / "layers/01/lower/etc/old.conf")
        self.stage.check(
            "lower/ shows the whiteout as character device 0:0",
            expected=(True, 0),
            found=(stat.S_ISCHR(whiteout.st_mode), whiteout.st_rdev),
        )
        self.stage.run("getfattr -n trusted.overlay.opaque --absolute-names $image/layers/02/lower/srv/www")
        opaque = os.getxattr(self.image / "layers/02/lower/srv/www", "trusted.overlay.opaque")
        self.stage.check("lower/ shows the opaque attribute", expected=b"y", found=opaque)

    def run_a_container(self) -> None:
        self.stage.title("Stack the layers with overlayfs, on native directories, and run busybox in them")
        self.stage.run("readlink $(cat $image/lowerdirs)")
        self._stack()
        listing = self.stage.run("ls $work/merged/etc $work/merged/srv/www")
        self.stage.check("the deleted file is gone", expected=False, found="old.conf" in listing.split())
        self.stage.check(
            "the replaced directory is new", expected=False, found="draft.html" in listing.split()
        )
        self.stage.check("no marker is left", expected=False, found=".wh." in self._all_names())
        self.stage.check(
            "every lower directory is native", expected=[], found=[str(path) for path in self._fuse_lowers()]
        )
        said = self.stage.run("chroot $work/merged /bin/sh -c 'busybox | head -n 1; cat /srv/www/index.html'")
        self.stage.check("chroot runs busybox", expected=True, found=said.startswith("BusyBox v"))
        self.stage.check("and it reads the top layer", expected="<p>new", found=said.splitlines()[-1])
        self.stage.run("echo mine >$work/merged/etc/old.conf && ls $work/upper/etc")
        self.stage.run("umount $work/merged")

    def ask_the_witness(self) -> None:
        self.stage.title("The registry's log")
        self.stage.run('grep -o \'"GET /v2/demo/blobs/[^"]*" [0-9]*\' $work/registry/registry.log')
        wanted = sorted(str(digest) for digest in self.built.blobs())
        fetched = sorted(str(digest) for digest in self.registry.blob_requests(self.mark))
        self.stage.check("one request for each blob in all", expected=wanted, found=fetched)

    def mount_again(self) -> None:
        self.stage.title("Mount the same store again: everything is there, the registry is not asked")
        self.stage.run("layerfs umount $mnt")
        mark = self.registry.mark()
        self.stage.run("layerfs mount --store $work/store $mnt")
        self.stage.run("cat $image/layers/*/diff/etc/*.conf")
        self._stack()
        self.stage.run("chroot $work/merged /bin/cat /etc/motd /srv/www/index.html")
        self.stage.run("umount $work/merged && layerfs umount $mnt")
        requests = [f"{request.method} {request.path}" for request in self.registry.requests(mark)]
        self.stage.check("no request in the second mount", expected=[], found=requests)
        self.stage.check("nothing is mounted any more", expected=None, found=mounts.mount_at(self.mount))

    def _stack(self) -> None:
        self.stage.run("rm -rf $work/upper $work/scratch && mkdir -p $work/merged $work/upper $work/scratch")
        self.stage.run(
            'mount -t overlay overlay -o "$(cat $image/lowerdir),upperdir=$work/upper,workdir=$work/scratch" '
            "$work/merged"
        )

    def _layers_fetched(self) -> list[str]:
        numbers = {layer.digest: f"{number:02}" for number, layer in enumerate(self.built.layers)}
        asked = self.registry.blob_requests(self.mark)
        # The config is a blob of its own, and the image cannot be listed without it.
        return [numbers.get(digest, str(digest)) for digest in asked if digest != self.built.config_digest]

    def _all_names(self) -> str:
        return "\n".join(name for _, _, names in os.walk(self.work / "merged") for name in names)

    def _fuse_lowers(self) -> list[Path]:
        lowers = [Path(line) for line in (self.image / "lowerdirs").read_text().splitlines()]
        inside = os.stat(self.mount).st_dev
        return [path for path in lowers if path.stat().st_dev == inside]


def main() -> int:
    """Tell the story in an empty directory, named by the only argument; clean up in any case."""
    work = Path(sys.argv[1])
    stage = Stage()
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _stop)
    with contextlib.ExitStack() as cleanup:
        cleanup.callback(mounts.clear, work)
        try:
            if _is_overlay(work):  # in a container: whiteouts and upper directories need another filesystem
                cleanup.enter_context(mounts.tmpfs(work))
            (work / "registry").mkdir()
            registry = cleanup.enter_context(Registry(work / "registry"))
            Story(stage, work, registry).tell()
        except Failed as problem:
            stage.complain(str(problem))
            return 1
        except KeyboardInterrupt:
            stage.complain("interrupted")
            return 130
    stage.title("All of it holds.")
    return 0


def _stop(number: int, frame: object) -> NoReturn:
    raise KeyboardInterrupt


def _is_overlay(path: Path) -> bool:
    return subprocess.check_output(["stat", "-f", "-c", "%T", path]).strip() == b"overlayfs"


if __name__ == "__main__":
    sys.exit(main())
