"""``layerfs man``: the manual pages, made of the words of ``--help`` and the keys of the configuration.

One source: what a verb says of itself is written once, at its function. The wheel has them, and the
completions, as data (scripts/lib/shared_data.py).
"""

import re
from collections.abc import Iterator
from typing import Annotated, Any, Final, Literal

import click

import layerfs
from layerfs import config
from layerfs.cli import takes
from layerfs.cli.app import app
from layerfs.cli.completion import SCRIPTS
from layerfs.cli.helping import flags, placeholder
from layerfs.cli.mountoptions import IGNORED, KERNEL
from layerfs.layer.budgets import Budgets
from layerfs.settings import FLAG, ROWS

Page = Literal["layerfs", "layerfs.toml", "mount.layerfs"]

EXITS: Final = (
    ("0", "Success."),
    ("1", "Any other failure."),
    ("2", "The command line or a configuration file is wrong."),
    ("3", "An image, tag, platform or file was not found, or nothing that tree or images was to show."),
    ("4", "The registry denies it: log in."),
    ("5", "A registry cannot be reached, or --offline forbids it."),
    ("6", "Bytes are not what their digest says, or verify found something wrong."),
    ("129, 130, 143", "Ended by SIGHUP, SIGINT (Ctrl-C), SIGTERM; what was downloaded is kept."),
    ("141", "Whoever read the output has ended."),
)
HELPER_EXITS: Final = (
    ("0", "Success."),
    ("1", "The call, a word of -o or the configuration file is wrong."),
    ("2", "This machine lacks something, memory for instance."),
    ("4", "A mistake of layerfs."),
    ("8", "Ended by a signal."),
    ("32", "It cannot be mounted."),
)
_FILES: Final = (
    ("/var/lib/layerfs", "The store of root; ~/.local/share/layerfs for others."),
    (
        "/etc/layerfs/config.toml, ~/.config/layerfs/config.toml",
        "Configuration, the second is stronger: layerfs.toml(5).",
    ),
    (
        "/var/log/layerfs.log, ~/.local/state/layerfs/layerfs.log",
        "What a daemon of root in the background logs, and one of others, unless --log-file says otherwise. "
        "A log that was moved away is made anew, so logrotate(8) needs neither copytruncate nor a signal.",
    ),
    (
        "$REGISTRY_AUTH_FILE, $DOCKER_CONFIG/config.json, $XDG_RUNTIME_DIR/containers/auth.json, "
        "/run/containers/UID/auth.json, ~/.config/containers/auth.json, ~/.docker/config.json",
        "Logins, as podman and docker keep them (containers-auth.json(5)); the first two are read alone. "
        "What lies in /run goes with the next boot.",
    ),
    (
        "/etc/containers/certs.d/HOST:PORT, /etc/docker/certs.d/HOST:PORT",
        "Certificates for one registry: authorities *.crt; *.cert with *.key to be shown.",
    ),
    (
        "/etc/containers/registries.conf, ~/.config/containers/registries.conf, registries.conf.d there",
        "Mirrors, other places of images and short names as podman has them (containers-registries.conf(5)).",
    ),
    (
        "/etc/containerd/certs.d/HOST/hosts.toml, ~/.config/containerd/certs.d/HOST/hosts.toml",
        "Mirrors as containerd has them; _default for HOST stands for all. layerfs config check IMAGE prints "
        "who is asked.",
    ),
)


@app.verb(epilog="Example: layerfs man layerfs > layerfs.1")
def man(
    page: Annotated[
        Page, takes.argument(metavar="PAGE", help="layerfs, layerfs.toml or mount.layerfs")
    ] = "layerfs",
) -> None:
    """Print a manual page, in the language of groff_man(7)."""
    click.echo(page_text(page), nl=False)


def page_text(page: Page) -> str:
    """Return a manual page."""
    return "\n".join(_PAGES[page]()) + "\n"


def shared_data() -> dict[str, str]:
    """Return the files that a package installs beside the program, by their place below its prefix."""
    return {
        "share/man/man1/layerfs.1": page_text("layerfs"),
        "share/man/man5/layerfs.toml.5": page_text("layerfs.toml"),
        "share/man/man8/mount.layerfs.8": page_text("mount.layerfs"),
        "share/bash-completion/completions/layerfs": SCRIPTS["bash"],
        "share/zsh/site-functions/_layerfs": SCRIPTS["zsh"],
        "share/fish/vendor_completions.d/layerfs.fish": SCRIPTS["fish"],
    }


def _command_page() -> Iterator[str]:
    app.load()
    root: Any = app
    yield from _head("LAYERFS", 1, "layerfs", root.help)
    yield ".SH SYNOPSIS"
    yield ".B layerfs"
    yield "[\\-\\-config FILE] VERB [OPTION]... [ARGUMENT]..."
    yield ".SH DESCRIPTION"
    yield _text(
        "layerfs shows an image store at a mountpoint. Whatever is named below images/ is fetched when it is "
        "first read, verified, and kept; lowerdir in an image's directory is ready for mount -t overlay."
    )
    yield ".SH VERBS"
    for name, command in _verbs(root):
        yield from _verb(name, command)
    yield ".SH MOUNT OPTIONS"
    yield _text("What layerfs mount -o takes, and a line of fstab(5), parted by commas:")
    yield from _list(_words())
    yield ".SH EXIT STATUS"
    yield from _list(EXITS)
    yield ".SH ENVIRONMENT"
    yield from _list(_variables(root))
    yield ".SH FILES"
    yield from _list(_FILES)
    yield ".SH SEE ALSO"
    yield ".BR layerfs.toml (5),"
    yield ".BR mount (8),"
    yield ".BR podman (1),"
    yield ".BR skopeo (1)"


def _words() -> Iterator[tuple[str, str]]:
    for name, row in sorted(ROWS.items()):
        if row.word:
            yield (
                f"[no]{name}" if row.kind is FLAG else f"{name}={row.metavar or 'VALUE'}",
                row.help or row.about,
            )
    yield "fsname=NAME", "What findmnt(8) shows as the source; of a line of fstab(5) it is the first field."
    yield ", ".join(sorted(KERNEL)), "Passed on to the kernel."
    yield ", ".join(sorted(IGNORED)), "Change nothing: a layerfs is always ro,nosuid,nodev."


def _verbs(group: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, command in sorted(group.commands.items()):
        if command.hidden:
            continue
        if hasattr(command, "commands"):
            yield from _verbs(command, f"{prefix}{name} ")
        else:
            yield prefix + name, command


def _verb(name: str, command: Any) -> Iterator[str]:
    arguments = [param for param in command.params if param.param_type_name == "argument"]
    options = [
        param for param in command.params if param.param_type_name == "option" and param.name != "help"
    ]
    usage = " ".join([name, "[OPTION]...", *map(placeholder, arguments)])
    yield f".SS {_escape(usage)}"
    yield _text(command.help or "")
    described = [(placeholder(argument), argument.help or "") for argument in arguments if argument.help]
    yield from _list([*described, *((flags(option), option.help or "") for option in options)])
    if command.epilog:
        yield ".PP"
        label, _, example = command.epilog.partition(": ")
        yield _escape(f"{label}:")
        yield ".PP"
        yield f".RS 4\n.nf\n{_escape(example)}\n.fi\n.RE"


def _variables(root: Any) -> list[tuple[str, str]]:
    found = {}
    for holder in (root, *(command for _, command in _verbs(root))):
        for param in holder.params:
            if param.envvar:
                found[param.envvar] = f"Stands for {param.opts[0]}."
    return sorted(found.items())


def _config_page() -> Iterator[str]:
    yield from _head("LAYERFS.TOML", 5, "layerfs.toml", "configuration of layerfs")
    yield ".SH DESCRIPTION"
    yield _text(
        "layerfs reads /etc/layerfs/config.toml, then $XDG_CONFIG_HOME/layerfs/config.toml "
        "(~/.config/layerfs/config.toml), in TOML. A key of the second beats the same of the first, "
        "a variable of the environment than both, and an option of the command line than all. "
        "$LAYERFS_CONFIG or layerfs --config names one file that is read instead. An unknown key or a wrong "
        "value is an error; layerfs config check says where."
    )
    current: str | None = None
    for table, key, description in config.described():
        if table != current:
            yield f".SH {_escape(f'TABLE [{table}]' if table else 'KEYS')}"
            current = table
        if table == "budgets":
            description = (
                f"{description.rstrip('.')}; {getattr(Budgets(), key):_} unless something else is said."
            )
        yield from _list([(key, description)])
    yield ".SH EXAMPLE"
    yield ".nf"
    yield _escape(EXAMPLE.rstrip())
    yield ".fi"
    yield ".SH SEE ALSO"
    yield ".BR layerfs (1)"


EXAMPLE: Final = """\
store = "/srv/layerfs"
insecure_registries = ["registry.lan:5000"]
fetch_timeout = 300

[log]
level = "warning"

[budgets]
max_layer_bytes = 50_000_000_000
"""


def _helper_page() -> Iterator[str]:
    yield from _head(
        "MOUNT.LAYERFS", 8, "mount.layerfs, mount.fuse.layerfs", "mount an image store by mount(8)"
    )
    yield ".SH SYNOPSIS"
    yield ".B mount \\-t layerfs"
    yield _escape("[-o OPTIONS] SOURCE DIRECTORY")
    yield ".SH DESCRIPTION"
    yield _text(
        "mount(8) starts these programs for the types layerfs and fuse.layerfs, fstab(5) included. They do "
        "what layerfs mount does, and return once the mount answers. SOURCE is none or layerfs for the store "
        "that is configured, the path of a store, or a local image as layerfs mount takes it. mount(8) makes "
        "a path of layerfs where it is the name of a file in the directory that it runs in."
    )
    yield ".SH OPTIONS"
    yield from _list([("config=FILE", "Read this configuration file only."), *_words()])
    yield ".SH EXIT STATUS"
    yield from _list(HELPER_EXITS)
    yield ".SH EXAMPLE"
    yield _text("In /etc/fstab:")
    yield ".PP"
    yield f".RS 4\n.nf\n{_escape(FSTAB)}\n.fi\n.RE"
    yield ".SH SEE ALSO"
    yield ".BR layerfs (1),"
    yield ".BR layerfs.toml (5),"
    yield ".BR fstab (5),"
    yield ".BR systemd.mount (5)"


_PAGES: Final = {"layerfs": _command_page, "layerfs.toml": _config_page, "mount.layerfs": _helper_page}

FSTAB: Final = "none /images fuse.layerfs ro,_netdev,x-systemd.automount,config=/etc/layerfs/config.toml 0 0"


def _head(title: str, section: int, name: str, about: str) -> Iterator[str]:
    yield f'.TH "{title}" "{section}" "" "layerfs {layerfs.__version__}" "layerfs"'
    yield ".SH NAME"
    yield f"{_escape(name)} \\- {_escape(about[:1].lower() + about[1:].rstrip('.'))}"


def _list(entries: Any) -> Iterator[str]:
    for term, text in entries:
        yield ".TP"
        yield f"\\fB{_escape(term)}\\fR"
        yield _text(text)


def _text(text: str) -> str:
    """Return *text*, paragraphs apart."""
    paragraphs = re.split(r"\n\s*\n", text.strip())
    return "\n.PP\n".join(_escape(" ".join(paragraph.split())) for paragraph in paragraphs)


def _escape(text: str) -> str:
    """Return *text* so that roff takes nothing in it for its own."""
    escaped = text.replace("\\", "\\e").replace("-", "\\-")
    return re.sub(r"^([.'])", r"\\&\1", escaped, flags=re.MULTILINE)
