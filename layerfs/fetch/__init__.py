"""Make it exist, once: single flight, downloads, extraction, covers. Where registry and store meet.

Runs on trio. Called by the kernel edge through `layerfs.needs.Provider` and by the command line.
"""

from layerfs.fetch.progress import Failure, Journal, Progress
from layerfs.fetch.provider import Provider, open_provider

__all__ = ["Failure", "Journal", "Progress", "Provider", "open_provider"]
