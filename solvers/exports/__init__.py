"""Coefficient tables in other programs: a diffusers scheduler, a file of torch code.

These modules are not imported with the solvers: `diffusers` needs an extra.
"""
