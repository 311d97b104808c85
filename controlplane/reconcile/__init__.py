"""Moves the fleet towards what is wanted."""
