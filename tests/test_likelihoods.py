"""A VAE's likelihoods, as its user sees them: learned variances, noise, labels, bounds, and what is refused."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest

import minigen
from minigen.estimators import decoding
from minigen.reference import gaussian_loss, vae_loss
from models import blobs

QUIET = {"progress": False}
SMALL: dict[str, Any] = {"hidden": (16,), "latent_dim": 3, "batch_size": 32, "epochs": 2, "device": "numpy"}


def in_unit_columns(rows: int = 1000) -> np.ndarray:
    """Eight columns in [0, 1] that two hidden numbers explain."""
    rng = np.random.default_rng(0)
    X = rng.random((rows, 2)) @ (W := rng.random((2, 8))) / W.sum(axis=0)
    return ((X - X.min(axis=0)) / np.ptp(X, axis=0)).astype(np.float32)


def labels(rows: int = 200) -> np.ndarray:
    """Two blocks, of three labels and of two; the second follows from the first."""
    first = np.random.default_rng(1).integers(0, 3, rows)
    return np.hstack([np.eye(3, dtype=bool)[first], np.eye(2, dtype=bool)[(first > 0).astype(int)]])


UNIT = {**SMALL, "likelihood": "gaussian", "standardize": False, "hidden": (32,), "batch_size": 64}
UNIT |= {"device": "auto", "latent_dim": 4, "learning_rate": 3e-3}


def test_a_fixed_variance_collapses_and_says_so_and_a_learned_one_does_not():
    X = in_unit_columns()
    with pytest.warns(UserWarning, match=r"the KL of the last epoch is 0\.0.*variance='learned'") as caught:
        fixed = minigen.VAE(**UNIT | {"epochs": 20}).fit(X, **QUIET)
    assert len(caught) == 1 and caught[0].filename == __file__
    assert fixed.sample(500, seed=1).std(axis=0).mean() < 0.3 * X.std(axis=0).mean()
    for variance, shape in (("learned", (8,)), ("learned_scalar", ())):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            model = minigen.VAE(**UNIT | {"epochs": 20, "variance": variance}).fit(X, **QUIET)
        assert np.shape(model.variance_) == shape and (model.variance_ < 0.5 * X.var(axis=0).mean()).all()
        for noise, low in ((False, 0.7), (True, 0.85)):
            spread = model.sample(500, seed=1, noise=noise).std(axis=0).mean()
            assert low * X.std(axis=0).mean() < spread < 1.25 * X.std(axis=0).mean()
        assert model.elbo(X).mean() > fixed.elbo(X).mean() + 5


@pytest.mark.parametrize("variance", ["learned", "learned_scalar"])
def test_a_constant_column_stays_finite(variance):
    X = np.column_stack([in_unit_columns(200), np.full(200, 0.5, np.float32), np.zeros(200, np.float32)])
    for standardize in (True, False):
        model = minigen.VAE(**UNIT | {"variance": variance, "epochs": 20, "standardize": standardize})
        model.fit(X, **QUIET)
        assert np.isfinite(model.history_.values).all() and np.isfinite(model.variance_).all()
        assert (model.variance_ >= 0.99 * np.exp(gaussian_loss.LOGVAR_LOW)).all()
        assert np.isfinite(model.sample(20, seed=1)).all() and np.isfinite(model.elbo(X)).all()


SETTINGS: dict[str, dict[str, Any]] = {
    "learned": {"likelihood": "gaussian", "variance": "learned"},
    "scalar": {"likelihood": "gaussian", "variance": "learned_scalar", "optimizer": "sgd"},
    "continuous": {"likelihood": "continuous_bernoulli", "kl_warmup": 1.5, "free_bits": 0.1},
    "draws": {"importance_samples": 3},
    "labels": {"likelihood": "categorical", "blocks": (3, 2), "free_bits": 0.05},
}


@pytest.mark.parametrize("name", SETTINGS)
def test_going_on_gives_the_bits_of_a_training_without_a_stop(tmp_path, name):
    X = labels() if name == "labels" else blobs(100)
    make = lambda epochs: minigen.VAE(**SMALL | SETTINGS[name] | {"epochs": epochs})  # noqa: E731
    whole, parts = make(4).fit(X, **QUIET), make(2).fit(X, **QUIET)
    parts.save(tmp_path / "model")
    loaded = minigen.load(tmp_path / "model", device="numpy").partial_fit(X, epochs=2, **QUIET)
    assert loaded.get_params() == make(2).get_params()
    for a, b in zip(whole.networks_, loaded.networks_, strict=True):
        for key, value in a.state().items():
            np.testing.assert_array_equal(value, b.state()[key], err_msg=key)
    np.testing.assert_array_equal(whole.history_.values, loaded.history_.values)
    np.testing.assert_array_equal(whole.sample(5, seed=2, noise=True), loaded.sample(5, seed=2, noise=True))
    np.testing.assert_array_equal(whole.score_samples(X[:9]), loaded.score_samples(X[:9]))


def test_a_schedule_moves_the_variances_too():
    """Ten times the rate of the weights, also where a callback changes it."""
    X = blobs(64)

    def stop(end):
        end.model.learning_rate = 1e-12

    settings = SMALL | {"likelihood": "gaussian", "variance": "learned"}
    one = minigen.VAE(**settings | {"epochs": 1}).fit(X, **QUIET)
    two = minigen.VAE(**settings | {"epochs": 2}).fit(X, callbacks=[stop], **QUIET)
    np.testing.assert_allclose(one.variance_, two.variance_, rtol=1e-6)


def test_samples_with_and_without_noise():
    grey = minigen.VAE(**SMALL | {"likelihood": "gaussian", "variance": 0.01}).fit(blobs(100), **QUIET)
    np.testing.assert_array_equal(grey.sample(6, seed=1), grey.sample(6, seed=1, noise=False))
    means, drawn = (grey.sample(2000, seed=1, noise=noise).astype(float) for noise in (False, True))
    assert (drawn - means)[(means > 110) & (means < 145)].std() == pytest.approx(25.5, rel=0.05)
    columns = minigen.VAE(**SMALL | {"likelihood": "gaussian", "variance": 0.3}).fit(in_unit_columns(100), **QUIET)
    np.testing.assert_array_equal(columns.sample(6, seed=1), columns.sample(6, seed=1, noise=True))
    bits = minigen.VAE(**SMALL).fit(blobs(100) > 100, **QUIET)
    np.testing.assert_array_equal(bits.sample(6, seed=1), bits.sample(6, seed=1, noise=True))
    means = bits.sample(6, seed=1, noise=False)  # probabilities
    assert means.dtype == np.float32 and ((means > 0) & (means < 1)).all()
    with pytest.raises(ValueError, match="noise must be one of None, True, False"):
        bits.sample(1, noise=2)


def test_the_mean_and_the_draws_of_a_continuous_bernoulli():
    logits = np.repeat(np.float32([[-20.0, -2.0, -1e-7, 0.0, 0.7, 30.0]]), 20_000, axis=0)
    u = np.random.default_rng(0).random(logits.shape, np.float32)
    drawn = decoding.continuous_bernoulli(logits, u)
    mean = vae_loss.continuous_bernoulli_mean(logits[0].astype(np.float64))
    assert ((drawn >= 0) & (drawn <= 1)).all()
    np.testing.assert_allclose(drawn.mean(axis=0), mean, atol=4 * 0.29 / np.sqrt(20_000))
    X = blobs(200)
    model = minigen.VAE(**SMALL | {"likelihood": "continuous_bernoulli"}).fit(X, **QUIET)
    z = np.zeros((1, 3), np.float32)
    output = model._apply(model.decoder_, z)
    expected = 255 * vae_loss.continuous_bernoulli_mean(output)
    np.testing.assert_allclose(model.decode(z), expected, atol=0.51)
    np.testing.assert_array_equal(model.sample(4, seed=1), model.sample(4, seed=1, noise=False))


def test_labels_are_learned_and_drawn_one_hot():
    X = labels(300)
    model = minigen.VAE(
        **SMALL | {"likelihood": "categorical", "blocks": [3, 2], "epochs": 40, "learning_rate": 0.02, "device": "auto"}
    )
    model.fit(X, **QUIET)
    drawn = model.sample(500, seed=3)
    assert drawn.dtype == bool
    assert (drawn[:, :3].sum(axis=1) == 1).all() and (drawn[:, 3:].sum(axis=1) == 1).all()
    assert (drawn[:, 0] == drawn[:, 3]).mean() > 0.85  # the second label follows from the first
    np.testing.assert_allclose(drawn.mean(axis=0), X.mean(axis=0), atol=0.15)
    means = model.decode(model.encode(X))
    np.testing.assert_allclose(means[:, :3].sum(axis=1), 1, rtol=1e-5)
    assert (means[:, :3].argmax(axis=1) == X[:, :3].argmax(axis=1)).mean() > 0.9
    assert model.score_samples(X).mean() > -1.4  # log 3 is 1.1: the rest is what the bound lacks
    with pytest.raises(ValueError, match="X must be one-hot in columns 0 to 2.*row 1 is not"):
        model.elbo(np.array([[1, 0, 0, 1, 0], [1, 1, 0, 1, 0]], bool))


@pytest.mark.parametrize("name", ["learned", "continuous", "plain", "gaussian"])
def test_an_extreme_row_scores_very_low_and_never_nan(name):
    told = {"plain": {}, "gaussian": {"likelihood": "gaussian"}}.get(name) or SETTINGS.get(name, {})
    X = in_unit_columns(100)
    model = minigen.VAE(**SMALL | told).fit(X, **QUIET)
    usual = model.score_samples(X, samples=8).min()
    far = np.float32([1.0] if told.get("likelihood") != "gaussian" else [30, 1e4, 1e10, 1e20, 1e30, 3e38])
    rows = np.repeat(far[:, None], 8, axis=1)
    with np.errstate(all="ignore"):
        both = [model.score_samples(rows, samples=8), model.elbo(rows)]
        scores, errors = model.score_samples(rows, samples=8, return_std=True)
    for values in (*both, scores):
        assert not np.isnan(values).any()
    np.testing.assert_array_equal(scores, both[0])
    assert np.isnan(errors[np.isneginf(scores)]).all() and np.isfinite(errors[np.isfinite(scores)]).all()
    if len(far) > 1:
        assert (scores < usual - 100).all() and np.isfinite(scores[:2]).all()


@pytest.mark.parametrize("h", [-1e30, -200.0, 200.0, 1e30])
def test_an_extreme_log_variance_of_the_posterior_gives_no_nan(h):
    X = blobs(50)
    model = minigen.VAE(**SMALL).fit(X, **QUIET)
    state = model.encoder_.state()
    bias = state["encoder.1.b"]
    bias[3:] = h
    model.encoder_.load_state({**state, "encoder.1.b": bias})
    with np.errstate(all="ignore"):
        for scores in (model.elbo(X), model.score_samples(X, samples=4)):
            assert not np.isnan(scores).any() and (scores < -50).all()


def test_the_standard_error_is_that_of_the_mean_weight():
    X = blobs(40)
    model = minigen.VAE(**SMALL).fit(X, **QUIET)
    scores, errors = model.score_samples(X, samples=30, return_std=True)
    np.testing.assert_array_equal(scores, model.score_samples(X, samples=30))
    w = np.exp(np.stack([ratio - nats for nats, _, ratio in model._draws(X, None, 30, 0, None)]))
    np.testing.assert_allclose(scores, np.log(w.mean(axis=0)), rtol=1e-12)
    np.testing.assert_allclose(errors, w.std(axis=0, ddof=1) / np.sqrt(30) / w.mean(axis=0), rtol=1e-9)
    with pytest.raises(ValueError, match="samples must be an integer of at least 2, not 1"):
        model.score_samples(X, samples=1, return_std=True)


def test_a_score_encodes_once(monkeypatch):
    X = blobs(40)
    model = minigen.VAE(**SMALL).fit(X, **QUIET)
    passes = []
    forward = type(model.encoder_).forward
    monkeypatch.setattr(
        type(model.encoder_), "forward", lambda net, *given: passes.append(net.name) or forward(net, *given)
    )
    model.score_samples(X, samples=7)
    assert (passes.count("encoder"), passes.count("decoder")) == (1, 7)


def test_draws_tighten_the_bound_that_is_trained():
    """Burda et al. 2016: at the same weights the loss with more draws is smaller, since its bound is tighter."""
    X = blobs(400)
    model = minigen.VAE(**SMALL | {"epochs": 10}).fit(X, **QUIET)
    losses = []
    for draws in (1, 5, 50):
        again = minigen.VAE(**SMALL | {"importance_samples": draws, "learning_rate": 1e-30, "epochs": 1})
        again.partial_fit(X, epochs=0, **QUIET)
        for net, trained in zip(again.networks_, model.networks_, strict=True):
            net.load_state(trained.state())
        again._state = None
        losses.append(again.partial_fit(X, **QUIET).history_.losses["loss"].mean())
    assert losses[0] > losses[1] > losses[2]
    assert losses[2] == pytest.approx(-model.score_samples(X, samples=50).mean(), abs=0.1)


@pytest.mark.parametrize("name", SETTINGS)
def test_with_labels_beside_the_rows(name):
    """Every likelihood and bound of a conditional model: trained, scored, drawn for a label."""
    X = labels(100) if name == "labels" else blobs(100)
    y = np.arange(100) % 3
    told = SETTINGS[name] | {"normalization": "batch", "dropout": 0.1}
    model = minigen.VAE(**SMALL | told).fit(X, y, **QUIET)
    assert model.sample(6, seed=1, y=2, noise=True).shape == (6, *X.shape[1:])
    scores, errors = model.score_samples(X, y, samples=4, return_std=True)
    assert np.isfinite(scores).all() and np.isfinite(errors).all()
    assert not np.array_equal(scores, model.score_samples(X, (y + 1) % 3, samples=4))


REFUSED: dict[str, tuple[dict[str, Any], type[Exception], str]] = {
    "variance by word": (
        {"likelihood": "gaussian", "variance": "learnt"},
        ValueError,
        "variance must be a number above",
    ),
    "variance of bits": ({"variance": "learned"}, ValueError, "variance must be a number for likelihood='bernoulli'"),
    "no blocks": ({"likelihood": "categorical"}, ValueError, "blocks must be the widths of the blocks"),
    "empty blocks": (
        {"likelihood": "categorical", "blocks": ()},
        ValueError,
        "blocks must be the widths of the blocks",
    ),
    "block of 0": ({"likelihood": "categorical", "blocks": (3, 0)}, ValueError, r"blocks\[1\] must be"),
    "blocks of bits": ({"blocks": (3, 2)}, ValueError, "blocks must be None for likelihood='bernoulli'"),
    "warm-up": ({"kl_warmup": -1.0}, ValueError, "kl_warmup must be a finite number in"),
    "free bits": ({"free_bits": float("nan")}, ValueError, "free_bits must be a finite number in"),
    "no draws": ({"importance_samples": 0}, ValueError, "importance_samples must be an integer of at least 1"),
    "draws by half": ({"importance_samples": 1.5}, TypeError, "importance_samples must be an integer of at least 1"),
    "draws and beta": ({"importance_samples": 2, "beta": 2.0}, ValueError, "beta must be 1 with importance_samples"),
    "draws and warm-up": ({"importance_samples": 2, "kl_warmup": 1.0}, ValueError, "kl_warmup must be 0 with"),
    "draws and bits": ({"importance_samples": 2, "free_bits": 0.1}, ValueError, "free_bits must be 0 with"),
    "other blocks": (
        {"likelihood": "categorical", "blocks": (3, 3)},
        ValueError,
        "blocks must add up to the 5 columns",
    ),
    "no labels": ({"likelihood": "categorical", "blocks": (2, 3)}, ValueError, "X must be one-hot in columns 0 to 1"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_makes_no_sense_is_refused_before_any_work(name):
    settings, error, message = REFUSED[name]
    with pytest.raises(error, match=message):
        minigen.VAE(**SMALL | settings).fit(labels(), **QUIET)


def test_a_bernoulli_has_no_variance():
    model = minigen.VAE(**SMALL | {"epochs": 0}).fit(blobs(), **QUIET)
    assert not hasattr(model, "variance_")
    fixed = minigen.VAE(**SMALL | {"epochs": 0, "likelihood": "gaussian", "variance": 0.5}).fit(blobs(), **QUIET)
    assert fixed.variance_ == 0.5
