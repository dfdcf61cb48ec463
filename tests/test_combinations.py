"""Whole steps of whatever combination of settings ``fit`` takes, drawn at random: their gradients against differences.

Each model is made as a user makes it, on the float64 reference. The gradient of every network is compared, along random
directions, with central differences of the losses that the step itself reports.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import minigen
from minigen.errors import ArgumentError
from minigen.reference_backend import NumpyBackend

COLUMNS, ROWS = 5, 24
widths = st.lists(st.integers(1, 7), max_size=2).map(tuple)
GAN = {
    "hidden": widths,
    "hidden_discriminator": st.none() | widths,
    "activation": st.sampled_from(minigen.ACTIVATIONS),
    "loss": st.sampled_from(minigen.GAN_LOSSES),
    "optimizer": st.sampled_from(("rmsprop", "lion", "sgd")),
    "pack": st.sampled_from((2, 4)),
    "ema": st.floats(0, 0.99),
    "learning_rate": st.tuples(st.floats(1e-6, 1e-2), st.floats(1e-6, 1e-2)),
    "schedule": st.sampled_from(("constant", "cosine", "step", "linear")),
    "output": st.sampled_from(("tanh", "sigmoid", "linear")),
    "conditioning": st.just("projection"),
    "y": st.sampled_from(("labels", "numbers")),
}
VAE = {
    "hidden": widths,
    "activation": st.sampled_from(minigen.ACTIVATIONS),
    "likelihood": st.sampled_from(("bernoulli", "gaussian")),
    "beta": st.floats(0, 3),
    "y": st.sampled_from(("labels", "numbers")),
}
"""What is drawn of each setting; each is left at its default half of the time."""


def drawn(choices: dict[str, Any]) -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries({}, optional=choices)


@pytest.fixture(autouse=True)
def on_the_reference(monkeypatch):
    backend = NumpyBackend(np.float64)
    monkeypatch.setattr("minigen.estimators.base.get_backend", lambda device, precision: backend)


def step_of(family: Any, chosen: dict[str, Any], seed: int) -> Any:
    """A step of a model of these settings, some steps into its training; skips what ``fit`` refuses."""
    rng = np.random.default_rng(seed)
    data = rng.integers(0, 256, (ROWS, COLUMNS), np.uint8)
    chosen, kind = {name: value for name, value in chosen.items() if name != "y"}, chosen.get("y")
    y = {"labels": rng.integers(0, 3, ROWS), "numbers": rng.normal(size=(ROWS, 2)), None: None}[kind]
    model = family(latent_dim=3, batch_size=8, epochs=1, seed=seed, **chosen)
    model.fit(data, y, progress=False)
    step = model._step(data, model._condition_codes(y, ROWS))
    for net in step.networks:  # away from what the initial weights have in common, such as zero biases
        net.load_state({key: value + 0.1 * rng.standard_normal(value.shape) for key, value in net.state().items()})
    return step


def assert_gradient(step: Any, net: Any, compute: Callable[[], None], loss: Callable[[], float], seed: int) -> None:
    rng = np.random.default_rng(seed)
    before = {key: buffer.copy() for key, buffer in step.state_buffers().items()}

    def value(moved: np.ndarray | float) -> float:
        for key, buffer in step.state_buffers().items():
            buffer[...] = before[key]
        net.params[...] += moved
        compute()
        return loss()

    value(0.0)
    gradient = net.grads.copy()
    for _ in range(3):
        # Only where parameters are: between them lies padding.
        direction = np.zeros_like(net.params)
        for part in net._split(direction).values():
            part[...] = rng.standard_normal(part.shape)
        h = 1e-6 / np.linalg.norm(direction)  # short: a rectifier's kink within it is rare
        numeric = (value(h * direction) - value(-h * direction)) / (2 * h)
        assert gradient @ direction == pytest.approx(numeric, rel=2e-6, abs=1e-7 * np.linalg.norm(direction))


often = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@often
@given(drawn(GAN), st.integers(0, 2**32 - 1))
def test_gan(chosen, seed):
    try:
        step = step_of(minigen.GAN, chosen, seed)
    except ArgumentError:
        return
    losses = step.losses

    def discriminator() -> None:
        step.generate()
        step.discriminator_gradient()

    def generator() -> None:
        step.generate()
        step.generator_gradient()

    assert_gradient(step, step.discriminator, discriminator, lambda: losses[0] + losses[2:].sum(), seed)
    assert_gradient(step, step.generator, generator, lambda: losses[1], seed)


@often
@given(drawn(VAE), st.integers(0, 2**32 - 1))
def test_vae(chosen, seed):
    try:
        step = step_of(minigen.VAE, chosen, seed)
    except ArgumentError:
        return

    def loss() -> float:
        return float(step.report(step.losses[None].astype(np.float64))[0, 0])

    for net in step.networks:
        assert_gradient(step, net, lambda: step.gradient(8), loss, seed)
