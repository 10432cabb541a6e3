"""The command line: a module for each family of verbs, and the one place that prints.

`main` is the entry point of the ``layerfs`` script and of ``python -m layerfs``. Heavy libraries are imported
by the verbs that need them, so that ``layerfs --help`` and shell completion answer at once.
"""

import os
import sys

from layerfs.cli.app import app, load_verbs
from layerfs.cli.exits import INTERRUPTED, report
from layerfs.errors import LayerfsError


def main() -> None:
    """Run the command line and exit with the code of `layerfs.cli.exits`."""
    load_verbs()
    if "_LAYERFS_COMPLETE" in os.environ:  # the Tab key: see layerfs.cli.completion
        from typer._completion_classes import completion_init

        completion_init()
    try:
        app()
    except LayerfsError as error:
        sys.exit(report(error))
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
    except BaseExceptionGroup as group:  # Ctrl-C comes out of trio's nurseries in a group
        if group.split(KeyboardInterrupt)[1] is None:
            sys.exit(INTERRUPTED)
        raise


__all__ = ["main"]
