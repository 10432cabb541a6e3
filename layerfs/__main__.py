"""``python -m layerfs`` is the ``layerfs`` command."""

from layerfs.cli import main

main()
