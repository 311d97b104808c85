"""What computes on an NVIDIA GPU: Triton kernels, CUDA graphs, and a runner one step ahead of its answers."""
