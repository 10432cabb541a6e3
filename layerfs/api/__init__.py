"""What programs import: a store, its images, and their files, in three faces of one implementation.

`layerfs.api.on_trio` is the implementation. `layerfs.api.blocking`, which `layerfs` re-exports, and
`layerfs.api.on_asyncio` have the same names; both run it in a thread of their own (`layerfs.api.portal`).
Errors are those of `layerfs.errors`, and the OSError that Python has for a path that is not there. Nothing
here reads a terminal or configures logging.
"""
