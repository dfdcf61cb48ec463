"""Checks of a GAN's settings and data. They raise ArgumentError."""

from __future__ import annotations

from typing import Any

from minigen import checks
from minigen.backend import Array
from minigen.errors import ArgumentError
from minigen.estimators import vae_checks
from minigen.estimators.game import check_game
from minigen.estimators.scaling import RANGES
from minigen.models.conditional import CONDITIONINGS

MOST_REJECTED = 0.5 + 1e-9  # more would leave a draw of many samples with some that are rejected each time


def settings(gan: Any) -> None:
    """What ``fit`` asks for beside what every estimator has."""
    checks.widths("hidden", gan.hidden)
    if gan.hidden_discriminator is not None:
        checks.widths("hidden_discriminator", gan.hidden_discriminator)
    if gan.maxout is not None:
        checks.integer("maxout", gan.maxout, 2)
    checks.choice("spectral_norm", gan.spectral_norm, (True, False))
    checks.choice("output", gan.output, ("auto", *RANGES))
    if gan.blocks is not None and not checks.widths("blocks", gan.blocks):
        raise ArgumentError("blocks", "must be the widths of the blocks of columns, or None")
    checks.number("temperature", gan.temperature, 0, exclude_low=True)
    check_game(gan)
    checks.choice("conditioning", gan.conditioning, CONDITIONINGS)
    checks.number("ema", gan.ema, 0, 1)
    checks.number("latent_std", gan.latent_std, 0, exclude_low=True)
    checks.number("reject", gan.reject, 0, MOST_REJECTED)
    if gan.reject and gan.pack > 1:
        raise ArgumentError("reject", f"must be 0 with pack={gan.pack}: the discriminator judges no sample by itself")
    if gan.batch_size % checks.integer("pack", gan.pack, 1):
        raise ArgumentError("batch_size", f"must be a multiple of pack={gan.pack}, not {gan.batch_size}")


def learning_rate(gan: Any) -> None:
    """Where it is a pair."""
    if len(gan.learning_rate) != 2:
        raise ArgumentError("learning_rate", f"must be a number or a pair of them, not {gan.learning_rate!r}")
    for i, rate in enumerate(gan.learning_rate):
        checks.number(f"learning_rate[{i}]", rate, 0, exclude_low=True)


def table(gan: Any, rows: Array, scale: float) -> None:
    """Rows of numbers and labels in ``gan.blocks``, which the model is to see times ``scale``."""
    vae_checks.one_hot("X", rows, checks.widths("blocks", gan.blocks), mixed=True)
    if scale != 1:
        raise ArgumentError("output", "must be 'sigmoid' or 'auto' for zeros and ones in blocks, as labels stay these")
