"""Limits on one layer, and on all of an image: what a hostile one may cost whoever reads it."""

import msgspec

from layerfs.errors import BudgetExceeded


class Budgets(msgspec.Struct, frozen=True, kw_only=True):
    """The limits. Errors name the field, which is the setting too."""

    max_layer_bytes: int = 1 << 40
    """Bytes of the uncompressed archive."""
    max_entries: int = 5_000_000
    max_image_bytes: int = 2 << 40
    """Bytes of the uncompressed archives of all layers of an image."""
    max_image_entries: int = 10_000_000
    """Entries of all layers of an image."""
    max_depth: int = 256
    """Components of one path."""
    max_ratio: int = 2000
    """Uncompressed to compressed size: of the whole blob beyond 64 MiB; of what has come beyond 1 GiB."""
    max_cpu_seconds: int = 3600
    """Seconds of a processor that inflating the blob, and again that writing its tree may take."""
    max_pax_bytes: int = 1 << 20
    """Bytes of one extended header, and of all xattrs of one entry."""
    max_record_bytes: int = 16 << 20
    """Bytes of all that is kept until the end or beside the tree: paths of markers, implied directories and
    links that wait, with 160 for each; and what the disk cannot hold (attributes, owners, devices), with 16
    for each. Bounds the memory of the writer, and of the daemon when it plans the cover."""

    def cpu_exceeded(self, doing: str) -> BudgetExceeded:
        """Return the error for more seconds of a processor than a layer may take."""
        return BudgetExceeded(f"{doing}: more than {self.max_cpu_seconds} s of a processor (max_cpu_seconds)")
