"""A VAE of counts, such as what users have chosen: the likelihood, what it learns, and what it refuses."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats

import minigen
from minigen.models.likelihood import Likelihood
from minigen.reference_backend import NumpyBackend

QUIET = {"progress": False}
SMALL: dict[str, Any] = {
    "likelihood": "multinomial",
    "hidden": (16,),
    "latent_dim": 2,
    "batch_size": 32,
    "epochs": 2,
    "seed": 3,
    "device": "numpy",
}


def choices(users: int = 200) -> np.ndarray:
    """Of ten items one half of the users takes mostly the first five, the other half the others; 5 to 14 each."""
    rng = np.random.default_rng(0)
    tastes = np.array([[9.0] * 5 + [1.0] * 5, [1.0] * 5 + [9.0] * 5]) / 50
    return np.array([rng.multinomial(rng.integers(5, 15), tastes[user % 2]) for user in range(users)])


def test_the_loss_is_the_multinomials_without_its_coefficient(rng):
    ops = NumpyBackend(np.float64)
    logits, x = 3 * rng.standard_normal((7, 6)), rng.integers(0, 9, (7, 6)).astype(np.float64)
    x[2] = 0  # a user who has not chosen anything yet
    gradient, rows, loss = np.full((7, 6), np.nan), np.full(7, np.nan), np.full(1, np.nan)
    Likelihood(ops, "multinomial", blocks=(6,)).loss(logits, x, gradient, rows, loss)
    p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    for row, counts, shares in zip(rows, x, p, strict=True):
        orders = stats.multinomial.logpmf(counts, counts.sum(), np.full(6, 1 / 6)) + counts.sum() * np.log(6)
        assert row == pytest.approx(orders - stats.multinomial.logpmf(counts, counts.sum(), shares), rel=1e-12)
    assert rows[2] == 0 and loss[0] == pytest.approx(rows.mean())
    np.testing.assert_allclose(gradient, (x.sum(axis=1, keepdims=True) * p - x) / 7, rtol=1e-12, atol=1e-14)


def test_it_learns_what_goes_together():
    X = choices()
    model = minigen.VAE(**SMALL | {"device": "auto", "epochs": 40, "learning_rate": 0.01}).fit(X, **QUIET)
    half = np.zeros((2, 10), np.float32)
    half[0, :3] = half[1, 7:] = 3  # three items of either half, three times each
    shares = model.decode(model.encode(half))
    np.testing.assert_allclose(shares.sum(axis=1), 1, rtol=1e-5)
    assert shares[0, 3:5].mean() > 3 * shares[0, 5:].mean() and shares[1, 5:7].mean() > 3 * shares[1, :5].mean()
    np.testing.assert_allclose(model.reconstruct(X).sum(axis=1), X.sum(axis=1), rtol=1e-5)
    drawn = model.sample(500, seed=1)
    np.testing.assert_allclose(drawn.sum(axis=1), 1, rtol=1e-5)
    np.testing.assert_allclose(drawn.mean(axis=0), X.sum(axis=0) / X.sum(), atol=0.03)
    uniform = X.sum(axis=1) * np.log(10)  # nats of a row if all items were the same
    assert (model.score_samples(X) + uniform).mean() > 2


@pytest.mark.parametrize("kind", ["counts", "floats", "zeros and ones", "with labels"])
def test_saved_loaded_and_trained_on_it_has_the_same_bits(kind: str, tmp_path: Path):
    X = choices(100)
    X = {"floats": X.astype(np.float32), "zeros and ones": X > 0}.get(kind, X)
    y = {"y": np.arange(100) % 2} if kind == "with labels" else {}
    whole = minigen.VAE(**SMALL).fit(X, **y, **QUIET)
    half = minigen.VAE(**SMALL | {"epochs": 1}).fit(X, **y, **QUIET)
    half.save(tmp_path / "model")
    loaded = minigen.load(tmp_path / "model", device="numpy").partial_fit(X, epochs=1, **y, **QUIET)
    np.testing.assert_array_equal(whole.history_.values, loaded.history_.values)
    samples = whole.sample(5, seed=2)
    np.testing.assert_array_equal(samples, loaded.sample(5, seed=2))
    assert samples.dtype == np.float32
    np.testing.assert_allclose(samples.sum(axis=1), 1, rtol=1e-5)
    of_rows = [labels[:9] for labels in y.values()]
    np.testing.assert_array_equal(whole.score_samples(X[:9], *of_rows), loaded.score_samples(X[:9], *of_rows))


def test_every_device_trains_alike():
    pytest.importorskip("minigen._native")
    X = choices(100)
    reference, cpu = (minigen.VAE(**SMALL | {"device": device}).fit(X, **QUIET) for device in ("numpy", "cpu"))
    np.testing.assert_allclose(cpu.history_.values, reference.history_.values, rtol=1e-4)
    np.testing.assert_allclose(cpu.sample(5, seed=2), reference.sample(5, seed=2), rtol=1e-3)


REFUSED = {
    "below 0": (choices(50) - 1, {}, "X must be counts of at least 0"),
    "grey levels": (choices(50).astype(np.uint8), {}, "X must be counts in float32 or in integers wider"),
    "blocks": (choices(50), {"blocks": (5, 5)}, "blocks must be None for likelihood='multinomial'"),
    "standardised": (choices(50), {"standardize": True}, "standardize must be 'auto' or False"),
    "a learned variance": (choices(50), {"variance": "learned"}, "variance must be a number"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_no_count_is_refused(name: str):
    X, settings, message = REFUSED[name]
    with pytest.raises(ValueError, match=message):
        minigen.VAE(**SMALL | settings).fit(X, **QUIET)


def test_a_trained_model_refuses_the_same_and_draws_no_counts():
    model = minigen.VAE(**SMALL | {"epochs": 0}).fit(choices(50), **QUIET)
    with pytest.raises(ValueError, match="X must be counts of at least 0"):
        model.elbo(choices(50) - 1.0)
    with pytest.raises(ValueError, match="noise must be None or False for likelihood='multinomial'"):
        model.sample(2, noise=True)
