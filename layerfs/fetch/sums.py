"""What all layers of an image may cost together: looked at before they are fetched, and after each one."""

from layerfs.errors import BudgetExceeded
from layerfs.layer.budgets import Budgets
from layerfs.oci import Image
from layerfs.store import ImageStorage


def require_sums(storage: ImageStorage, image: Image, budgets: Budgets) -> None:
    """Raise BudgetExceeded if the layers of *image* are too much together.

    Those that the store has count as extracted, the others with the bytes that the manifest promises.
    """
    total = entries = 0
    for layer in {layer.digest: layer for layer in image.layers}.values():
        known = storage.open_layer(layer.digest)
        total += layer.size if known is None else known.record.layer.tar_size
        entries += 0 if known is None else known.record.layer.entries
    for found, most, name, what in (
        (total, budgets.max_image_bytes, "max_image_bytes", "bytes"),
        (entries, budgets.max_image_entries, "max_image_entries", "entries"),
    ):
        if found > most:
            raise BudgetExceeded(
                f"image {image.manifest.digest}: {found} {what} in all layers so far ({name} is {most})"
            )
