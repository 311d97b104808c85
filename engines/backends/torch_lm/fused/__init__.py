"""Decoders of the usual shape, computed by a few calls for each layer in place of the modelling code of transformers.

`parts` knows them by their modules, `recognize` by what their code does with these. Whether the whole is right,
`self_test` finds out.
"""
