"""Public checkpoints: cards, safe readers, conversion to safetensors."""
