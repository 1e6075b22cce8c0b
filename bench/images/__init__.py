"""Images that no sampler here has drawn: their metrics, and their way to noise and back."""
