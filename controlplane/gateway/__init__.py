"""Passes requests through: picks a ready replica, relays bytes, carries deadlines and cancels to the engine."""
