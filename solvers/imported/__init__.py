"""Published coefficients of learned solvers: their files, read without executing them, and the tables these make."""
