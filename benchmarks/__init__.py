"""Measures Roundhouse, and what others have, on one machine."""
