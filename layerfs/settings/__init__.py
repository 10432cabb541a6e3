"""Everything a user can decide: the table of settings, and how their values are written."""

from layerfs.settings.access import ACCESS_ROWS, Access
from layerfs.settings.address import Address
from layerfs.settings.kinds import FLAG, absolute
from layerfs.settings.serving import SERVE_ROWS, Audience, ServeSettings
from layerfs.settings.table import ROWS, Settings

__all__ = [
    "ACCESS_ROWS",
    "FLAG",
    "ROWS",
    "SERVE_ROWS",
    "Access",
    "Address",
    "Audience",
    "ServeSettings",
    "Settings",
    "absolute",
]
