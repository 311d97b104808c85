"""What a CPU computes between the linear layers: attention over the paged cache, norms, rotations, activations.

`interface` says what there is, `reference` is plain torch, `native` the same in C, `choose` picks.
"""
