"""What on this machine helps layerfs, or stands in its way: looked at or tried, never guessed by versions.

A check gives `Observation`s: ok, a warning (something cannot be had) or a failure (nothing works), with the
command that mends it. Nothing here changes the machine or the store.
"""
