"""Every example of `--help`, README and docs runs as it is written, in a copy of this machine.

The copy is an overlay over / in a mount namespace of its own: examples may mount, write anywhere and log in.
Docker Hub and ghcr.io are a registry on loopback behind a proxy, with TLS.
"""

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.conftest import CommandLine
from tests.cli.test_words import verbs
from tests.support.certificates import authority, issue
from tests.support.images import directory, file, image, layer, symlink, write_layout
from tests.support.proxy import Proxy
from tests.support.registry import Registry

pytestmark = [pytest.mark.needs_root, pytest.mark.needs_fuse]

_REPOSITORY = Path(__file__).parents[2]
_EXAMPLE = re.compile(r"Example: (?P<command>.+)")
_BLOCK = re.compile(r"^```sh\n(?P<text>.*?)^```", re.MULTILINE | re.DOTALL)

ALPINE = image(
    layer(
        directory("bin"),
        file("bin/busybox", Path("/bin/busybox").read_bytes(), mode=0o755),
        symlink("bin/sh", "busybox"),
        symlink("bin/cat", "busybox"),
        directory("etc"),
        file("etc/os-release", b"ID=alpine\n"),
        command="ADD alpine-minirootfs.tar.gz /",
    ),
    layer(file("etc/motd", b"hello\n"), command="COPY motd /etc"),
    layer(file("etc/added", b"1\n"), command="COPY added /etc"),
)

ORDER = (
    "completion", "config check", "config show", "config example", "man", "pull", "images", "digest",
    "tags", "inspect", "history", "tree", "export", "save", "push", "lowerdir", "mount", "status",
    "umount", "df", "rm", "import", "login", "logout",
)  # fmt: skip
"""Some need what others leave behind; verbs that are not listed here run last."""

SANDBOX = """\
set -e
mount -t tmpfs tmpfs "$1"
mkdir "$1"/up "$1"/work "$1"/root
mount -t overlay overlay -o lowerdir=/,upperdir="$1"/up,workdir="$1"/work "$1"/root
cd "$1"/root
mkdir -p home/reader images ".$3"
for place in /proc /sys "$3"; do mount --rbind "$place" ".$place"; done
for place in /dev /dev/pts; do mount --bind "$place" ".$place"; done
for place in /dev/shm /run /var/lib /home/reader; do mount -t tmpfs tmpfs .$place; done
cp -r "$2"/. home/reader
exec chroot . /bin/bash home/reader/run
"""
"""Arguments: an empty directory, one that becomes the home, and this checkout.

Of /dev without what is mounted below: other tests mount in /dev/shm, and `layerfs status` lists all mounts.
"""

BARE = """\
set -e
mkdir "$1"/root
tar --numeric-owner --xattrs -xpf "$4" -C "$1"/root
cp /etc/resolv.conf /etc/hosts "$1"/root/etc/
mkdir -p "$1"/root/home/reader "$1"/root/layerfs
cat "${PIP_CERT:-/etc/ssl/certs/ca-certificates.crt}" "$2"/trusted.crt >"$1"/root/etc/authorities.crt
(cd "$3"; git ls-files -z | tar -cf - --null --files-from=-) | tar -xf - -C "$1"/root/layerfs --no-same-owner
cd "$1"/root
for place in /proc /sys; do mount --rbind "$place" ".$place"; done
for place in /dev /dev/pts; do mount --bind "$place" ".$place"; done
for place in /dev/shm /run /home/reader; do mount -t tmpfs tmpfs .$place; done
cp -r "$2"/. home/reader
exec env -i HOME=/home/reader PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin TERM=dumb \\
    HTTPS_PROXY="$HTTPS_PROXY" NO_PROXY=pypi.org,files.pythonhosted.org PIP_CERT=/etc/authorities.crt \\
    SSL_CERT_FILE=/etc/authorities.crt LAYERFS_TEST_SESSION="$LAYERFS_TEST_SESSION" \\
    chroot . /usr/bin/python3 home/reader/terminal home/reader/paste
"""
"""Arguments as above, and the archive of a root that has what debootstrap installs, no more."""

RUNNER = """\
export HOME=/home/reader
cd
umask 022
mkdir oci
number=0
while [ -e "examples/$number" ]; do
    . ./around "$number" before
    (cd "$HOME" && exec bash -e "$HOME/examples/$number") >"out.$number" 2>&1 </dev/null
    echo $? >"code.$number"
    . ./around "$number" after
    number=$((number + 1))
done
for number in $(seq 0 $((number - 1))); do
    printf '%s\\n' "@@ $number $(cat code.$number)"
    cat "out.$number"
done
"""


def examples_of_help() -> dict[str, str]:
    """Return the example of each verb."""
    found = {}
    for name, command in verbs():
        match = _EXAMPLE.search(command.epilog)
        assert match is not None, name
        found[name] = match["command"]
    return found


def examples_of_documents() -> Iterator[tuple[str, str]]:
    """Yield file and text of the shell examples that use layerfs; how to install it is tested elsewhere."""
    for path in [_REPOSITORY / "README.md", *sorted((_REPOSITORY / "docs").glob("*.md"))]:
        if path.name in ("runtimes.md", "audit.md"):  # by tests of their own, with what they need
            continue
        for block in _BLOCK.finditer(path.read_text(encoding="utf-8")):
            text = block["text"]
            about_us = re.search(r"\blayerfs\b|/images/", text)
            if about_us and not re.search(r"apt(-get)? install|git clone|scripts/", text):
                yield path.name, text


class Sandbox:
    """Runs examples in a copy of this machine, in which Docker Hub is ours."""

    def __init__(self, layerfs: CommandLine, tmp_path: Path, proxy: Proxy, trusted: Path) -> None:
        self._place = tmp_path / "sandbox"
        self._place.mkdir()
        self.home = tmp_path / "reader"
        (self.home / "examples").mkdir(parents=True)
        self._environment = {
            name: value
            for name, value in layerfs.environment.items()
            if not name.startswith(("LAYERFS_", "XDG_")) or name == "LAYERFS_TEST_SESSION"
        } | {
            "HTTPS_PROXY": proxy.url,
            "SSL_CERT_FILE": str(self._home_in_it("trusted.crt")),
            "PATH": f"/home/reader/bin:{layerfs.environment['PATH']}",
        }
        (self.home / "trusted.crt").write_bytes(trusted.read_bytes())
        (self.home / "bin").mkdir()
        (self.home / "bin/pass").write_text("#!/bin/sh\necho secret\n")  # a password manager
        (self.home / "bin/pass").chmod(0o755)
        write_layout(self.home / "alpine", ALPINE, "3.20")
        (self.home / "run").write_text(RUNNER)

    def _home_in_it(self, name: str) -> Path:
        return Path("/home/reader", name)

    def run(self, examples: list[str], around: str = "") -> list[tuple[int, str]]:
        """Return exit code and output of each."""
        (self.home / "around").write_text(around)
        for number, text in enumerate(examples):
            (self.home / f"examples/{number}").write_text(text)
        done = self._alone(SANDBOX, 280)
        parts = re.split(r"^@@ \d+ (\d+)\n", done, flags=re.MULTILINE)[1:]
        return [(int(code), output) for code, output in zip(parts[::2], parts[1::2], strict=True)]

    def paste(self, text: str, root: Path | None = None) -> str:
        """Paste *text* into a shell on a terminal, here or in an archived root; return what that shows."""
        (self.home / "terminal").write_text(TERMINAL)
        (self.home / "paste").write_text(text)
        if root is None:
            [(code, output)] = self.run(["python3 terminal paste"])
            assert code == 0, output
            return output
        try:
            return self._alone(BARE, 800, root)
        finally:
            shutil.rmtree(self._place)

    def _alone(self, script: str, seconds: float, *arguments: Path) -> str:
        unshare = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]
        done = subprocess.run(
            [*unshare, "bash", "-c", script, "sandbox", self._place, self.home, _REPOSITORY, *arguments],
            env=self._environment,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=seconds,
        )
        assert done.returncode == 0, done.stdout[-4000:] + done.stderr
        return done.stdout


@pytest.fixture
def sandbox(
    layerfs: CommandLine, tmp_path: Path, own_registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Sandbox]:
    own_registry.push("library/alpine", "3.20", ALPINE)
    by = authority(tmp_path)
    server = issue(tmp_path, by, "registry-1.docker.io", "ghcr.io")
    monkeypatch.setenv("REGISTRY_HTTP_TLS_CERTIFICATE", str(server.certificate))
    monkeypatch.setenv("REGISTRY_HTTP_TLS_KEY", str(server.key))
    own_registry.stop()
    own_registry.start()
    port = own_registry.port
    with Proxy({"registry-1.docker.io:443": port, "ghcr.io:443": port}) as proxy:
        yield Sandbox(layerfs, tmp_path, proxy, by.certificate)


def test_every_example_of_help_runs_as_written(sandbox: Sandbox) -> None:
    examples = examples_of_help()
    order = [*ORDER, *(name for name in examples if name not in ORDER)]
    results = sandbox.run([examples[name] for name in order])
    for name, (code, output) in zip(order, results, strict=True):
        assert code == 0, f"{name}: {examples[name]}\n{output}"
    printed = {name: output for name, (_, output) in zip(order, results, strict=True)}
    assert "docker.io/library/alpine:3.20" in printed["images"]
    assert printed["digest"] == f"{ALPINE.digest}\n"
    assert json.loads(printed["inspect"]) == ["PATH=/bin:/usr/bin"]
    assert "lowerdir=/home/reader/oci/lower/" in printed["mount"]
    assert printed["status"] == "/home/reader/oci\n"
    assert printed["import"] == "docker.io/library/alpine:3.20\n"
    assert "logged in to ghcr.io as me" in printed["login"]


TERMINAL = """\
import os, pty, select, signal, sys

pid, terminal = pty.fork()
if pid == 0:
    os.chdir(os.environ["HOME"])
    os.environ["PS1"] = "@@$? "
    os.execvp("dash", ["dash", "-i"])
rest = open(sys.argv[1], "rb").read()
signal.alarm(700)
while True:
    readable, writable, _ = select.select([terminal], [terminal] if rest else [], [])
    if readable:
        try:
            said = os.read(terminal, 1 << 16)
        except OSError:  # the shell has ended
            break
        os.write(1, said)
    if writable:
        rest = rest[os.write(terminal, rest[:256]):]
"""
"""Pastes a file into a shell on a terminal, prints what that shows; dash knows no bracketed paste."""


def blocks_of_readme() -> tuple[str, str]:
    """Return the shell block of README that installs layerfs, and all behind it in sequence."""
    blocks = [match["text"] for match in _BLOCK.finditer((_REPOSITORY / "README.md").read_text("utf-8"))]
    number = next(number for number, text in enumerate(blocks) if "pip install" in text)
    return blocks[number], "".join(blocks[number + 1 :])


def assert_all_of_it_worked(text: str, shown: str) -> None:
    assert shown.count("ID=alpine") == 3, shown
    assert re.findall(r"@@(\d+) ", shown) == ["0"] * len(text.splitlines()), shown


def test_the_blocks_of_readme_are_one_paste(sandbox: Sandbox) -> None:
    text = blocks_of_readme()[1] + "exit\n"
    assert_all_of_it_worked(text, sandbox.paste(text))


@pytest.mark.long
@pytest.mark.timeout(900)
def test_readme_is_one_paste_in_a_root_as_bare_as_debootstrap_makes_it(sandbox: Sandbox) -> None:
    fresh = [str(_REPOSITORY / "scripts/fresh"), "--base", "bookworm"]
    archive = subprocess.run(fresh, stdout=subprocess.PIPE, text=True, check=True).stdout.strip()
    text = "".join(["cd /layerfs\n", *blocks_of_readme(), "exit\n"])
    assert_all_of_it_worked(text, sandbox.paste(text, Path(archive)))


MOUNTED = """\
example=examples/$1
if ! grep -q 'layerfs mount' "$example"; then
    case $2 in
        before) mkdir -p /images; layerfs mount /images ;;
        after) layerfs umount --lazy /images ;;
    esac
fi
"""
"""Most sections go on where the first one was: with a mount at /images."""


def test_every_example_of_readme_and_docs_runs_as_written(sandbox: Sandbox) -> None:
    examples = list(examples_of_documents())
    assert any(name == "README.md" for name, _ in examples)
    results = sandbox.run([text for _, text in examples], MOUNTED)
    for (name, text), (code, output) in zip(examples, results, strict=True):
        assert code == 0, f"{name}:\n{text}\n{output}"
