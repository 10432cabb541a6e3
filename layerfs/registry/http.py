"""httpx and httpcore, without what they bring along only because it happens to be installed.

Where Click is installed httpx imports its command line, which takes longer than all the rest, and a decoder
for each coding; httpcore imports anyio beside trio. They do without what cannot be imported, and so do we:
`layerfs.registry.encoding` decodes bodies. certifi, whose certificates `layerfs.registry.tls` has no use for,
runs if somebody asks it for them; so does what encodes names of hosts that are not ASCII, and guesses types.
"""

from typing import Final

from layerfs.spared import without

_SPARED: Final = ("httpx._main", "zstandard", "brotli", "brotlicffi", "anyio")

with without(*_SPARED, late=["certifi", "idna", "mimetypes"]):
    import httpcore
    import httpx

__all__ = ["httpcore", "httpx"]
