"""Claims: several processes on one store share its work without asking one another."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

__all__ = ["claimed"]


@contextmanager
def claimed(file: Path) -> Iterator[bool]:
    """True for the one that has the lock on a file, False for all others meanwhile; nobody waits.

    The system frees the lock when its process ends, however it ends; the file is removed after. Where a file cannot
    be made, or its file system knows no locks, everybody has it: work is then done twice, and no number changes.
    """
    descriptor = -1
    try:
        descriptor, mine = _taken(file), True
    except BlockingIOError:
        mine = False
    except OSError:
        mine = True
    try:
        yield mine
    finally:
        if descriptor >= 0:
            with suppress(OSError):
                file.unlink()  # under the lock: nobody has claimed this file since
            os.close(descriptor)


def _taken(file: Path) -> int:
    """The descriptor of the locked file; raises BlockingIOError where another has it."""
    while True:
        file.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            _lock(descriptor)
            if os.path.samestat(os.fstat(descriptor), file.stat()):
                return descriptor
        except FileNotFoundError:  # who had it has just removed it
            pass
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)


def _lock(descriptor: int) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise
    except OSError:  # no locks here
        pass
