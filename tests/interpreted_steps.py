"""Whole training steps on Triton's interpreter against the NumPy reference: run by test_cuda_interpreter.py."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from conftest import without_gpu

import models
from interpreter import InterpreterExecutor
from minigen.backend import DENSE_ACTIVATIONS
from minigen.cuda.plan import codegen
from minigen.reference_backend import NumpyBackend
from minigen.step import fuse

STEPS = 5


def compare(make: Any, launches: int | None = None, **settings: Any) -> None:
    """Five steps, in random order of the programs, against float64: losses, weights, moments and the counter."""
    ours, reference = make(without_gpu(), **settings), make(NumpyBackend(np.float64), **settings)
    models.run(ours, STEPS)
    models.run(reference, STEPS)
    expected = reference.state()
    for name, found in ours.state().items():
        np.testing.assert_allclose(found, expected[name], rtol=1e-4, atol=2e-5, err_msg=f"{name}, {settings}")
    np.testing.assert_allclose(ours.recent_losses(STEPS), reference.recent_losses(STEPS), rtol=2e-5, atol=1e-6)
    assert ours.first_non_finite() is None  # what the schedule leaves out holds no garbage either
    if launches is not None:
        assert len(ours._programs[ours.step.batch_size].schedule.launches) == launches


def test_gan():
    """The article's shape, one hidden layer each: 22 operations in 8 launches."""
    compare(models.gan_training, 8, data=models.blobs(80, 21), hidden=(37,), latent=10, batch_size=19)


def test_vae():
    """One hidden layer each, and a smaller last batch: 20 operations in 6 launches."""
    compare(models.vae_training, 6, data=models.blobs(70, 21), hidden=(37,), latent=3, batch_size=19)


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_any_gan(rng, optimizer):
    hidden = tuple(int(n) for n in rng.integers(1, 40, rng.integers(0, 3)))
    compare(
        models.gan_training,
        data=models.blobs(60, int(rng.integers(1, 50))),
        hidden=hidden,
        activation=str(rng.choice(DENSE_ACTIVATIONS)),
        latent=int(rng.integers(1, 20)),
        batch_size=2 * int(rng.integers(1, 15)),
        pack=int(rng.integers(1, 3)),
        seed=int(rng.integers(2**32)),
        ema=0.5,
        optimizer=optimizer,
        weight_decay=0.01,
        learning_rate=0.01,
        schedule="cosine",
        warmup=0.5,
        epochs=3,
        eps=1e-6,
    )


@pytest.mark.parametrize(
    "told",
    [
        {"likelihood": "bernoulli"},
        {"likelihood": "gaussian"},
        {"likelihood": "gaussian", "variance": "learned", "kl_warmup": 1.5, "free_bits": 0.1},
        {"likelihood": "continuous_bernoulli", "draws": 3},
    ],
    ids=str,
)
def test_any_vae(rng, told):
    hidden = tuple(int(n) for n in rng.integers(1, 40, rng.integers(0, 3)))
    compare(
        models.vae_training,
        data=models.blobs(60, int(rng.integers(1, 50))),
        hidden=hidden,
        latent=int(rng.integers(1, 9)),
        batch_size=int(rng.integers(2, 30)),
        seed=int(rng.integers(2**32)),
        told=told,
        eps=1e-6,
    )


def test_spelled_out_and_fused_agree():
    """The same five steps, a launch for each call."""
    data = models.blobs(80, 21)
    fused, spelled = (models.gan_training(without_gpu(fuse=fuse), data, batch_size=19) for fuse in (True, False))
    for training in (fused, spelled):
        models.run(training, STEPS)
    for name, found in fused.state().items():
        np.testing.assert_allclose(found, spelled.state()[name], rtol=1e-4, atol=1e-6, err_msg=name)


def test_a_run_in_pieces_gives_the_same_bits():
    data = models.blobs(80, 21)
    whole, pieces = (models.vae_training(without_gpu(), data, batch_size=19) for _ in range(2))
    models.run(whole, STEPS)
    for steps in (2, 1, 2):
        models.run(pieces, steps)
    for name, found in whole.state().items():
        np.testing.assert_array_equal(found, pieces.state()[name])


def test_padding_costs_no_jobs_and_leaves_the_bits(rng, monkeypatch):
    """Of the article's GAN, with widths that are no multiples of a line of 64 bytes: after some steps weights, moments
    and what lies between them are the same bits with and without updates of that."""
    optimizer = str(rng.choice(["sgd", "adam", "adamw"]))
    settings = {"optimizer": optimizer} if optimizer == "adam" else {"optimizer": optimizer, "weight_decay": 0.01}

    def train():
        training = models.gan_training(without_gpu(), models.blobs(80, 7), (5,), latent=3, batch_size=9, **settings)
        models.run(training, 2)
        launches = training._programs[9].schedule.launches
        return training, sum(launch.name.count("optimizer_flat") for launch in launches)

    ours, jobs = train()
    monkeypatch.setattr(fuse, "_is_padding", lambda *gap: False)
    spelled, before = train()
    assert (jobs, before) == (0, 8)  # one for each of W and b of four layers
    for name, found in ours.state().items():
        np.testing.assert_array_equal(found.view(np.uint8), spelled.state()[name].view(np.uint8), err_msg=name)


@pytest.mark.parametrize("model", ["gan", "vae"])
def test_reduced_tiles(monkeypatch, model):
    """What a launch becomes where shared memory is short (fewer terms at a time) computes the same."""
    run, reduced = InterpreterExecutor.run, []

    def run_reduced(self, launch):
        while (smaller := codegen.with_less_memory(launch)) is not None:
            launch = smaller
            reduced.append(launch.name)
        run(self, launch)

    monkeypatch.setattr(InterpreterExecutor, "run", run_reduced)
    make = models.gan_training if model == "gan" else models.vae_training
    compare(make, data=models.blobs(60, 34), hidden=(33,), latent=6, batch_size=33)
    assert {"gan": "dense_forward_of_noise", "vae": "latent_sample_and_decode"}[model] in " ".join(reduced)
