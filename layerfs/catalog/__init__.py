"""Which document names what: images, layers and stacks by digest and id, and what a store holds for whom.

Asks the store alone and never waits: what it lacks is answered with a `layerfs.needs.Need`. One walk goes
from the refs over the documents to the layers (`layerfs.oci.descent`).
"""
