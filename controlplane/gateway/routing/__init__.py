"""What decides which replica a request goes to. Pure: facts, times and random numbers come in."""
