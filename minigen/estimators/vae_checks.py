"""Checks of a VAE's settings and data that concern its likelihood and its bound. They raise ArgumentError."""

from __future__ import annotations

import math
import warnings
from typing import Any

import numpy as np

from minigen import checks
from minigen.backend import Array
from minigen.errors import ArgumentError
from minigen.estimators.trained import ROWS_AT_ONCE
from minigen.models.likelihood import LEARNED, WITH_VARIANCE
from minigen.reference import categorical_loss, gaussian_loss

STEPS_TO_LEARN = 100  # a KL that is small after fewer says nothing: it is small at first
UNUSED_KL = 0.05  # nats: with less, the latent says next to nothing of a row


def variance(model: Any) -> None:
    """A number, or a word of a Gaussian likelihood."""
    if not isinstance(model.variance, str):
        checks.number("variance", model.variance, 0, exclude_low=True)
        if model.likelihood == "mixed":
            checks.number("variance", model.variance, math.exp(gaussian_loss.LOGVAR_LOW))
    elif model.variance not in LEARNED:
        allowed = ", ".join(map(repr, LEARNED))
        raise ArgumentError("variance", f"must be a number above 0 or one of {allowed}, not {model.variance!r}")
    elif model.likelihood not in WITH_VARIANCE:
        known = " and ".join(map(repr, WITH_VARIANCE))
        raise ArgumentError(
            "variance", f"must be a number for likelihood={model.likelihood!r}: only {known} have one to learn"
        )


def bound(model: Any) -> None:
    """What the training maximises."""
    checks.number("kl_warmup", model.kl_warmup, 0)
    checks.number("free_bits", model.free_bits, 0)
    if checks.integer("importance_samples", model.importance_samples, 1) == 1:
        return
    for name, plain in (("beta", 1), ("kl_warmup", 0), ("free_bits", 0)):
        if getattr(model, name) != plain:
            raise ArgumentError(
                name, f"must be {plain} with importance_samples > 1: that bound has no KL term to be weighed"
            )


def blocks(model: Any) -> None:
    """Given for a categorical or mixed likelihood, and for no other."""
    if model.likelihood in ("categorical", "mixed"):
        if model.blocks is None or not checks.widths("blocks", model.blocks):
            raise ArgumentError(
                "blocks", f"must be the widths of the blocks of columns for likelihood={model.likelihood!r}"
            )
    elif model.blocks is not None:
        raise ArgumentError("blocks", f"must be None for likelihood={model.likelihood!r}, not {model.blocks!r}")


def counts(name: str, rows: Array) -> None:
    """Raise ValueError where ``rows``, data of a multinomial likelihood, are grey levels or below 0."""
    if rows.dtype == np.uint8 and rows.max() > 1:
        raise ArgumentError(
            name, "must be counts in float32 or in integers wider than uint8, which is taken as grey levels"
        )
    if rows.min() < 0:
        raise ArgumentError(name, f"must be counts of at least 0 for likelihood='multinomial', not {rows.min()}")


def add_up(blocks: tuple[int, ...], columns: int) -> None:
    if sum(blocks) != columns:
        raise ArgumentError("blocks", f"must add up to the {columns} columns of the data, not to {sum(blocks)}")


def one_hot(name: str, rows: Array, blocks: tuple[int, ...], mixed: bool = False) -> None:
    """Raise ValueError where a row has no single label in a block: its columns must be zeros and a one.

    Of ``mixed`` columns a block of one is a number.
    """
    if mixed and rows.dtype == np.uint8 and rows.max() > 1:
        raise ArgumentError(name, "must be floating for blocks of numbers and labels: uint8 is taken as grey levels")
    one = 255 if rows.dtype == np.uint8 and rows.max() > 1 else 1
    add_up(blocks, rows.shape[1])
    for block in categorical_loss.slices(np.cumsum(blocks)):
        if mixed and block.stop - block.start == 1:
            continue
        for start in range(0, len(rows), ROWS_AT_ONCE):
            piece = rows[start : start + ROWS_AT_ONCE, block]
            bad = ((piece == one).sum(axis=1) != 1) | ((piece == 0).sum(axis=1) != piece.shape[1] - 1)
            if bad.any():
                raise ArgumentError(
                    name,
                    f"must be one-hot in columns {block.start} to {block.stop - 1}, a block of labels, but row "
                    f"{start + int(bad.argmax())} is not",
                )


def warn_of_unused_latent(model: Any) -> None:
    """Warn where a training has left the latent unused."""
    history = model.history_
    if history.steps < STEPS_TO_LEARN or not history.epochs:
        return
    if (kl := history.last_epoch()["kl"]) < UNUSED_KL:
        remedy = "a smaller beta, a larger latent_dim or more epochs"
        if model.likelihood in WITH_VARIANCE and model.variance not in LEARNED:
            remedy = f"variance='learned', a variance smaller than {model.variance:g}, {remedy}"
        warnings.warn(
            f"the KL of the last epoch is {kl:.3g} nats a row: the decoder hardly uses the latent, and samples "
            f"and reconstructions are all near the data's mean. Try {remedy}.",
            UserWarning,
            stacklevel=6,  # of fit or partial_fit
        )
