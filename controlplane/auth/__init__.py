"""Who calls, and what they may do: tokens, roles, certificates of nodes, and one table of all methods."""
