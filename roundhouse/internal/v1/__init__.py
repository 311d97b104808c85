"""The contract between our own processes: stubs generated from `protos/roundhouse/internal/v1` by `make protos`."""
