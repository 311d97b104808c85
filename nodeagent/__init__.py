"""Makes one machine run what the control plane assigned to it, and reports what it sees."""
