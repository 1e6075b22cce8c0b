"""Models from elsewhere: a user's own networks, diffusers folders and pipelines."""
