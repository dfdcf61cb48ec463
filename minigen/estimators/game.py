"""The settings of a GAN's game: what they may be, and what the training step makes of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from minigen import checks
from minigen.backend import GAN_LOSSES
from minigen.errors import ArgumentError
from minigen.models.layers import Layer
from minigen.models.penalty import check_layers


def check_game(gan: Any) -> None:
    """Raise for a bad setting, or for two that make no sense together."""
    checks.choice("loss", gan.loss, GAN_LOSSES)
    checks.number("r1", gan.r1, 0)
    checks.number("gradient_penalty", gan.gradient_penalty, 0)
    if gan.r1 and gan.gradient_penalty:
        raise ArgumentError("gradient_penalty", "must be 0 with r1, which is a penalty on the same gradient")
    checks.integer("n_critic", gan.n_critic, 1)
    checks.number("weight_clip", gan.weight_clip, 0)
    checks.number("label_smoothing", gan.label_smoothing, 0, 1)
    if gan.label_smoothing and gan.loss == "wasserstein":
        raise ArgumentError("label_smoothing", "must be 0 with loss='wasserstein', which has no labels")
    checks.number("instance_noise", gan.instance_noise, 0)
    checks.choice("instance_noise_decay", gan.instance_noise_decay, (True, False))


def check_penalty(gan: Any, discriminator: Sequence[Layer]) -> None:
    """Raise where a discriminator of these layers cannot have the penalty that is asked for."""
    for name in ("r1", "gradient_penalty"):
        if getattr(gan, name):
            check_layers(name, discriminator)


def check_rows(gan: Any, rows: int) -> None:
    """Raise where the data have fewer rows than one step takes."""
    if rows < gan.n_critic * gan.batch_size:
        taken = f"{gan.n_critic} x {gan.batch_size}"
        raise ArgumentError("n_critic", f"times batch_size must be at most the {rows} rows, not {taken}")


def game(gan: Any, rows: int) -> dict[str, Any]:
    """The settings as :class:`minigen.models.gan.GanStep` takes them, for data of ``rows`` rows."""
    steps = gan.epochs * (rows // (gan.n_critic * gan.batch_size))
    names = ("loss", "r1", "gradient_penalty", "n_critic", "weight_clip", "label_smoothing", "instance_noise")
    chosen = {name: getattr(gan, name) for name in names}
    return {**chosen, "noise_steps": max(1, steps) if gan.instance_noise_decay else 0}
