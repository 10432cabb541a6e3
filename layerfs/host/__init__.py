"""This machine: mount(2), mountinfo, other processes, syncfs, readiness. The only place for ctypes.

Imports nothing of layerfs but errors; the store, the kernel edge and the command line call it.
"""

from layerfs.host.boot import boot_id
from layerfs.host.syncfs import syncfs

__all__ = ["boot_id", "syncfs"]
