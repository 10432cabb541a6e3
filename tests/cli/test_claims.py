"""An image that claims layers of another is refused by every verb, also where all of them are here."""

from pathlib import Path

import pytest

from layerfs.oci import Digest
from tests.overlay.scene import command
from tests.support import images
from tests.support.registry import Registry

LAYER = images.layer(images.file("motd", b"hello"))
HONEST = images.image(LAYER)
LIAR = images.image(LAYER, diff_ids=[Digest.of(b"another archive")])


@pytest.mark.parametrize("verb", ["tree", "export", "lowerdir"])
def test_a_layer_that_is_here_is_compared_with_the_claim(
    verb: str, registry: Registry, tmp_path: Path
) -> None:
    store = tmp_path / "store"
    honest, liar = (
        str(registry.push(f"cli/claims-{name}", "1", built))
        for name, built in (("honest", HONEST), ("liar", LIAR))
    )
    command("pull", "--store", store, honest)
    assert "as the image's config says" in command("pull", "--store", store, liar, check=False).stderr
    more: list[str | Path] = ["-o", tmp_path / "out"] if verb == "export" else []
    assert command(verb, "--store", store, honest, *more).returncode == 0
    done = command(verb, "--store", store, liar, *more, check=False)
    assert done.returncode == 6
    assert "as the image's config says" in done.stderr
