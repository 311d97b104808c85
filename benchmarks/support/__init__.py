"""What the benchmarks share: models, loads, figures, and how peers are run."""
