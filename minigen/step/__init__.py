"""A training step as data: recorded, its dependencies found, fused; for the CPU and for CUDA."""
