"""The command line: every command is a few lines over a function that a notebook can call."""
