"""latent: the reparameterised sample ``z`` of a VAE's encoder and its KL divergence to the prior N(0, I).

The encoder's last layer gives ``heads[B,2L] = [mu | h]``, and ``q(z|x) = N(mu, diag(sigma^2))`` with
``logvar = min(h, 40)`` and ``sigma = exp(logvar / 2)``. Kingma and Welling 2014, section 2.4 and appendix B:

Forward, with ``eps ~ N(0, I)`` given::

    z    = mu + sigma eps
    rows = KL(q || N(0, I)) = 1/2 sum_j (mu_j^2 + sigma_j^2 - 1 - logvar_j)      nats, a value a row
    loss = mean of rows

The bound is part of the model: float32 has no ``exp(89)``, and a row far from all of the training data easily makes an
``h`` of hundreds, whose KL would be infinite and whose decoder would compute ``inf - inf``. At 40 a standard deviation
is 5e8 times the prior's, far beyond any that a training settles at, while sums of ``sigma^2`` = 2e17 and squares of
``z`` stay far below 3e38. Below, nothing is bounded: ``exp`` goes to 0 and the KL grows like ``-logvar / 2``.

The KL is ``E_q[log q(z) - log p(z)]``, a sum over j since both are products. ``log 2 pi`` drops out, and the
expectations ``E_q[((z_j - mu_j) / sigma_j)^2] = 1`` and ``E_q[z_j^2] = mu_j^2 + sigma_j^2`` leave ``rows``::

    log q - log p = 1/2 sum_j (z_j^2 - ((z_j - mu_j) / sigma_j)^2 - logvar_j)

``sigma^2 - 1`` is ``expm1(logvar)``, which keeps the digits when the encoder stays near the prior.

Backward. The total is ``R(z) + sum_j w_j KL_j``, where ``dz = dR/dz`` comes from the decoder, ``KL_j`` is the mean over
the rows of latent j's part, and ``w_j`` is beta (Higgins et al. 2017; 1 gives the ELBO), or 0 for a latent within its
free bits. With ``dz/dmu = 1`` and ``dz/dlogvar = eps sigma / 2`` (as ``dsigma/dlogvar = sigma / 2``), the derivatives
``mu`` and ``(sigma^2 - 1) / 2`` of a row's KL, and ``1/B`` from the mean::

    dmu     = dz             + w mu / B
    dlogvar = dz eps sigma/2 + w (sigma^2 - 1) / (2 B)
    dh      = dlogvar where h <= 40, else 0             as dlogvar/dh is 1 below the bound and 0 above it

Free bits (Kingma et al. 2016, equation 15): each latent may have ``lambda`` nats at no cost, on the mean of the batch::

    penalty = beta sum_j max(lambda, KL_j)
    w_j     = beta where KL_j > lambda, else 0     as the derivative of max(lambda, k) is 1 or 0

With ``lambda = 0`` that is ``beta loss`` and its gradient: a KL is at least 0, and where it is 0 so is its gradient.

Warm-up (Bowman et al. 2016; Sonderby et al. 2016): beta grows linearly with the steps, from 0 at the first to its value
at the end of the warm-up, so that the decoder learns to use the latent before that costs.
"""

from __future__ import annotations

import numpy as np

from .underflow import small_is_zero

LOGVAR_LIMIT = 40.0
"""The largest log variance of ``q``."""


@small_is_zero
def forward(heads: np.ndarray, eps: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.floating]:
    """``z[B,L]``, ``rows[B]`` (KL in nats) and their mean, from ``heads[B,2L]`` and ``eps[B,L]``.

    Raises ValueError for ``B = 0``.
    """
    if len(heads) == 0:
        raise ValueError("heads has no rows, the mean KL of nothing is not defined")
    mu, logvar = posterior(heads)
    z = mu + np.exp(logvar / 2) * eps
    rows = (mu * mu + np.expm1(logvar) - logvar).sum(axis=1) / 2
    return z, rows, rows.mean()


@small_is_zero
def backward(dz: np.ndarray, heads: np.ndarray, eps: np.ndarray, weights: np.ndarray | float) -> np.ndarray:
    """``dheads[B,2L]``, the gradient of (the loss behind ``dz[B,L]``) + the mean KL of each latent times
    ``weights[L]``, or one number for all."""
    mu, logvar = posterior(heads)
    B = len(heads)
    dmu = dz + weights * mu / B
    dlogvar = dz * eps * np.exp(logvar / 2) / 2 + weights * np.expm1(logvar) / (2 * B)
    dh = np.where(split(heads)[1] > LOGVAR_LIMIT, 0, dlogvar)
    return np.concatenate([dmu, dh], axis=1)


@small_is_zero
def kl_weights(heads: np.ndarray, beta: float, free_bits: float) -> tuple[np.ndarray, np.floating]:
    """``weights[L]`` for :func:`backward`, and the penalty, with ``free_bits`` nats a latent; ``heads[B,2L]``.

    Raises ValueError for ``B = 0``.
    """
    if len(heads) == 0:
        raise ValueError("heads has no rows, the mean KL of nothing is not defined")
    mu, logvar = posterior(heads)
    kl = (mu * mu + np.expm1(logvar) - logvar).mean(axis=0) / 2
    weights = np.where(kl <= free_bits, 0, np.asarray(beta, heads.dtype))
    return weights, beta * np.maximum(kl, np.asarray(free_bits, heads.dtype)).sum()


def ramp(step: int, high: float, steps: int) -> float:
    """From 0 at step 0 linearly to ``high`` at ``steps``, and ``high`` from then on."""
    return high * min(1.0, step / steps)


def posterior(heads: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """``mu[B,L]``, a view, and the bounded ``logvar[B,L]`` of ``q(z|x)``, from ``heads[B,2L]``. NaN stays NaN."""
    mu, h = split(heads)
    return mu, np.minimum(h, LOGVAR_LIMIT)


def split(heads: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The views ``mu[B,L]`` and ``h[B,L]``, the log variance before its bound, of ``heads[B,2L]``."""
    L = heads.shape[1] // 2
    return heads[:, :L], heads[:, L:]
