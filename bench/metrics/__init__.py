"""Measures: what is measured on samples, one family of metrics a file."""
