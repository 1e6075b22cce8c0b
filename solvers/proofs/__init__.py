"""Proofs of solvers: order, evaluations, table, parity with official code."""
