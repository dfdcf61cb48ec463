"""The reference in NumPy. Each module is one operation: the derivation of its formulas, and under it the formulas."""
