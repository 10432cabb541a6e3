"""The command line: a module for each family of verbs, and the one place that prints.

`main` is the entry point of the ``layerfs`` script and of ``python -m layerfs``. Heavy libraries are imported
by the verbs that need them, so that ``layerfs --help`` and shell completion answer at once.
"""

import sys

from layerfs.cli.app import app
from layerfs.cli.exits import report
from layerfs.errors import LayerfsError


def main() -> None:
    """Run the command line and exit with the code of `layerfs.cli.exits`."""
    try:
        app()
    except LayerfsError as error:
        sys.exit(report(error))
    except KeyboardInterrupt:
        sys.exit(130)


__all__ = ["main"]
