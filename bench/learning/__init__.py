"""What is learned from a model: tables of solvers, noise-data pairs, and networks."""
