"""layerfs: mount OCI image stores as a browsable, verified, overlay-ready tree."""

__version__ = "0.1.0"
