"""Everything a user can decide: the table of settings, and how their values are written."""

from layerfs.settings.access import ACCESS_ROWS, Access
from layerfs.settings.kinds import FLAG, absolute
from layerfs.settings.table import ROWS, Settings

__all__ = ["ACCESS_ROWS", "FLAG", "ROWS", "Access", "Settings", "absolute"]
