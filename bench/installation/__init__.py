"""What is installed here: the code and its commit, the device, weights, the cache."""
