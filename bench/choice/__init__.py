"""Which sampler to use where little was tried: what is left to try, and a race of it."""
