"""The kernel edge: FUSE requests on nodes, waits, errnos. The only place for pyfuse3.

Translates and waits, decides nothing about the tree. Called by `layerfs.app` through `session.serve`.
"""
