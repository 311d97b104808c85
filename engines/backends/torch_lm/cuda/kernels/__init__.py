"""Attention over the paged cache as Triton kernels. The only door to Triton, and imported only where a GPU computes."""
