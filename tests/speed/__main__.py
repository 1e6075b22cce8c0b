"""Measures every subject and prints docs/speed.md: `make speed`."""

import torch
from printer import page

torch.set_num_threads(1)

import arithmetic  # noqa: E402
import distance  # noqa: E402
import job  # noqa: E402
import startup  # noqa: E402

SUBJECTS = (startup, job, arithmetic, distance)

print(page(line for subject in SUBJECTS for line in subject.lines()), end="")
