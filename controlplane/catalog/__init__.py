"""Families of models: what they are called, which variants they have, and where the files of those may be. No store."""
