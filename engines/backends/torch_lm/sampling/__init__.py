"""Chooses tokens, and tells how likely tokens were. What a row gives depends on that row alone, never on the batch."""
