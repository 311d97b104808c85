"""Causal language models of Hugging Face, computed by torch through a paged KV cache. The only door to torch."""
