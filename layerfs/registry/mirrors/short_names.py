"""What a name without a registry means, as registries.conf has it. Pure.

podman tries one registry after another, or asks a person. Here a name means one thing, whoever mounts it and
whenever: an alias, else the one registry that is searched, else what it means to Docker.
"""

from layerfs.errors import InvalidReference
from layerfs.registry.mirrors.values import ShortNames


def expanded(names: ShortNames, text: str) -> str:
    """Return the reference *text*, which names no registry, with one. Raises InvalidReference."""
    name, at, digest = text.partition("@")
    name, colon, tag = name.partition(":")
    rest = f"{colon}{tag}{at}{digest}"
    if (alias := names.aliases.get(name)) is not None:
        return f"{alias}{rest}"
    if names.search is None:
        return text
    if len(names.search) == 1:
        return f"{names.search[0]}/{text}"
    several = ", ".join(f"{one}/{text}" for one in names.search) or f"docker.io/{text}"
    raise InvalidReference(
        f"{text[:300]!r}: a name without a registry and no alias, and {names.place} searches "
        f"{len(names.search)} registries (expected one, or a full name: {several[:600]})"
    )
