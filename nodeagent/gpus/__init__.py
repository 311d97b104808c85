"""Measures the GPUs of this node, real or simulated, and its host. `nvml` is the only door to the driver."""
