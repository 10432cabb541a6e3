"""The API is what tests/api/signatures.txt says: whoever changes a name or a signature changes that file.

``python -m tests.api.signatures`` writes it anew; then CHANGELOG.md says what has changed for programs.
"""

import inspect
from types import ModuleType

import pytest

import layerfs
from layerfs.api import blocking, on_asyncio, on_trio
from tests.api import signatures

CLASSES = ("Store", "Image", "Mount", "Lease")


def test_no_name_and_no_signature_changes_unnoticed() -> None:
    kept = signatures.KEPT.read_text(encoding="utf-8")

    assert signatures.text() == kept, (
        "the API is another than tests/api/signatures.txt says: write it anew by "
        "`python -m tests.api.signatures`, and say in CHANGELOG.md what changed for programs"
    )


@pytest.mark.parametrize("name", CLASSES)
@pytest.mark.parametrize("face", [blocking, on_asyncio], ids=lambda face: face.__name__.rpartition(".")[2])
def test_a_face_has_the_names_and_parameters_of_the_implementation(face: ModuleType, name: str) -> None:
    theirs, ours = (parameters_of(getattr(module, name)) for module in (on_trio, face))
    context = {"close"} if name == "Store" and face is blocking else set()  # a with block may do it, too

    assert theirs.keys() - INNER == ours.keys() - context
    assert {word: theirs[word] for word in ours.keys() & theirs.keys()} == {
        word: ours[word] for word in ours.keys() & theirs.keys()
    }


INNER = {"begin_walk", "watch", "storage"}
"""What the other faces call, a page or an event at a time."""


def parameters_of(kind: type) -> dict[str, list[tuple[str, object, object]]]:
    """Return name, kind and default of the parameters of each public method."""
    return {
        name: [
            (parameter.name, parameter.kind, parameter.default)
            for parameter in inspect.signature(member).parameters.values()
        ]
        for name, member in inspect.getmembers(kind, callable)
        if not name.startswith("_")
    }


def test_layerfs_has_the_blocking_face() -> None:
    assert [getattr(layerfs, name) for name in (*CLASSES, "fail_after")] == [
        getattr(blocking, name) for name in (*CLASSES, "fail_after")
    ]
    with pytest.raises(AttributeError, match="nothing"):
        _ = layerfs.nothing
