"""What Roundhouse's own processes say to one another."""
