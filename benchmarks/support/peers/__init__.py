"""One program for each engine that is measured; each runs in an environment of its own."""
