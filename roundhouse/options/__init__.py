"""What an engine may be set to, and where it is said: shared by whoever asks, sizes and runs."""
