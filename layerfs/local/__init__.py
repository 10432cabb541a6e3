"""Images on this disk: OCI layouts, archives of docker and podman, directories of skopeo. No network.

Offers what `layerfs.fetch` asks of a registry, so that local images go through the same verification.
Imports only `errors`, `oci` and the tar reader of `layer`. `layerfs.local.origin`, which needs trio, is not
imported here: completion must be quick.
"""

from layerfs.local.contents import Contents, SourceImage, by_name, choose
from layerfs.local.name import SourceName, is_source
from layerfs.local.opening import open_source

__all__ = ["Contents", "SourceImage", "SourceName", "by_name", "choose", "is_source", "open_source"]
