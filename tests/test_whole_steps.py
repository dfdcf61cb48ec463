"""Whole trainings, through the estimators, against the formulas written out once more (minigen/gradcheck_plain.py).

Every setting is another than its default, so that one that is dropped, swapped or ignored shows; every seed is another
than 0. The estimator runs on each backend, also on the float64 reference, where the agreement is to the last digits.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

import minigen
from helpers import PRODUCTS, relative_error
from minigen import gradcheck_plain as plain
from minigen.models.optimizer import OptimizerSettings

COLUMNS, LATENT, BATCH, ROWS, EPOCHS = 9, 4, 8, 43, 2
SEED = 2**31 + 12345
DATA = np.random.default_rng(3).integers(0, 256, (ROWS, COLUMNS), np.uint8)
OPTIMIZERS = {
    "adam": {"learning_rate": 0.02, "beta1": 0.6, "beta2": 0.93, "eps": 1e-2},
    "adamw": {"learning_rate": 0.02, "beta1": 0.4, "beta2": 0.97, "eps": 3e-3, "weight_decay": 0.3},
    "sgd": {"learning_rate": 0.05, "momentum": 0.7, "weight_decay": 0.05, "clip_norm": 0.2},
    "rmsprop": {"learning_rate": 0.01, "beta2": 0.8, "eps": 2e-2, "momentum": 0.4, "weight_decay": 0.1},
    "lion": {"learning_rate": 0.01, "beta1": 0.7, "beta2": 0.95, "weight_decay": 0.2},
}
GANS: dict[str, dict[str, Any]] = {
    "adam": {"hidden": (5, 7), "pack": 2},
    "adamw": {
        "hidden": (5, 7),
        "loss": "minimax",
        "init": "he_normal",
        "output": "sigmoid",
        "schedule": "cosine",
        "warmup": 0.4,
    },
    "sgd": {"hidden": (6, 3), "hidden_discriminator": (4, 5), "init": "glorot_normal", "output": "linear"},
    "adam-": {
        "hidden": (5, 7),
        "activation": "tanh",
        "loss": "least_squares",
        "learning_rate": (0.01, 0.03),
        "schedule": "linear",
    },
    "sgd-": {
        "hidden": (5, 7),
        "activation": "softplus",
        "init": "he_uniform",
        "loss": "hinge",
        "schedule": "step",
        "pack": 4,
    },
}
GANS["rmsprop"] = {"hidden": (5, 4), "clip_norm": 0.1}
VAES: dict[str, dict[str, Any]] = {
    "adam": {"hidden": (5, 7), "beta": 0.3},
    "adamw": {"hidden": (5, 7), "likelihood": "gaussian", "variance": 0.4, "beta": 2.5, "init": "auto"},
    "sgd": {
        "hidden": (6, 3),
        "activation": "leaky_relu",
        "beta": 1.7,
        "init": "he_normal",
        "schedule": "cosine",
        "warmup": 0.5,
    },
    "lion": {"hidden": (4, 5), "activation": "tanh", "clip_norm": 1.0},
    "adam-": {"hidden": (5, 7), "activation": "sigmoid", "likelihood": "gaussian", "beta": 0.5, "init": "he_uniform"},
}


@pytest.fixture
def fit(backend, monkeypatch):
    """A function that trains a model on the backend of the test."""
    monkeypatch.setattr("minigen.estimators.base.get_backend", lambda device, precision: backend)

    def fit(family: Any, settings: dict[str, Any], data: np.ndarray, epochs: int) -> Any:
        common = {"latent_dim": LATENT, "batch_size": BATCH, "seed": SEED}
        return family(**common, **settings, epochs=epochs).fit(data, progress=False)

    return fit


def assert_close(backend: Any, out: Any, expected: Any) -> None:
    allowed = 1e-10 if backend.dtype == np.float64 else 20 * PRODUCTS[backend.precision]
    error = relative_error(np.asarray(out, np.float64), np.asarray(expected, np.float64))
    assert error <= allowed, f"error {error:.3g}, {allowed:.3g} allowed"


def assert_losses(backend: Any, model: Any, names: list[str], expected: np.ndarray) -> None:
    """Those of every step, each under its name."""
    assert list(model.history_.losses) == names
    for name, column in zip(names, expected.T, strict=True):
        assert_close(backend, model.history_.losses[name], column)


def weights_of(net: Any) -> np.ndarray:
    return np.concatenate([value.ravel() for value in net.state().values()])


def without_padding(buffer: np.ndarray, sizes: tuple[int, ...]) -> np.ndarray:
    """A flat buffer, in which each tensor begins at a multiple of 16, as one vector."""
    parts, at = [], 0
    for i, o in zip(sizes, sizes[1:], strict=False):
        for size in (i * o, o):
            parts.append(buffer[at : at + size])
            at += -(-size // 16) * 16
    assert at == len(buffer)
    return np.concatenate(parts)


def unflat(vector: np.ndarray, sizes: Sequence[int]) -> plain.Net:
    """The opposite of ``plain.flat``."""
    net, at = [], 0
    for i, o in zip(sizes, sizes[1:], strict=False):
        net.append((vector[at : at + i * o].reshape(i, o), vector[at + i * o : at + i * o + o]))
        at += i * o + o
    return net


class Spelled:
    """A training from the formulas: networks by name, each with its sizes, its weights and the optimizer's slots."""

    def __init__(self, sizes: dict[str, tuple[int, ...]], outputs: dict[str, str], model: Any, steps: int) -> None:
        self.sizes, self.outputs, self.hidden = sizes, outputs, model.activation
        self.settings = OptimizerSettings(**{name: getattr(model, name) for name in vars(OptimizerSettings())})
        given = model.learning_rate
        self.rates = dict(zip(sizes, given if isinstance(given, tuple) else (given, given), strict=True))
        self.steps = steps  # of an epoch
        self.nets, self.slots, first = {}, {}, 0
        for name, widths in sizes.items():
            self.nets[name] = plain.initial(widths, self.hidden, outputs[name], model.init, SEED, first)
            first += len(widths) - 1
            zeros = np.zeros_like(plain.flat(self.nets[name]))
            names = {"sgd": ["velocity"], "rmsprop": ["velocity", "v"], "lion": ["m"]}
            self.slots[name] = dict.fromkeys(names.get(self.settings.optimizer, ["m", "v"]), zeros)

    def update(self, name: str, gradient: plain.Net, step: int) -> None:
        weights, gradient = plain.flat(self.nets[name]), plain.flat(gradient)
        settings = replace(self.settings, learning_rate=self.rate(name, step))
        weights, self.slots[name] = plain.update(weights, gradient, self.slots[name], step + 1, settings)
        self.nets[name] = unflat(weights, self.sizes[name])

    def rate(self, name: str, step: int) -> float:
        s = self.settings
        return plain.rate(
            self.rates[name], step, s.schedule, round(s.warmup * self.steps), max(1, s.epochs) * self.steps
        )

    def same(self, backend: Any, model: Any) -> None:
        for net in model.networks_:
            assert net.sizes == self.sizes[net.name]
            assert_close(backend, weights_of(net), plain.flat(self.nets[net.name]))
            for slot, expected in self.slots[net.name].items():
                assert_close(backend, without_padding(model._state[f"{net.name}.{slot}"], net.sizes), expected)


def batches(rows: int, whole: bool, epochs: int) -> Any:
    """(step, rows of the data) of every step; what is left over is dropped or, with ``whole``, a smaller step."""
    step = 0
    for epoch in range(epochs):
        order = plain.order(rows, SEED, epoch)
        stop = rows if whole else rows - rows % BATCH
        for a in range(0, stop, BATCH):
            yield step, order[a : min(a + BATCH, stop)]
            step += 1


def spelled_gan(model: Any, data: np.ndarray, epochs: int) -> tuple[Spelled, np.ndarray]:
    """The training and the losses of its steps."""
    output = "tanh" if model.output == "auto" else model.output
    own = model.hidden[::-1] if model.hidden_discriminator is None else model.hidden_discriminator
    sizes = {"generator": (LATENT, *model.hidden, COLUMNS), "discriminator": (model.pack * COLUMNS, *own, 1)}
    run = Spelled(sizes, {"generator": output, "discriminator": "linear"}, model, len(data) // BATCH)
    X = data / 255 if output == "sigmoid" else data / 127.5 - 1
    losses = []
    for step, rows in batches(len(data), False, epochs):
        noise = plain.normals((2 * BATCH, LATENT), SEED, plain.NOISE, step)
        generator, discriminator = run.nets["generator"], run.nets["discriminator"]
        loss_d, gradient = plain.gan_discriminator(
            generator, discriminator, X[rows], noise[:BATCH], run.hidden, output, model.loss
        )
        run.update("discriminator", gradient, step)
        loss_g, gradient = plain.gan_generator(
            generator, run.nets["discriminator"], noise[BATCH:], run.hidden, output, model.loss
        )
        run.update("generator", gradient, step)
        losses.append([loss_d, loss_g])
    return run, np.array(losses)


def spelled_vae(model: Any, data: np.ndarray, epochs: int) -> tuple[Spelled, np.ndarray]:
    """The training and the losses of its steps."""
    sizes = {"encoder": (COLUMNS, *model.hidden, 2 * LATENT), "decoder": (LATENT, *model.hidden[::-1], COLUMNS)}
    run = Spelled(sizes, {"encoder": "linear", "decoder": "linear"}, model, -(-len(data) // BATCH))
    losses = []
    for step, rows in batches(len(data), True, epochs):
        eps = plain.normals((len(rows), LATENT), SEED, plain.LATENT, step)
        (reconstruction, kl, _), of_encoder, of_decoder, _ = plain.vae(
            run.nets["encoder"],
            run.nets["decoder"],
            data[rows] / 255,
            eps,
            run.hidden,
            model.likelihood,
            model.variance,
            model.beta,
        )
        run.update("encoder", of_encoder, step)
        run.update("decoder", of_decoder, step)
        losses.append([reconstruction + model.beta * kl, reconstruction, kl])
    return run, np.array(losses)


@pytest.mark.parametrize("name", GANS)
def test_a_gan_is_trained_as_its_formulas_say(backend, fit, name):
    """Losses of every step, weights and moments: after one step, and after two epochs."""
    optimizer = name.strip("-")
    settings = {"optimizer": optimizer, **OPTIMIZERS[optimizer], **GANS[name]}
    for data, epochs in ((DATA[:BATCH], 1), (DATA, EPOCHS)):
        model = fit(minigen.GAN, settings, data, epochs)
        run, losses = spelled_gan(model, data, epochs)
        assert_losses(backend, model, ["discriminator", "generator"], losses)
        run.same(backend, model)
    z = plain.normals((5, LATENT), 77, plain.SAMPLE, 0)
    np.testing.assert_allclose(model.latent(5, seed=77), z, atol=1e-5)
    drawn = plain.apply(run.nets["generator"], z, run.hidden, run.outputs["generator"])
    pixels = drawn * 255 if run.outputs["generator"] == "sigmoid" else (drawn + 1) * 127.5
    pixels = np.clip(pixels, 0, 255)
    assert np.abs(model.sample(5, seed=77) - pixels).max() <= 0.5 + 0.02


@pytest.mark.parametrize("name", VAES)
def test_a_vae_is_trained_as_its_formulas_say(backend, fit, name):
    """Losses of every step, weights and moments: after one step, and after two epochs with a smaller last batch."""
    optimizer = name.strip("-")
    settings = {"optimizer": optimizer, **OPTIMIZERS[optimizer], **VAES[name]}
    for data, epochs in ((DATA[:BATCH], 1), (DATA, EPOCHS)):
        model = fit(minigen.VAE, settings, data, epochs)
        run, losses = spelled_vae(model, data, epochs)
        assert_losses(backend, model, ["loss", "reconstruction", "kl"], losses)
        run.same(backend, model)
    z = plain.normals((5, LATENT), 77, plain.SAMPLE, 0)
    mean = plain.apply(run.nets["decoder"], z, run.hidden, "linear")
    if model.likelihood == "bernoulli":
        mean = 1 / (1 + np.exp(-mean))
    assert np.abs(model.sample(5, seed=77) - np.clip(mean * 255, 0, 255)).max() <= 0.5 + 0.02
