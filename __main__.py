"""`python -m fastsample`, the command line; torchrun can start it."""

from fastsample.bench.cli.app import main

main()
