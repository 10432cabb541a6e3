"""What the Tab key offers: references of the store, mountpoints; and ``layerfs completion`` for the shells.

Runs at each Tab, so it imports little, never fails, and changes nothing: no store is made to look into it.
"""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Final, Literal

import typer

from layerfs.errors import LayerfsError

Shell = Literal["bash", "zsh", "fish"]

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
    COMPREPLY=($(COMP_WORDS="${words[*]}" COMP_CWORD=$((${#words[@]} - 1)) \\
        _LAYERFS_COMPLETE=complete_bash "$1" 2>/dev/null))
    if [[ $current == *:* && $COMP_WORDBREAKS == *:* ]]; then
        COMPREPLY=("${COMPREPLY[@]#"${current%"${current##*:}"}"}")
    fi
}
complete -o default -F _layerfs layerfs
""",
    "zsh": """\
#compdef layerfs
_layerfs() {
    eval $(env _TYPER_COMPLETE_ARGS="${words[1,$CURRENT]}" _LAYERFS_COMPLETE=complete_zsh layerfs)
}
compdef _layerfs layerfs
""",
    "fish": """\
complete --command layerfs --arguments '(env _LAYERFS_COMPLETE=complete_fish \\
    _TYPER_COMPLETE_FISH_ACTION=get-args _TYPER_COMPLETE_ARGS=(commandline -cp) layerfs)'
""",
}


def completion(
    shell: Annotated[Shell, typer.Argument(metavar="SHELL", help="bash, zsh or fish")],
) -> None:
    """Print the completion script for a shell.

    Put it where the shell looks: ~/.local/share/bash-completion/completions/layerfs for bash, a file
    _layerfs in a directory of $fpath for zsh, ~/.config/fish/completions/layerfs.fish for fish.
    """
    typer.echo(SCRIPTS[shell], nl=False)


def complete_reference(ctx: typer.Context, incomplete: str) -> list[str]:
    """Return the references of the store that begin with what was typed."""
    given = ctx.params.get("references") or ()
    return [name for name in _references(ctx.params) if name.startswith(incomplete) and name not in given]


def complete_mountpoint(incomplete: str) -> list[str]:
    """Return the mountpoints of layerfs that begin with what was typed."""
    from layerfs.host import mounts

    try:
        points = [os.fsdecode(mount.point) for mount in mounts.read_mounts() if mount.is_layerfs]
    except OSError:
        return []
    return [point for point in dict.fromkeys(points) if point.startswith(incomplete)]


def _references(params: dict[str, Any]) -> Iterator[str]:
    """Yield full names, then short ones: typing `al` should find docker.io/library/alpine."""
    from layerfs.config import settings_of
    from layerfs.host.namespaces import in_initial_user_namespace
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
        short = name.removeprefix("docker.io/")
        if short != name:
            yield short.removeprefix("library/")
