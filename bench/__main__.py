"""`python -m fastsample.bench`, which torchrun can start."""

from fastsample.bench.cli.app import main

main()
