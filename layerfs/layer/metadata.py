"""Which metadata of a member is kept: extended attributes, owners, device numbers.

Decides on values alone; pure.

Dropped is what speaks to another machine's kernel or security policy, and what would speak to overlayfs or to
a container engine about the layer directory itself: an archive must not be able to write whiteouts, opaque
directories, redirects or override owners.
"""

from typing import Final

from layerfs.errors import InvalidArchive
from layerfs.layer.overlayfs import XATTR_PREFIXES
from layerfs.layer.paths import shown

_DROPPED: Final = frozenset(
    {
        b"security.selinux",
        b"security.ima",
        b"security.evm",
        b"security.apparmor",
        b"security.SMACK64",
        b"security.SMACK64EXEC",
        b"security.SMACK64MMAP",
        b"security.SMACK64TRANSMUTE",
        b"user.containers.override_stat",
        b"user.rootlesscontainers",
    }
)
_DROPPED_PREFIXES: Final = (
    *XATTR_PREFIXES,
    b"user.overlayfs.",
    b"user.fuseoverlayfs.",
    b"trusted.glusterfs.",
)
_KEPT_NAMESPACES: Final = (b"user.", b"trusted.", b"security.")

ACL_DEFAULT: Final = b"system.posix_acl_default"
"""The default ACL of a directory is inherited by what is made in it, so it must be set last."""
_ACLS: Final = frozenset({b"system.posix_acl_access", ACL_DEFAULT})

NAME_MAX: Final = 255
VALUE_MAX: Final = 65536
"""Bytes of an extended attribute's name and value (xattr(7))."""

MAJOR_MAX: Final = (1 << 12) - 1
MINOR_MAX: Final = (1 << 20) - 1
"""What the kernel's dev_t holds."""


def is_acl(name: bytes) -> bool:
    """Say whether the extended attribute *name* is an access control list."""
    return name in _ACLS


def keeps_xattr(name: bytes) -> bool:
    """Say whether the extended attribute *name* of an archive goes to the disk."""
    if name in _ACLS:
        return True
    return (
        name.startswith(_KEPT_NAMESPACES) and name not in _DROPPED and not name.startswith(_DROPPED_PREFIXES)
    )


def kept_xattrs(xattrs: dict[bytes, bytes], entry: bytes) -> dict[bytes, bytes]:
    """Return what is kept of *xattrs*. Raises InvalidArchive for what the kernel could not hold."""
    kept = {name: value for name, value in xattrs.items() if keeps_xattr(name)}
    for name, value in kept.items():
        if b"\0" in name or len(name) > NAME_MAX or len(value) > VALUE_MAX:
            raise InvalidArchive(
                f"{shown(entry)}: xattr {shown(name)} of {len(value)} bytes "
                f"(expected a name of at most {NAME_MAX} and a value of at most {VALUE_MAX})"
            )
    return kept


def check_device(major: int, minor: int, entry: bytes) -> None:
    """Raise InvalidArchive unless the kernel has room for this device number."""
    if not (0 <= major <= MAJOR_MAX and 0 <= minor <= MINOR_MAX):
        raise InvalidArchive(
            f"{shown(entry)}: device {major}:{minor} (expected at most {MAJOR_MAX}:{MINOR_MAX})"
        )
