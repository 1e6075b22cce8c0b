"""Real images and reference statistics."""
