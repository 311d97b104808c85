"""Decides what runs where, and relays requests to it."""
