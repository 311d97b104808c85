"""The engine's gRPC side: takes requests in, hands tokens out, and proves what a cancel freed. Computes nothing."""
