"""Finds out about models on this node without loading them, and without torch."""
