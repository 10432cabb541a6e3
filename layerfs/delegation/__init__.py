"""A command has a daemon of the same store do its work: what they say to each other, and who is believed.

`wire` is the format, `places` where sockets are, `asking` the command's end, `listening` the daemon's, and
`peers` what the kernel says of who asks. What is asked for is in `layerfs.cli`: this room moves bytes.

`wire`, `places` and `asking` import next to nothing: a command asks before it imports what it would need to
do the work itself.
"""
