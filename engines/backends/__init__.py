"""What computes: one package for each kind of model and library."""
