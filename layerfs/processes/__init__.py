"""A helper process of layerfs: how it is started, spoken to, told to stop, and how its death is noticed.

Knows no message that means something: `layerfs.extract` and `layerfs.fetch` bring what is asked and answered.

Both kinds of helpers share `spawning`, which starts Python on one module of this layerfs and says how a
process ended, and `frames`, the form of a message on a pipe or socket; an error crosses by the name of its
class in `layerfs.errors`. `asking` and `answering` are the two ends of a helper that answers many questions
at once over a socket. A helper ends when its channel does, whatever it is doing: that is how it learns that
its owner is gone, and why none outlives one.
"""
