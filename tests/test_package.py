"""The Debian package in roots of two Debians: installed, upgraded, removed, purged, and run by their systemd.

What needs debootstrap and a mirror takes minutes. The package is built once a suite, by scripts/package; with
LAYERFS_PACKAGES=DIRECTORY those in there are taken instead.
"""

import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import clients

pytestmark = [
    pytest.mark.long,
    pytest.mark.needs_root,
    pytest.mark.needs_fuse,
    pytest.mark.timeout(3600),
]

_ROOT = Path(__file__).parents[1]
_OPERATIONS = _ROOT / "docs/operations.md"
_VERSIONS = {"bookworm": "12", "trixie": "13"}
_PATH = "/usr/sbin:/usr/bin:/sbin:/bin"
_NEEDED = ["systemd", "systemd-sysv", "dbus", "fuse3", "man-db", "logrotate", "curl"]


_SHARED = {
    "man/man1/layerfs.1": ("man", "layerfs"),
    "man/man5/layerfs.toml.5": ("man", "layerfs.toml"),
    "man/man8/mount.layerfs.8": ("man", "mount.layerfs"),
    "bash-completion/completions/layerfs": ("completion", "bash"),
    "zsh/site-functions/_layerfs": ("completion", "zsh"),
    "fish/vendor_completions.d/layerfs.fish": ("completion", "fish"),
}
"""What a wheel puts into PREFIX/share, and the words by which layerfs prints the same."""


class Guest:
    """A minimal Debian in a directory; commands run in it."""

    def __init__(self, suite: str, root: Path) -> None:
        self.suite = suite
        self.root = root
        self._leader = ""

    def run(self, script: str, *, check: bool = True) -> str:
        """Run a shell script, in the booted system if there is one; return what it prints."""
        environment = ["env", "-i", f"PATH={_PATH}", "DEBIAN_FRONTEND=noninteractive", "LANG=C.UTF-8"]
        where = ["nsenter", "-t", self._leader, "-m", "-u", "-i", "-n", "-p", "-r", "-w"]
        command = [
            *(where if self._leader else ["chroot", str(self.root)]),
            *environment,
            "sh",
            "-euc",
            script,
        ]
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 0 or not check, f"{script}\n{done.stdout}{done.stderr}"
        return done.stdout + done.stderr

    @contextlib.contextmanager
    def booted(self) -> Iterator[None]:
        """Have its systemd run it as a container; the block's end, however, is its end."""
        # A container of cgroup v2 whatever this machine has: systemd 257 boots on nothing else.
        script = 'umount -R /sys/fs/cgroup; mount -t cgroup2 cgroup2 /sys/fs/cgroup; exec "$@"'
        nspawn = [
            "systemd-nspawn", "--quiet", "--register=no", "--keep-unit", "--boot", f"--directory={self.root}",
            f"--machine=layerfs-{os.getpid()}", "--bind=/dev/fuse", "--bind=/dev/autofs", "--console=pipe",
        ]  # fmt: skip
        process = subprocess.Popen(
            ["unshare", "--mount", "--propagation", "private", "sh", "-c", script, "sh", *nspawn],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
        try:
            clients.wait_until(lambda: bool(self._booted(children)), timeout=120)
            yield
            self.run("systemctl poweroff", check=False)
            process.wait(60)
        finally:
            leader, self._leader = self._leader, ""
            if process.poll() is None:
                if leader:
                    os.kill(int(leader), signal.SIGKILL)
                process.kill()
                process.wait()

    def _booted(self, children: Path) -> bool:
        for leader in children.read_text().split():
            self._leader = leader
            with contextlib.suppress(OSError):
                if "running" in self.run("systemctl is-system-running || true", check=False):
                    return True
        self._leader = ""
        return False


@pytest.fixture(scope="module", params=list(_VERSIONS))
def package(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    """A suite and its package."""
    suite = request.param
    ready = os.environ.get("LAYERFS_PACKAGES")
    output = Path(ready) if ready else tmp_path_factory.mktemp("package")
    if not ready:
        subprocess.run([_ROOT / "scripts/package", "--output", output, suite], check=True)
    (found,) = output.glob(f"layerfs_*~deb{_VERSIONS[suite]}_*.deb")
    return suite, found


@pytest.fixture
def guest(package: tuple[str, Path], tmp_path: Path) -> Iterator[Guest]:
    """A root of the suite that has what the package depends on, and the package as /package.deb."""
    suite, deb = package
    base = subprocess.run(
        [_ROOT / "scripts/fresh", "--base", suite], check=True, capture_output=True, text=True
    ).stdout.strip()
    root = tmp_path / "root"
    root.mkdir()
    subprocess.run(["tar", "--numeric-owner", "--xattrs", "-xpf", base, "-C", root], check=True)
    for name in ("resolv.conf", "hosts"):
        shutil.copy(f"/etc/{name}", root / "etc")
    shutil.copy(deb, root / "package.deb")
    made = Guest(suite, root)
    subprocess.run(["mount", "--bind", "/dev", root / "dev"], check=True)
    try:
        made.run(f"apt-get update -qq && apt-get install -qq -y --no-install-recommends {' '.join(_NEEDED)}")
    finally:
        subprocess.run(["umount", "-l", root / "dev"], check=True)
    yield made
    subprocess.run(["rm", "-rf", "--one-file-system", root], check=True)


def _files(root: Path) -> set[str]:
    """Return what there is, without what dpkg, its triggers and logs keep anyway."""
    own = ("var/lib/dpkg/", "var/cache/", "var/log/", "var/lib/systemd/", "run/", "tmp/", "etc/ld.so.cache")
    found = {
        str(path.relative_to(root))
        for top in ("etc", "usr", "var", "run")
        for path in (root / top).rglob("*")
    }
    return {path for path in found if not path.startswith(own)}


def test_the_package_installs_upgrades_removes_and_purges_cleanly(guest: Guest) -> None:
    before = _files(guest.root)

    guest.run("dpkg -i /package.deb")
    assert guest.run("layerfs --version").startswith("layerfs ")
    guest.run("layerfs config check /etc/layerfs/config.toml; man -w layerfs layerfs.toml mount.layerfs")
    assert "/etc/layerfs/config.toml" in guest.run("dpkg-query -W -f '${Conffiles}' layerfs")
    for place in (
        "usr/sbin/mount.fuse.layerfs",
        "usr/sbin/mount.layerfs",
        "usr/share/bash-completion/completions/layerfs",
        "usr/share/zsh/vendor-completions/_layerfs",
        "usr/share/fish/vendor_completions.d/layerfs.fish",
        "etc/apparmor.d/layerfs",
        "usr/lib/systemd/user/layerfs.service",
    ):
        assert os.path.lexists(guest.root / place), place
    guest.run(
        "systemd-analyze verify layerfs.service layerfs@a.service layerfs-gc.timer layerfs-verify.timer"
    )

    (guest.root / "etc/layerfs/config.toml").write_text("offline = true\n")
    guest.run("dpkg -i /package.deb && layerfs --version")
    assert (guest.root / "etc/layerfs/config.toml").read_text() == "offline = true\n"

    guest.run("dpkg -r layerfs")
    assert not (guest.root / "usr/lib/layerfs").exists()
    assert (guest.root / "etc/layerfs/config.toml").exists()
    guest.run("dpkg -P layerfs")
    assert {path for path in _files(guest.root) - before if "layerfs" in path} == set()


def test_systemd_runs_it_from_boot_to_shutdown(guest: Guest) -> None:
    mount = "/run/layerfs/default"
    guest.run(
        "dpkg -i /package.deb && systemctl enable layerfs.service layerfs-gc.timer layerfs-verify.timer"
    )
    (guest.root / "etc/credstore").mkdir(mode=0o700, exist_ok=True)
    (guest.root / "etc/credstore/layerfs.auth.json").write_text('{"auths": {}}')
    (guest.root / "images").mkdir()
    with (guest.root / "etc/fstab").open("a") as fstab:
        fstab.write(
            "none /images fuse.layerfs ro,_netdev,nofail,x-systemd.automount,x-systemd.idle-timeout=2,"
            "config=/etc/layerfs/config.toml 0 0\n"
        )
    with guest.booted():
        # Boot: ready is what answers.
        guest.run("systemctl is-active layerfs.service layerfs-gc.timer layerfs-verify.timer")
        assert "Serving" in guest.run("systemctl show -P StatusText layerfs")
        guest.run(f"ls {mount}/images && findmnt -t fuse.layerfs {mount}")
        guest.run("test -s /run/credentials/layerfs.service/auth.json")

        # Reload: the mount stays, and so does the process.
        pid = guest.run("systemctl show -P MainPID layerfs")
        guest.run(
            "sed -i 's/^#offline = .*/offline = true/' /etc/layerfs/config.toml && systemctl reload layerfs"
        )
        clients.wait_until(lambda: "changed: offline" in guest.run("journalctl -u layerfs -o cat"))
        assert guest.run("systemctl show -P MainPID layerfs") == pid
        assert '"offline": true' in guest.run(f"cat {mount}/.layerfs/status.json")

        # fstab: an automount is mounted by whoever looks, and unmounted when nobody does.
        guest.run("ls /images/images && findmnt -t fuse.layerfs /images")
        # To look for it by its path would be a use of it.
        clients.wait_until(lambda: " /images " not in guest.run("grep fuse.layerfs /proc/self/mountinfo"))
        guest.run(
            "mkdir /mnt/two && mount -t layerfs layerfs /mnt/two && ls /mnt/two/images && umount /mnt/two"
        )
        assert "code 32" in guest.run("mount -t fuse.layerfs none /missing || echo code $?", check=False)

        # Crash: what is dead is unmounted, and another one serves.
        guest.run("kill -KILL $(systemctl show -P MainPID layerfs)")
        clients.wait_until(lambda: "images" in guest.run(f"ls {mount}", check=False))
        assert guest.run("systemctl show -P NRestarts layerfs") == "1\n"

        # Stop while busy.
        guest.run(f"exec 9<{mount}/.layerfs/status.json; systemctl stop layerfs")
        assert guest.run("systemctl show -P Result layerfs") == "success\n"
        assert "layerfs" not in guest.run(f"findmnt {mount}", check=False)

        guest.run("systemctl start layerfs layerfs-gc.service layerfs-verify.service")
        assert guest.run("systemctl --failed --plain --no-legend") == ""


def test_the_commands_of_operations_md_run_in_their_order(guest: Guest) -> None:
    """What is marked bash; the rest is run by tests/cli/test_examples.py."""
    blocks = re.findall(r"^```bash\n(.*?)^```", _OPERATIONS.read_text("utf-8"), re.MULTILINE | re.DOTALL)
    assert len(blocks) >= 8
    os.rename(guest.root / "package.deb", guest.root / "root/layerfs_0_all.deb")
    with guest.booted():
        for block in blocks:
            guest.run(f"cd /root\n{block}")
        assert guest.run("systemctl --failed --plain --no-legend") == ""
    left = [path for path in _files(guest.root) if "layerfs" in path and not path.startswith("usr/share/")]
    assert left == []


def test_sdist_and_wheel_are_built_and_installed(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=_ROOT,
        check=True,
        capture_output=True,
    ).stdout.split(b"\0")
    for name in map(os.fsdecode, filter(None, listed)):
        if (_ROOT / name).exists():
            (tree / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(_ROOT / name, tree / name)
    subprocess.run([sys.executable, "-m", "venv", tmp_path / "builder"], check=True)
    subprocess.run([tmp_path / "builder/bin/pip", "install", "-q", "build"], check=True)
    subprocess.run([tmp_path / "builder/bin/python", "-m", "build", tree], check=True, capture_output=True)
    (wheel,) = (tree / "dist").glob("layerfs-*.whl")
    assert list((tree / "dist").glob("layerfs-*.tar.gz"))
    with zipfile.ZipFile(wheel) as archive:
        assert "share/man/man8/mount.layerfs.8" in "\n".join(archive.namelist())
    subprocess.run([sys.executable, "-m", "venv", tmp_path / "user"], check=True)
    subprocess.run([tmp_path / "user/bin/pip", "install", "-q", wheel], check=True)

    def says(*words: str) -> str:
        command = [str(tmp_path / "user/bin/layerfs"), *words]
        return subprocess.run(command, check=True, capture_output=True, text=True, cwd="/").stdout

    assert says("--version").startswith("layerfs ")
    assert (tmp_path / "user/bin/mount.fuse.layerfs").exists()
    for place, words in _SHARED.items():
        assert (tmp_path / "user/share" / place).read_text("utf-8") == says(*words) != ""
