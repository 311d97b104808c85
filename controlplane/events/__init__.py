"""What happened: told from what is seen before and after, and kept within bounds. Pure."""
