"""The command line in this process, as a user calls it."""

import io
import sys
from contextlib import redirect_stderr, redirect_stdout
from typing import NamedTuple
from unittest import mock

from fastsample.bench.cli.app import main


class Ended(NamedTuple):
    """How a command ended, and what it printed."""

    code: int
    out: str
    err: str


def command(*words):
    """Run `fastsample WORDS...`; what it prints is printed here too."""
    out, err, code = io.StringIO(), io.StringIO(), 0
    with mock.patch.object(sys, "argv", ["fastsample", *map(str, words)]), redirect_stdout(out), redirect_stderr(err):
        try:
            main()
        except SystemExit as end:
            code = end.code or 0
    print(out.getvalue(), end="")
    print(err.getvalue(), end="", file=sys.stderr)
    return Ended(code, out.getvalue(), err.getvalue())
