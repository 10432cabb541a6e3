"""``layerfs export``: the merged root of an image as a tar archive, streamed, always the same bytes."""

from typing import Annotated

from layerfs.cli import interrupts, options, takes
from layerfs.cli.app import app
from layerfs.cli.opening import reference_of
from layerfs.cli.outputs import output_file, require_output
from layerfs.errors import StoreError
from layerfs.settings import Settings


@app.verb(epilog="Example: layerfs export docker.io/library/alpine:3.20 -o alpine.tar")
@options.configured(*options.FETCHING)
def export(
    settings: Settings,
    reference: options.Reference,
    output: Annotated[
        str, takes.option("--output", "-o", metavar="FILE", help="Where to write; - is standard output.")
    ] = "-",
) -> None:
    """Write the root filesystem of an image as a tar.

    The image is fetched before, the layers are merged, whiteouts applied. Owners, modes, times, xattrs, hard
    links and devices are the image's, names are sorted: the same image gives the same bytes.
    """
    from layerfs.cli.native import have_layers
    from layerfs.view.archive import write_tar

    parsed = reference_of(settings, reference)
    require_output("export", output)
    layers = have_layers(settings, parsed)
    try:
        with interrupts.undoing(), output_file(output) as write:
            write_tar(layers, write)
    except OSError as exc:
        raise StoreError(f"{reference}: export to {output}: {exc.strerror or exc}") from exc
