"""Small models and data for the tests of whole steps and trainings."""

from __future__ import annotations

from typing import Any

import numpy as np

from minigen.models.gan import GanStep
from minigen.models.gumbel_softmax import with_labels
from minigen.models.hidden import dense_layers
from minigen.models.iwae import IwaeStep
from minigen.models.likelihood import LEARNED, LogVariance
from minigen.models.network import Network
from minigen.models.optimizer import Average, OptimizerSettings
from minigen.models.vae import VaeStep
from minigen.training.run import TrainingRun


def blobs(rows: int = 200, columns: int = 12, seed: int = 0) -> np.ndarray:
    """uint8 rows around four centres: something that a small model can learn."""
    rng = np.random.default_rng(seed)
    centres = rng.integers(30, 226, (4, columns))
    noisy = centres[rng.integers(0, 4, rows)] + rng.normal(0, 10, (rows, columns))
    return np.clip(noisy, 0, 255).astype(np.uint8)


def gan_training(
    ops: Any,
    data: np.ndarray,
    hidden: tuple[int, ...] = (16,),
    activation: str = "leaky_relu",
    latent: int = 8,
    batch_size: int = 32,
    seed: int = 0,
    ema: float = 0.0,
    pack: int = 1,
    blocks: tuple[int, ...] = (),
    **settings: Any,
) -> TrainingRun:
    """The article's GAN, made small; ``settings`` are the step's or the optimizer's."""
    of_optimizer = {name: settings.pop(name) for name in vars(OptimizerSettings()) if name in settings}
    columns = data.shape[1]
    layers = dense_layers((latent, *hidden, columns), activation, "tanh")
    generator = Network(ops, "generator", with_labels(layers, blocks, 0.6) if blocks else layers)
    discriminator = Network(
        ops, "discriminator", dense_layers((pack * columns, *hidden[::-1], 1), activation, "linear")
    )
    generator.initialize(seed, "auto", 0)
    discriminator.initialize(seed, "auto", len(generator.layers))
    step = GanStep(
        ops,
        generator,
        discriminator,
        data,
        batch_size=batch_size,
        settings=OptimizerSettings(**of_optimizer),
        pack=pack,
        average=Average(generator.twin(), ema) if ema else None,
        seed=seed,
        scale=2 / 255,
        shift=-1.0,
        **settings,
    )
    return TrainingRun(step)


def vae_training(
    ops: Any,
    data: np.ndarray,
    hidden: tuple[int, ...] = (16,),
    latent: int = 4,
    batch_size: int = 32,
    seed: int = 0,
    told: dict[str, Any] | None = None,
    **settings: Any,
) -> TrainingRun:
    """A small VAE; ``told`` are arguments of its step: with ``draws`` it is an IWAE, and ``variance`` may be a word."""
    columns, told = data.shape[1], dict(told or {})
    encoder = Network(ops, "encoder", dense_layers((columns, *hidden, 2 * latent), "relu", "linear"))
    decoder = Network(ops, "decoder", dense_layers((latent, *hidden[::-1], columns), "relu", "linear"))
    encoder.initialize(seed, "auto", 0)
    decoder.initialize(seed, "auto", len(encoder.layers))
    if told.get("variance") in LEARNED:
        noise = Network(ops, "noise", [LogVariance(columns, columns if told["variance"] == "learned" else 1)])
        shape = noise.layers[0].shapes["logvar"]
        noise.load_state({"noise.0.logvar": np.random.default_rng(seed).normal(-1, 0.5, shape)})
        told["variance"] = noise
    told |= {"batch_size": batch_size, "settings": OptimizerSettings(**settings), "seed": seed, "scale": 1 / 255}
    return TrainingRun((IwaeStep if "draws" in told else VaeStep)(ops, encoder, decoder, data, **told))


def run(training: Any, steps: int) -> None:
    """Any number of steps, across the ends of epochs."""
    while steps:
        now = min(steps, training.steps_per_epoch - training.done % training.steps_per_epoch)
        training.run(now)
        steps -= now
