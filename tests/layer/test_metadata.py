"""Which extended attributes go to the disk, and how records write what the disk could not carry."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from layerfs.errors import InvalidArchive
from layerfs.layer.lost import Lost
from layerfs.layer.metadata import check_device, is_acl, keeps_xattr, kept_xattrs


@pytest.mark.parametrize(
    "name",
    [
        b"user.comment", b"security.capability", b"trusted.anything", b"system.posix_acl_access",
        b"system.posix_acl_default", b"user.overlayed",
    ],
)  # fmt: skip
def test_attributes_of_the_content_are_kept(name: bytes) -> None:
    assert keeps_xattr(name)


@pytest.mark.parametrize(
    "name",
    [
        b"security.selinux", b"security.ima", b"security.evm", b"trusted.overlay.opaque",
        b"trusted.overlay.whiteout", b"trusted.overlay.redirect", b"trusted.overlay.metacopy",
        b"user.overlay.opaque", b"user.overlay.whiteout", b"user.containers.override_stat",
        b"user.fuseoverlayfs.opaque", b"user.fuseoverlayfs.override_stat", b"user.rootlesscontainers",
        b"system.nfs4_acl", b"btrfs.compression", b"opaque", b"",
    ],
)  # fmt: skip
def test_attributes_that_speak_to_kernel_policy_or_overlay_are_dropped(name: bytes) -> None:
    assert not keeps_xattr(name)


@pytest.mark.parametrize(
    "xattrs", [{b"user." + b"x" * 251: b""}, {b"user.a\0b": b""}, {b"user.a": bytes(65537)}]
)
def test_attributes_that_no_kernel_holds_are_refused(xattrs: dict[bytes, bytes]) -> None:
    with pytest.raises(InvalidArchive, match="file"):
        kept_xattrs(xattrs, b"file")


def test_device_numbers_have_the_kernels_bounds() -> None:
    check_device(4095, (1 << 20) - 1, b"dev")
    for numbers in ((4096, 0), (0, 1 << 20), (-1, 0)):
        with pytest.raises(InvalidArchive):
            check_device(*numbers, b"dev")


_NUMBERS = st.integers(0, 2**32 - 1)


@given(
    lost=st.builds(
        Lost,
        mode=st.none() | st.integers(0, 0o177777),
        owner=st.none() | st.tuples(_NUMBERS, _NUMBERS),
        device=st.none() | st.tuples(_NUMBERS, _NUMBERS),
        xattrs=st.dictionaries(st.binary(min_size=1, max_size=20), st.binary(max_size=20), max_size=3),
    ).filter(lambda lost: str(lost) != "")
)
def test_what_was_lost_comes_out_of_the_record_as_it_went_in(lost: Lost) -> None:
    assert Lost.parse(str(lost)) == lost


def test_access_lists_are_told_from_other_attributes() -> None:
    names = [b"system.posix_acl_access", b"system.posix_acl_default", b"user.acl"]
    assert [is_acl(name) for name in names] == [True, True, False]
