"""The generator's last layer is ``g = tanh(a)``. The discriminator, ``k = relu(g V1 + c1)`` and ``s = k V2 + c2``, says
what it thinks of ``g``, and the generator's loss is ``mean(log(1 + exp(-s)))``.

How does the loss change with ``a``? Go back step by step: ds, dk, through the relu, dg, through the tanh. The
discriminator's weights stay as they are, so nobody needs their gradients.
"""

import numpy as np  # noqa: F401 (your lines use it)


def gradient_through_discriminator(g, V1, c1, V2, c2):
    """``da[B,D]``, from ``g[B,D]``, ``V1[D,H]``, ``c1[H]``, ``V2[H,1]`` and ``c2[1]``."""
    raise NotImplementedError
