"""Networks, and the training step of each model, call by call."""
