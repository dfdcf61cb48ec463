"""One training step watched: every operation with its formula, numbers, and the line that calls it."""
