"""What the mount looks like: nodes, inodes, trees. Knows no FUSE and no network."""
