"""The user whom the tests of this directory act as."""

import os
import shutil
from collections.abc import Iterator

import pytest

from tests.conftest import skip_for_lack_of
from tests.rootless.household import Household

_PROGRAMS = {
    "fusermount3": "fuse3",
    "newuidmap": "uidmap",
    "nsenter": "util-linux",
    "setpriv": "util-linux",
    "strace": "strace",
}


@pytest.fixture(scope="session")
def household(_nothing_is_left_over: None) -> Iterator[Household]:
    """An ordinary user, shared by the session: give every test a store or a repository of its own."""
    if os.geteuid() != 0:
        skip_for_lack_of("root, who makes the ordinary user (run scripts/test as root, or through sudo)")
    for program, package in _PROGRAMS.items():
        if shutil.which(program) is None:
            skip_for_lack_of(f"{program} (package {package})")
    made = Household()
    try:
        made.open()
    except RuntimeError as exc:
        skip_for_lack_of(str(exc))
    yield made
    made.close()
