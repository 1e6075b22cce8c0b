"""What stands behind a store: parts of samples, claims of processes, and commands over whole stores."""
