"""What a layer is: tar members to decisions, whiteouts, merge rules, covers. Pure, no I/O.

Sources: image-spec layer.md; pax(5) and tar(5); the kernel's overlayfs.rst.
"""
