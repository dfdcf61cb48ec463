"""gan_loss: the two players' losses and their gradients, from logits ``s[B,1]`` where ``D(x) = sigmoid(s)``.

Goodfellow et al. 2014, equation 1: D maximises, and G minimises::

    V = E_real[log D(x)] + E_fake[log(1 - D(G(z)))]

Both logarithms are softplus of the logit, with ``softplus(a) = log(1 + e^a)``, and so need no sigmoid and no clipping::

    log D       = log(1 / (1 + e^-s))    = -softplus(-s)
    log (1 - D) = log(e^-s / (1 + e^-s)) = -softplus(s)

Discriminator: minimise ``-V``, the mean over ``n_real`` real and ``n_fake`` generated rows. With
``softplus' = sigmoid``::

    loss = mean softplus(-s_real) + mean softplus(s_fake)
    dloss/ds_real = -sigmoid(-s_real) / n_real         ( = (D - 1) / n_real, without the cancellation near D = 1)
    dloss/ds_fake =  sigmoid( s_fake) / n_fake

Generator, ``minimax`` (equation 1): the term of V that G reaches. Its gradient, D / B in size, is nothing where D
rejects G::

    loss = mean log(1 - D) = -mean softplus(s)         dloss/ds = -sigmoid(s) / B

Generator, ``non_saturating`` (section 3: maximise log D instead; same fixed point, strong gradient early on)::

    loss = -mean log D = mean softplus(-s)             dloss/ds = -sigmoid(-s) / B
"""

from __future__ import annotations

import numpy as np

from .. import checks
from ..backend import GAN_LOSSES
from .activations import sigmoid, softplus
from .underflow import small_is_zero


def check(kind: str) -> None:
    """Raise ValueError, listing the known names, unless ``kind`` is a generator loss."""
    checks.choice("kind", kind, GAN_LOSSES)


@small_is_zero
def discriminator(logits: np.ndarray, n_real: int) -> tuple[np.floating, np.ndarray]:
    """Loss (nats) and ``dlogits[B,1]``; the first ``n_real`` rows of ``logits[B,1]`` are real, the others generated.

    Raises ValueError unless there is at least one row of each.
    """
    if not 0 < n_real < len(logits):
        raise ValueError(
            f"n_real must leave a real and a generated row, 1 to {len(logits) - 1} of {len(logits)}, got {n_real}"
        )
    real, fake = logits[:n_real], logits[n_real:]
    loss = softplus(-real).mean() + softplus(fake).mean()
    dlogits = np.concatenate([-sigmoid(-real) / len(real), sigmoid(fake) / len(fake)])
    return loss, dlogits


@small_is_zero
def generator(logits: np.ndarray, kind: str = "non_saturating") -> tuple[np.floating, np.ndarray]:
    """Loss (nats) and ``dlogits[B,1]`` from the logits ``[B,1]`` that D gives to generated rows.

    Raises ValueError for an unknown ``kind`` and for ``B = 0``.
    """
    check(kind)
    if len(logits) == 0:
        raise ValueError("logits has no rows, the mean loss of nothing is not defined")
    if kind == "minimax":
        return -softplus(logits).mean(), -sigmoid(logits) / len(logits)
    return softplus(-logits).mean(), -sigmoid(-logits) / len(logits)
