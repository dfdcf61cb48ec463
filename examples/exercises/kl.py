"""A VAE's encoder says ``q = N(mu, sigma^2)`` of each latent, and gives ``mu`` and ``logvar = log(sigma^2)``. The prior
is ``N(0, 1)``. The divergence of ``q`` from it is the mean, over z drawn from q, of ``log q(z) - log prior(z)``. With
``E[z^2] = mu^2 + sigma^2`` it has a closed form. Sum it over the latents of a row.
"""

import numpy as np  # noqa: F401 (your lines use it)


def kl(mu, logvar):
    """``rows[B]``, the divergence of each row in nats, from ``mu[B,L]`` and ``logvar[B,L]``."""
    raise NotImplementedError
