"""Everything a user can decide: the table of settings, and how their values are written."""

from layerfs.settings.kinds import FLAG, absolute
from layerfs.settings.table import ROWS, Settings

__all__ = ["FLAG", "ROWS", "Settings", "absolute"]
