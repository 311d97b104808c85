"""Facts about nodes as they are reported, and what the store wants of them, in memory."""
