"""``z = mu + sigma eps`` with ``sigma = exp(logvar / 2)``. The loss is what the decoder makes of ``z``, whose gradient
``dz`` is given, plus the mean over the B rows of the divergence of exercise ``kl``.

Both parts have a gradient by ``mu`` and one by ``logvar``.
"""

import numpy as np  # noqa: F401 (your lines use it)


def latent_gradients(dz, eps, mu, logvar):
    """``dmu[B,L]`` and ``dlogvar[B,L]``, all arguments ``[B,L]``."""
    raise NotImplementedError
