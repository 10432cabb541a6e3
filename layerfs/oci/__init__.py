"""What an image is: digests, references, descriptors, manifests, configs. Pure, no I/O.

Everything here is parsed once into a frozen value; holding the value is the proof.
Sources: OCI image-spec 1.1, distribution-spec 1.1, Docker's reference grammar.
"""

from layerfs.oci.config import HistoryEntry, ImageConfig, RuntimeConfig
from layerfs.oci.descent import descend, documents_below
from layerfs.oci.descriptor import Descriptor, Resolved
from layerfs.oci.digest import Digest
from layerfs.oci.image import Image, stack_digest
from layerfs.oci.manifest import Index, Manifest, parse_manifest
from layerfs.oci.platform import Platform
from layerfs.oci.reference import ImageReference, Repository, Tag

__all__ = [
    "Descriptor",
    "Digest",
    "HistoryEntry",
    "Image",
    "ImageConfig",
    "ImageReference",
    "Index",
    "Manifest",
    "Platform",
    "Repository",
    "Resolved",
    "RuntimeConfig",
    "Tag",
    "descend",
    "documents_below",
    "parse_manifest",
    "stack_digest",
]
