"""Whole steps of whatever combination of settings ``fit`` takes, drawn at random: their gradients against differences.

Each model is made as a user makes it, on the float64 reference. The gradient of every network is compared, along random
directions, with central differences of the losses that the step itself reports.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

import minigen
from minigen.errors import ArgumentError
from minigen.models.likelihood import LIKELIHOODS
from minigen.reference_backend import NumpyBackend

COLUMNS, ROWS = 5, 24
widths = st.lists(st.integers(1, 7), max_size=2).map(tuple)
norms = st.sampled_from(("batch", "layer"))
OPTIMIZERS = {
    "optimizer": st.sampled_from(("rmsprop", "lion", "sgd", "adamw")),
    "schedule": st.sampled_from(("cosine", "step", "linear")),
    "warmup": st.floats(0.1, 0.9),
    "beta1": st.floats(0.1, 0.9),
    "beta2": st.floats(0.1, 0.9),
    "eps": st.floats(1e-8, 1e-3),
    "momentum": st.floats(0.1, 0.9),
    "weight_decay": st.floats(0.01, 0.5),  # of any but Adam
    "clip_norm": st.floats(0.1, 3),
}
BOTH = {
    **OPTIMIZERS,
    "latent_dim": st.integers(1, 4),
    "hidden": widths,
    "init": st.sampled_from(("glorot_uniform", "glorot_normal", "he_uniform", "he_normal")),
    "standardize": st.booleans(),
    "conditional": st.booleans(),
    "activation": st.sampled_from(minigen.ACTIVATIONS),
    "normalization": norms,
    "dropout": st.sampled_from((0.2, 0.5)),
}
GAN = {
    **BOTH,
    "hidden_discriminator": widths,
    "normalization_discriminator": norms,
    "maxout": st.integers(2, 3),
    "spectral_norm": st.just(True),
    "loss": st.sampled_from(minigen.GAN_LOSSES),
    "output": st.sampled_from(("tanh", "sigmoid", "linear")),
    "blocks": st.just((2, 3)),
    "temperature": st.floats(0.3, 2),
    "r1": st.floats(0.1, 3),
    "gradient_penalty": st.floats(0.1, 10),
    "n_critic": st.integers(2, 3),
    "weight_clip": st.floats(0.1, 1),
    "label_smoothing": st.floats(0.1, 0.3),
    "instance_noise": st.floats(0.1, 0.5),
    "instance_noise_decay": st.just(False),
    "pack": st.sampled_from((2, 4)),
    "ema": st.floats(0.1, 0.99),
    "learning_rate": st.tuples(st.floats(1e-6, 1e-2), st.floats(1e-6, 1e-2)),
    "conditioning": st.just("projection"),
}
VAE = {
    **BOTH,
    "likelihood": st.sampled_from(LIKELIHOODS),
    "blocks": st.just((2, 3)),
    "variance": st.floats(0.2, 2) | st.sampled_from(("learned", "learned_scalar")),
    "beta": st.floats(0, 3),
    "kl_warmup": st.floats(0.3, 2),
    "free_bits": st.floats(0.01, 0.5),
    "importance_samples": st.integers(2, 4),
    "learning_rate": st.floats(1e-6, 1e-2),
}
"""What is drawn of each setting; each is left at its default half of the time."""
GIVEN = {"batch_size", "epochs", "seed", "device", "precision"}
"""What :func:`step_of` and the float64 reference say of every model."""
AFTERWARDS = {"latent_prior", "components"}
"""What ``fit`` does once the steps are over."""
CONDITIONS = st.sampled_from((None, "labels", "numbers"))


def drawn(choices: dict[str, Any]) -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries({}, optional=choices)


@pytest.fixture(autouse=True)
def on_the_reference(monkeypatch):
    backend = NumpyBackend(np.float64)
    monkeypatch.setattr("minigen.estimators.base.get_backend", lambda device, precision: backend)


def data_for(family: Any, chosen: dict[str, Any], rng: Any) -> tuple[np.ndarray, dict[str, Any]]:
    """Rows of the kind that the settings are for, and the settings without what another kind of rows would need."""
    if family is minigen.VAE:
        chosen.pop("blocks", None)
        if chosen.get("likelihood") in ("categorical", "mixed"):
            chosen["blocks"] = (2, 3)
    if "blocks" in chosen:
        chosen.pop("standardize", None)
        labels = np.eye(5)[[rng.integers(0, 2, ROWS), 2 + rng.integers(0, 3, ROWS)]].sum(axis=0)
        return labels.astype(np.uint8), chosen
    if chosen.get("standardize"):
        of_any_number = {"output": "linear"} if family is minigen.GAN else {"likelihood": "gaussian"}
        return rng.normal(size=(ROWS, COLUMNS)).astype(np.float32), chosen | of_any_number
    top = 2 if chosen.get("likelihood") == "multinomial" else 256  # counts are no grey levels
    return rng.integers(0, top, (ROWS, COLUMNS), np.uint8), chosen


def step_of(family: Any, chosen: dict[str, Any], condition: str | None, seed: int) -> Any:
    """A step of a model of these settings, some steps into its training; gives up on what ``fit`` refuses."""
    rng = np.random.default_rng(seed)
    chosen = dict(chosen)
    if chosen.get("optimizer", "adam") == "adam":
        chosen.pop("weight_decay", None)
    data, chosen = data_for(family, chosen, rng)
    y = {None: None, "labels": rng.integers(0, 3, ROWS), "numbers": rng.normal(size=(ROWS, 2))}[condition]
    model = family(**{"latent_dim": 3} | chosen, batch_size=8, epochs=1, seed=seed)
    steps = []
    make = family._step

    def kept(rows: np.ndarray, *conditions: Any) -> Any:
        """The step that fit trains with, on the rows in the reference's precision."""
        steps.append(make(model, rows if rows.dtype == np.uint8 else rows.astype(np.float64), *conditions))
        return steps[-1]

    model._step = kept
    try:
        model.fit(data, y, progress=False)
    except ArgumentError:
        assume(False)
    step = steps[-1]
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
        direction /= np.linalg.norm(direction)
        # The kink of a rectifier may lie within the first difference, hardly within the second too.
        slopes = [((value(h * direction) - value(-h * direction)) / (2 * h), 1e-12 / h) for h in (1e-5, 1e-7)]
        assert gradient @ direction in [pytest.approx(slope, rel=2e-6, abs=rounding) for slope, rounding in slopes]


def test_every_setting_is_drawn():
    for family, choices, left in (
        (minigen.GAN, GAN, GIVEN | {"latent_std", "reject"}),
        (minigen.VAE, VAE, GIVEN | AFTERWARDS),
    ):
        assert set(family().get_params()) - left == set(choices)


EXAMPLES = int(os.environ.get("MINIGEN_TEST_EXAMPLES", "12"))  # .ci/run takes more
often = settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck))


@often
@given(drawn(GAN), CONDITIONS, st.integers(0, 2**32 - 1))
def test_gan(chosen, condition, seed):
    step = step_of(minigen.GAN, chosen, condition, seed)
    losses = step.losses

    def discriminator() -> None:
        step.generate()
        step.discriminator_gradient()

    def generator() -> None:
        step.generate()
        step.generator_gradient()

    if chosen.get("spectral_norm"):  # its gradient is that of the singular value once the power iteration has converged
        for _ in range(300):
            discriminator()
    assert_gradient(step, step.discriminator, discriminator, lambda: losses[0] + losses[2:].sum(), seed)
    assert_gradient(step, step.generator, generator, lambda: losses[1], seed)


@often
@given(drawn(VAE), CONDITIONS, st.integers(0, 2**32 - 1))
def test_vae(chosen, condition, seed):
    step = step_of(minigen.VAE, chosen, condition, seed)

    def loss() -> float:
        return float(step.report(step.losses[None].astype(np.float64))[0, 0])

    for net in step.networks:
        assert_gradient(step, net, lambda: step.gradient(8), loss, seed)
