"""Computes: one process, one model, one gRPC server, one step thread."""
