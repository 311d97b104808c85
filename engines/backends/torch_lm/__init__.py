"""Causal language models of Hugging Face, computed by torch through a paged KV cache. The only door to torch."""

import os

# torch's threads would spin for milliseconds after each of its loops, and keep their cores from those of our kernels.
# It is read when torch is imported for the first time.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
