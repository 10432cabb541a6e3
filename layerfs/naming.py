"""What image a text of a user means on this machine: short names as registries.conf has them. Blocking.

A text that names a registry means the same everywhere, and no file is read for it.
"""

import os
from collections.abc import Callable
from functools import partial

from layerfs.oci import ImageReference, Repository
from layerfs.oci.reference import has_registry
from layerfs.settings import Settings


def reference(settings: Settings, text: str) -> ImageReference:
    """Return the reference that *text* is. Raises InvalidReference, InvalidSettings."""
    return ImageReference.parse(expanded(settings, text))


def parser(settings: Settings) -> Callable[[str], ImageReference]:
    """Return what reads references as `reference` does."""
    return partial(reference, settings)


def repository(settings: Settings, text: str) -> Repository:
    """Return the repository that *text* is. Raises InvalidReference, InvalidSettings."""
    return Repository.parse(expanded(settings, text))


def expanded(settings: Settings, text: str) -> str:
    """Return *text*, with a registry if it is a short name that the files know. Raises as `reference`."""
    if has_registry(text):
        return text
    from layerfs.registry.mirrors import places, short_names

    return short_names.expanded(places.short_names(os.environ, settings.registries_conf), text)
