"""The public contract: stubs generated from `protos/roundhouse/v1` by `make protos`."""
