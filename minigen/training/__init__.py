"""The loop around the steps, the record of losses, and model files."""
