"""The services that clients and agents call."""
