"""What engines write: kept within bounds, and read by the line. Knows no wire but the lines themselves."""
