"""What the Tab key offers: references of the store, mountpoints; and ``layerfs completion`` for the shells.

Runs at each Tab, so it imports little, never fails, and changes nothing: no store is made to look into it.
A name that others made is program text to a shell, so only those are offered that no shell reads as more.
"""

import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Annotated, Any, Final, Literal

import click

from layerfs.cli import takes
from layerfs.errors import LayerfsError

Shell = Literal["bash", "zsh", "fish"]

# Where mountpoints are asked for, none falls back to the names of files: others may have chosen these, too.
SCRIPTS: Final[dict[Shell, str]] = {
    # Bash breaks words at colons: it would hand over `alpine:3` as three, and replaces only what is
    # behind the last colon. So the words are taken from the line, and the answers cut.
    "bash": """\
_layerfs() {
    local IFS=$'\\n' line=${COMP_LINE:0:COMP_POINT} current
    local -a words
    IFS=$' \\t' read -ra words <<< "$line"
    [[ $line == *[[:space:]] ]] && words+=("")
    current=${words[-1]}
    mapfile -t COMPREPLY < <(_LAYERFS_COMPLETE=words _LAYERFS_LINE="$line" "$1" 2>/dev/null)
    [[ -n ${COMPREPLY[*]} ]] || COMPREPLY=()
    [[ ${words[1]} == @(umount|status) ]] && compopt +o default
    if [[ $current == *:* && $COMP_WORDBREAKS == *:* ]]; then
        COMPREPLY=("${COMPREPLY[@]#"${current%"${current##*:}"}"}")
    fi
}
complete -o default -F _layerfs layerfs
""",
    "zsh": """\
#compdef layerfs
_layerfs() {
    local line
    local -a found offered shown
    found=(${(f)"$(_LAYERFS_COMPLETE=meanings _LAYERFS_LINE="${words[1,CURRENT]}" layerfs 2>/dev/null)"})
    for line in $found; do
        offered+=("${line%%$'\\t'*}")
        shown+=("${line/$'\\t'/  -- }")
    done
    if (( $#offered )); then
        compadd -l -d shown -a offered
    elif [[ $words[2] != (umount|status) ]]; then
        _files
    fi
}
if [[ $funcstack[1] == _layerfs ]]; then
    _layerfs "$@"
else
    compdef _layerfs layerfs
fi
""",
    "fish": """\
function __layerfs_complete
    set --local found (env _LAYERFS_COMPLETE=meanings \\
        _LAYERFS_LINE=(commandline -cp | string collect) layerfs 2>/dev/null)
    if set --query found[1]
        printf '%s\\n' $found
    else if not __fish_seen_subcommand_from umount status
        __fish_complete_path (commandline -ct)
    end
end
complete --command layerfs --no-files --arguments '(__layerfs_complete)'
""",
}

_HARMLESS: Final = r"[\w/][\w/.:@%+,=-]*"
"""No quote, blank, expansion or pattern of bash, zsh or fish; what some expand in front, not in front."""


def completion(
    shell: Annotated[Shell, takes.argument(metavar="SHELL", help="bash, zsh or fish")],
) -> None:
    """Print the completion script for a shell.

    Put it where the shell looks: ~/.local/share/bash-completion/completions/layerfs for bash, a file
    _layerfs in a directory of $fpath for zsh, ~/.config/fish/completions/layerfs.fish for fish.
    """
    click.echo(SCRIPTS[shell], nl=False)


def answer(program: click.Command) -> None:
    """Print what may stand in the place of the last word of the line that a script of `SCRIPTS` has.

    Each with a tab and its meaning, if the script asks for meanings.
    """
    from click.shell_completion import ShellComplete, split_arg_string

    line = os.environ.get("_LAYERFS_LINE", "")
    _, *words = split_arg_string(line) or [""]
    last = words.pop() if words and not line[-1:].isspace() else ""
    meanings = os.environ["_LAYERFS_COMPLETE"] == "meanings"
    for one in ShellComplete(program, {}, "layerfs", "").get_completions(words, last):
        if one.type == "plain":  # the shell itself knows the names of files
            click.echo(f"{one.value}\t{' '.join(one.help.split())}" if meanings and one.help else one.value)


def is_harmless(word: str) -> bool:
    """Say whether *word*, typed without quotes, is only itself to bash, zsh and fish."""
    return re.fullmatch(_HARMLESS, word) is not None


def complete_reference(ctx: click.Context, _: click.Parameter, incomplete: str) -> list[str]:
    """Return the references of the store that begin with what was typed."""
    given = ctx.params.get("references") or ()
    return [name for name in _offered(_references(ctx.params), incomplete) if name not in given]


def complete_mountpoint(_: click.Context, __: click.Parameter, incomplete: str) -> list[str]:
    """Return the mountpoints of the user's own layerfs that begin with what was typed."""
    from layerfs.host import mounts

    try:
        found = mounts.read_mounts()
    except OSError:
        return []
    own = (os.fsdecode(mount.point) for mount in found if mount.is_layerfs and mount.user == os.getuid())
    return list(dict.fromkeys(_offered(own, incomplete)))


def _offered(words: Iterable[str], incomplete: str) -> Iterator[str]:
    """Yield those of *words* that begin with what was typed and may be put on a command line as they are."""
    return (word for word in words if word.startswith(incomplete) and is_harmless(word))


def _references(params: dict[str, Any]) -> Iterator[str]:
    """Yield full names, then short ones: typing `al` should find docker.io/library/alpine."""
    from layerfs.config import settings_of
    from layerfs.host.namespaces import in_initial_user_namespace
    from layerfs.oci.reference import familiar
    from layerfs.store import ImageStorage

    try:
        namespace = not in_initial_user_namespace()
        defaults = settings_of(os.environ, os.getuid(), namespace=namespace)
        store = Path(params["store"]) if params.get("store") else defaults.store
        if not (store / "refs").is_dir():
            return
        names = [str(reference) for reference, _ in ImageStorage(store).refs.all()]
    except (LayerfsError, OSError):
        return
    yield from names
    for name in names:
        if (short := familiar(name)) != name:
            yield short
