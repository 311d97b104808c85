"""Chooses the GPU of each replica. Pure: the same facts give the same answer."""
