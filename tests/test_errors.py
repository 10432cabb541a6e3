"""The tree in the docstring of `layerfs.errors` is the tree of its classes, and nobody has others."""

import importlib
import pickle
import pkgutil
from collections.abc import Iterator

import pytest

import layerfs
from layerfs import errors
from layerfs.errors import LayerfsError, WorkerDied, name_of, named


def drawn() -> dict[str, str]:
    """Return parent by class, as the docstring draws them."""
    assert errors.__doc__ is not None
    lines = errors.__doc__.partition("::\n\n")[2].splitlines()
    path: list[str] = []
    found = {}
    for line in lines:
        name = line.lstrip(" │├└─").split()[0]
        depth = (len(line) - len(line.lstrip(" │├└─")) - 4) // 4
        path[depth:] = [name]
        if depth:
            found[name] = path[depth - 1]
    return found


def _below(kind: type[LayerfsError]) -> Iterator[type[LayerfsError]]:
    for child in kind.__subclasses__():
        yield child
        yield from _below(child)


def everywhere() -> list[type[LayerfsError]]:
    """Return all errors of all modules, but for those that a module keeps to itself."""
    for module in pkgutil.walk_packages(layerfs.__path__, "layerfs."):
        if not module.name.endswith(("__main__", "on_fsspec")):  # the latter needs an extra
            importlib.import_module(module.name)
    return [
        kind
        for kind in _below(LayerfsError)
        if kind.__module__.startswith("layerfs.") and not kind.__name__.startswith("_")
    ]


def test_the_docstring_draws_every_error_of_layerfs() -> None:
    assert drawn() == {kind.__name__: kind.__bases__[0].__name__ for kind in everywhere()}


def test_an_error_of_another_process_is_rebuilt_by_its_name() -> None:
    for kind in everywhere():
        rebuilt = named(name_of(kind("text")), "text")
        assert (type(rebuilt), str(rebuilt)) == (kind, "text")


def test_a_private_error_crosses_as_its_family_and_an_unknown_name_as_a_death() -> None:
    class _Own(errors.Unreachable):
        pass

    assert type(named(name_of(_Own("x")), "x")) is errors.Unreachable
    for name in ("NoSuchError", "name_of", "annotations"):
        assert type(named(name, "x")) is WorkerDied


@pytest.mark.parametrize("kind", [LayerfsError, *_below(LayerfsError)], ids=lambda kind: kind.__name__)
def test_an_error_goes_to_another_process_and_back(kind: type[LayerfsError]) -> None:
    error = kind("what was expected, what was found")
    found = pickle.loads(pickle.dumps(error))

    assert (type(found), str(found), found.args) == (kind, str(error), error.args)
