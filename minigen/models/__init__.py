"""Networks, and the training step of each model spelled out over a backend."""
