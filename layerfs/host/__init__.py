"""This machine: mount(2), mountinfo, other processes, syncfs, readiness. The only place for ctypes.

Imports nothing of layerfs but errors and the text of an overlay's options.
"""

from layerfs.host.kernel import boot_id, syncfs

__all__ = ["boot_id", "syncfs"]
