"""The VAE: one step against PyTorch, trajectories between backends, and the estimator."""

from __future__ import annotations

import numpy as np
import pytest

import minigen
from helpers import relative_error
from minigen.reference_backend import NumpyBackend
from models import blobs, run, vae_training


def test_backends_follow_the_float64_trajectory_for_100_steps(backend):
    """Stated tolerance: 1e-4 on the losses and 1e-3 on the weights after 100 steps, float32 against float64."""
    ours, reference = (vae_training(ops, blobs(), learning_rate=1e-3) for ops in (backend, NumpyBackend(np.float64)))
    run(ours, 100)
    run(reference, 100)
    np.testing.assert_allclose(ours.recent_losses(100), reference.recent_losses(100), rtol=1e-4)
    for a, b in zip(ours.step.networks, reference.step.networks, strict=True):
        assert relative_error(backend.download(a.params), b.params) < 1e-3


def test_the_last_partial_batch_is_trained_on(backend):
    data = np.arange(100, dtype=np.uint8)[:, None]
    training = vae_training(backend, data, batch_size=32)
    assert training.steps_per_epoch == 4
    rows = []
    for size in (32, 32, 32, 4):
        training.run(1)
        rows.append(np.rint(backend.download(training.step.x)[:size, 0] * 255))
    np.testing.assert_array_equal(np.sort(np.concatenate(rows)), np.arange(100))


def test_steps_together_or_apart_give_the_same_bits(backend):
    one, many = vae_training(backend, blobs(100)), vae_training(backend, blobs(100))
    for _ in range(12):
        one.run(1)
    many.run(4), many.run(3), many.run(1), many.run(4)
    np.testing.assert_array_equal(one.recent_losses(12), many.recent_losses(12))
    for key, value in one.state().items():
        np.testing.assert_array_equal(value, many.state()[key])


@pytest.fixture(scope="module")
def trained():
    return minigen.train_vae(
        blobs(300, 12).reshape(300, 3, 4),
        epochs=30,
        hidden=(32,),
        latent_dim=3,
        batch_size=64,
        learning_rate=3e-3,
        progress=False,
    )


def test_shapes_and_types(trained):
    X = blobs(20, 12).reshape(20, 3, 4)
    mu, logvar = trained.encode(X, return_logvar=True)
    assert mu.shape == logvar.shape == (20, 3)
    np.testing.assert_array_equal(mu, trained.encode(X))
    for images in (trained.reconstruct(X), trained.decode(mu), trained.sample(20)):
        assert images.shape == (20, 3, 4) and images.dtype == np.uint8
    np.testing.assert_array_equal(trained.sample(3, seed=4), trained.sample(5, seed=4)[:3])


def test_reconstructions_resemble_their_originals():
    X = blobs(200, 12)
    model = minigen.VAE(
        likelihood="gaussian", variance=0.01, hidden=(32,), latent_dim=3, batch_size=50, epochs=200, learning_rate=3e-3
    ).fit(X)
    error = np.abs(model.reconstruct(X).astype(float) - X).mean()
    shuffled = np.abs(model.reconstruct(X).astype(float) - np.roll(X, 1, axis=0)).mean()
    assert error < 0.5 * shuffled


def test_elbo_and_its_terms(trained):
    X = blobs(150, 12).reshape(150, 3, 4)
    elbo = trained.elbo(X, samples=400)
    assert elbo.shape == (150,) and elbo.dtype == np.float64
    # The same bound from its definition, in float64 and with other noise.
    mu, logvar = (part.astype(np.float64) for part in trained.encode(X, return_logvar=True))
    x, rng = X.reshape(150, 12) / 255, np.random.default_rng(0)
    weights = {key: value.astype(np.float64) for key, value in trained.decoder_.state().items()}
    log_p = np.zeros(150)
    for _ in range(400):
        z = mu + np.exp(logvar / 2) * rng.standard_normal(mu.shape)
        hidden = np.maximum(z @ weights["decoder.0.W"] + weights["decoder.0.b"], 0)
        p = 1 / (1 + np.exp(-(hidden @ weights["decoder.1.W"] + weights["decoder.1.b"])))
        log_p += (x * np.log(p) + (1 - x) * np.log1p(-p)).sum(axis=1) / 400
    kl = 0.5 * (mu**2 + np.exp(logvar) - 1 - logvar).sum(axis=1)
    np.testing.assert_allclose(elbo, log_p - kl, atol=0.1)


def test_importance_weighting_tightens_the_bound(trained):
    X = blobs(100, 12).reshape(100, 3, 4)
    one, many = trained.score_samples(X, samples=1), trained.score_samples(X, n=200)
    np.testing.assert_array_equal(many, trained.score_samples(X, samples=200))
    with pytest.raises(ValueError, match="n must be an integer of at least 1, not 0"):
        trained.score_samples(X, n=0)
    assert one.mean() < many.mean()
    assert trained.elbo(X, samples=200).mean() < many.mean()


@pytest.mark.parametrize("standardize", [False, True])
def test_score_of_a_linear_gaussian_model_is_exact(standardize):
    """Decoder linear in z: log p(x) is known in closed form, a value that the estimate has to meet, in the data's
    units."""
    data = np.random.default_rng(0).normal(size=(500, 3)) @ [[1.0, 0.5, 0], [0, 0.3, 0.2], [0, 0, 0.1]]
    model = minigen.VAE(
        hidden=(),
        latent_dim=2,
        likelihood="gaussian",
        variance=0.5,
        epochs=60,
        batch_size=100,
        learning_rate=0.02,
        standardize=standardize,
    ).fit(data)
    state = {key: value.astype(np.float64) for key, value in model.decoder_.state().items()}
    W, b = state["decoder.0.W"], state["decoder.0.b"]
    mean, std = (data.mean(axis=0), data.std(axis=0)) if standardize else (np.zeros(3), np.ones(3))
    covariance = std[:, None] * (W.T @ W + 0.5 * np.eye(3)) * std
    rows = data[:50].astype(np.float32).astype(np.float64) - (mean + std * b)
    _, logdet = np.linalg.slogdet(2 * np.pi * covariance)
    exact = -0.5 * ((rows @ np.linalg.inv(covariance)) * rows).sum(axis=1) - 0.5 * logdet
    np.testing.assert_allclose(model.score_samples(data[:50], samples=2000), exact, atol=0.05)
    assert model.elbo(data[:50], samples=500).mean() < exact.mean()


def test_anomalies_score_low(trained):
    data = blobs(300, 12).reshape(300, 3, 4)
    noise = np.random.default_rng(1).integers(0, 256, (100, 3, 4), np.uint8)
    assert np.median(trained.score_samples(noise)) < np.quantile(trained.score_samples(data), 0.05)


def test_large_inputs_are_scored_in_pieces(trained, monkeypatch):
    X = blobs(100, 12).reshape(100, 3, 4)
    whole = trained.encode(X), trained.reconstruct(X)
    monkeypatch.setattr("minigen.estimators.trained.ROWS_AT_ONCE", 7)
    monkeypatch.setattr("minigen.estimators.scoring.ROWS_AT_ONCE", 7)
    np.testing.assert_allclose(trained.encode(X), whole[0], rtol=1e-5, atol=1e-6)
    assert np.abs(trained.reconstruct(X).astype(int) - whole[1]).max() <= 1
    assert trained.elbo(X).shape == (100,)
