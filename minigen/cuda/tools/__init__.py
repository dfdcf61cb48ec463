"""What people run to look at a step, its kernels and their speed. Nothing that trains or samples imports this."""
