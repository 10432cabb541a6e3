"""What may go from a store, and its going.

`plan` decides from an inventory and does no I/O. `collect` carries it out: it sets things aside, looks at
their users again and deletes then (`layerfs.store.removing`). A root is what a person or a program asked to
keep: a ref, a lease, whatever a mount uses. All else is garbage.
"""
