"""What a GAN's training may have come to that is of no use, told by a figure."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np

from minigen.backend import Array
from minigen.reference import random
from minigen.reference.gan_loss import GAMES

STEPS_TO_LEARN = 500  # after fewer, samples may still be all alike, or the discriminator ahead
DRAWN = 256
LEAST_VARIANCE = 0.05  # of the data's: with less, samples are nearly the same
WON = 0.02  # of the discriminator's loss where it cannot tell real from generated


def warn_of_collapse(gan: Any, rows: Array, codes: np.ndarray | None) -> None:
    """Where samples vary far less than the ``rows`` of the training, whose conditions are ``codes``."""
    if gan.history_.steps < STEPS_TO_LEARN:
        return
    chosen = np.linspace(0, len(rows) - 1, min(DRAWN, len(rows))).astype(int)
    z = gan._normal((len(chosen), gan._frozen["latent_dim"]), gan.seed, random.SAMPLE)
    made = gan._apply(gan._generator(None), z, None if codes is None else codes[chosen])
    scale = gan.scale_ if rows.dtype == np.uint8 else 1.0
    share = float(made.var(axis=0).sum()) / max(float(rows[chosen].var(axis=0).sum()) * scale**2, 1e-12)
    if share < LEAST_VARIANCE:
        _warn(
            f"mode collapse: the variance of the samples is {share:.2g} of that of the data, so they are nearly all "
            "the same. Try another seed, a smaller learning_rate, pack, r1 or gradient_penalty."
        )


def warn_of_a_win(gan: Any) -> None:
    """Where the discriminator hardly errs any more, and so hardly says what to change."""
    history, terms = gan.history_, GAMES[gan.loss]
    if history.steps < STEPS_TO_LEARN or not history.epochs or gan.loss == "wasserstein":  # that one has no least loss
        return
    undecided = np.zeros(1)
    at_a_tie = float(terms.real(undecided)[0][0] + terms.fake(undecided)[0][0])
    losses = history.last_epoch()
    if losses["discriminator"] < WON * at_a_tie:
        _warn(
            f"the discriminator has won: its loss in the last epoch is {losses['discriminator']:.2g}, where it is "
            f"{at_a_tie:.3g} if it cannot tell real from generated, and the generator's is "
            f"{losses['generator']:.3g}: the generator learns little from it. Try a smaller learning_rate or "
            "hidden_discriminator, dropout, label_smoothing, r1 or instance_noise."
        )


def _warn(text: str) -> None:
    warnings.warn(text, UserWarning, stacklevel=7)  # of fit
