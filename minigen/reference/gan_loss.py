"""gan_loss: the two players' losses and their gradients, from logits ``s[B,1]``.

A game is three terms, functions of one logit: ``real`` of a real row's and ``fake`` of a generated row's, whose means
the discriminator minimises, and ``generator`` of a generated row's, whose mean the generator minimises::

    discriminator: loss = mean real(s_real) + mean fake(s_fake)     dloss/ds_real = real'(s_real) / n_real
                                                                    dloss/ds_fake = fake'(s_fake) / n_fake
    generator:     loss = mean generator(s)                         dloss/ds      = generator'(s) / B

Goodfellow et al. 2014, equation 1: D maximises, and G minimises ::

    V = E_real[log D(x)] + E_fake[log(1 - D(G(z)))],   D = sigmoid(s)

Both logarithms are softplus of the logit, ``softplus(a) = log(1 + e^a)``, and so need no sigmoid and no clipping::

    log D       = log(1 / (1 + e^-s))    = -softplus(-s)
    log (1 - D) = log(e^-s / (1 + e^-s)) = -softplus(s)

The discriminator minimises ``-V``. With ``softplus' = sigmoid``::

    real = softplus(-s)     real' = -sigmoid(-s)      ( = D - 1, without the cancellation near D = 1)
    fake = softplus(s)      fake' =  sigmoid(s)

``minimax`` (equation 1): the generator minimises the term of V that it reaches. Its gradient is nothing where D rejects
G. ``non_saturating`` (section 3): it maximises log D instead; same fixed point, strong gradient early on::

    minimax:        generator = log(1 - D) = -softplus(s)     generator' = -sigmoid(s)
    non_saturating: generator = -log D     =  softplus(-s)    generator' = -sigmoid(-s)

``least_squares`` (Mao et al. 2017, equation 9, with labels 1 for real and 0 for generated): D's logit is regressed on
the label, and the generator wants the label of real rows::

    real = (s - 1)^2 / 2    real' = s - 1
    fake = s^2 / 2          fake' = s
    generator = real

``hinge`` (Lim and Ye 2017, equations 8 and 9): D stops where a row is on the right side with a margin of 1; the
generator raises its rows' logits. At the kink the derivative is taken as 0::

    real = max(0, 1 - s)    real' = -1 where s < 1, else 0
    fake = max(0, 1 + s)    fake' =  1 where s > -1, else 0
    generator = -s          generator' = -1
``wasserstein`` (Arjovsky, Chintala and Bottou 2017, algorithm 1): D, whose weights are clipped, is as much larger on
real rows than on generated ones as it can be, which estimates a distance; the generator wants it large on its own::

    real = -s               real' = -1
    fake = s                fake' =  1
    generator = real

Label smoothing (Salimans et al. 2016, section 3.4), one-sided: a real row counts as generated with weight ``a``. Its
term is ``(1 - a) real + a fake``, and so is the derivative. With the logarithms of Goodfellow et al. this is the cross
entropy with the label ``1 - a`` in place of 1.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from minigen import checks
from minigen.reference.activations import sigmoid, softplus
from minigen.reference.underflow import small_is_zero

Term = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]
"""From logits of any shape to the term and its derivative, of that shape."""


class Game(NamedTuple):
    """The terms of a loss."""

    real: Term
    fake: Term
    generator: Term


def _minus_log_d(s: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return softplus(-s), -sigmoid(-s)


def _minus_log_not_d(s: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return softplus(s), sigmoid(s)


def _log_not_d(s: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return -softplus(s), -sigmoid(s)


def _square_to_one(s: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return (s - 1) ** 2 / 2, s - 1


def _square_to_zero(s: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return s**2 / 2, s


def _below_one(s: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return np.maximum(1 - s, 0), -np.heaviside(1 - s, 0)  # a NaN stays one


def _above_minus_one(s: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return np.maximum(1 + s, 0), np.heaviside(1 + s, 0)


def _plus(s: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return s.copy(), np.ones_like(s)


def _minus(s: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return -s, -np.ones_like(s)


GAMES = {
    "non_saturating": Game(_minus_log_d, _minus_log_not_d, _minus_log_d),
    "minimax": Game(_minus_log_d, _minus_log_not_d, _log_not_d),
    "least_squares": Game(_square_to_one, _square_to_zero, _square_to_one),
    "hinge": Game(_below_one, _above_minus_one, _minus),
    "wasserstein": Game(_minus, _plus, _minus),
}
GAN_LOSSES = tuple(GAMES)


@small_is_zero
def discriminator(
    logits: np.ndarray, n_real: int, kind: str = "non_saturating", smoothing: float = 0.0
) -> tuple[np.floating, np.ndarray]:
    """Loss and ``dlogits[B,1]``; the first ``n_real`` rows of ``logits[B,1]`` are real, the others generated.

    Raises ValueError unless there is at least one row of each, and for an unknown ``kind``.
    """
    game = GAMES[checks.choice("kind", kind, GAN_LOSSES)]
    if not 0 < n_real < len(logits):
        raise ValueError(
            f"n_real must leave a real and a generated row, 1 to {len(logits) - 1} of {len(logits)}, not {n_real}"
        )
    real, dreal = game.real(logits[:n_real])
    if smoothing:
        other, dother = game.fake(logits[:n_real])
        real, dreal = (1 - smoothing) * real + smoothing * other, (1 - smoothing) * dreal + smoothing * dother
    fake, dfake = game.fake(logits[n_real:])
    return real.mean() + fake.mean(), np.concatenate([dreal / len(real), dfake / len(fake)])


@small_is_zero
def generator(logits: np.ndarray, kind: str = "non_saturating") -> tuple[np.floating, np.ndarray]:
    """Loss and ``dlogits[B,1]`` from the logits ``[B,1]`` that D gives to generated rows.

    Raises ValueError for an unknown ``kind`` and for ``B = 0``.
    """
    game = GAMES[checks.choice("kind", kind, GAN_LOSSES)]
    if len(logits) == 0:
        raise ValueError("logits has no rows, the mean loss of nothing is not defined")
    term, derivative = game.generator(logits)
    return term.mean(), derivative / len(logits)
