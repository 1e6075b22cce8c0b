"""What users bring along: Python that they name, and packages that they install."""
