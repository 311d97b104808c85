"""Keeps what must survive: keys with values and revisions, changed by compare-and-swap, watched from a revision on."""
