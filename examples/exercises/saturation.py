"""Two losses for one generator, from the logits ``s`` that the discriminator gives to generated rows:

minimax:         mean(log(1 - D))      the generator makes the discriminator's gain small
non-saturating:  -mean(log D)          the generator makes D large

with ``D = 1 / (1 + exp(-s))``. Both want the same. Compute both gradients by ``s``, and see what is left of them where
the discriminator is sure that the rows are generated, at ``s = -10``.
"""

import numpy as np  # noqa: F401 (your lines use it)


def generator_gradients(s):
    """``dminimax[B,1]`` and ``dnon_saturating[B,1]``, the gradients of the two losses by ``s[B,1]``."""
    raise NotImplementedError
