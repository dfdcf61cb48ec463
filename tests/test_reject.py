"""Samples that a GAN's discriminator finds least like data are left out, and the noise that samples are made of."""

from __future__ import annotations

import json

import numpy as np
import pytest

import minigen
from minigen.estimators import rejecting
from minigen.reference import activations
from minigen.training import checkpoint

rng = np.random.default_rng(5)
X = np.concatenate([rng.normal(-2, 0.3, (200, 3)), rng.normal(2, 0.3, (200, 3))]).astype(np.float32)
LABELS = np.repeat(["low", "high"], 200)
SETTINGS = dict(latent_dim=2, hidden=(16,), epochs=4, batch_size=16, seed=3, learning_rate=2e-3)


def gan(**more):
    return minigen.GAN(**SETTINGS | {"device": "cpu", "reject": 0.25} | more)


@pytest.fixture(scope="module")
def model():
    return gan().fit(X, progress=False)


@pytest.fixture(scope="module")
def conditional():
    return gan(ema=0.9).fit(X, LABELS, progress=False)


@pytest.mark.parametrize("device", ["numpy", "cpu"])
def test_what_is_below_the_limit_is_drawn_anew(device):
    model = gan(device=device).fit(X, progress=False)
    n = 2000
    as_drawn, kept = model.sample(n, seed=1, reject=False), model.sample(n, seed=1)
    assert np.array_equal(as_drawn, model.generate(model.latent(n, 1)))
    limit = activations.forward(model.limits_, "sigmoid")
    below = model.discriminate(as_drawn) < limit - 1e-5
    assert 0.2 < below.mean() < 0.3  # the share that was asked for, by other samples
    assert (model.discriminate(kept) > limit - 1e-5).all()
    changed = (as_drawn != kept).any(axis=1)
    assert changed[below].all() and changed.mean() < 0.3
    assert len(np.unique(kept, axis=0)) == n


def test_the_same_seed_gives_the_same_samples_however_many(model, tmp_path):
    whole = model.sample(300, seed=9)
    assert np.array_equal(whole, model.sample(300, seed=9)) and np.array_equal(whole[:7], model.sample(7, seed=9))
    assert not np.array_equal(whole, model.sample(300, seed=10))
    assert model.sample(0).shape == (0, 3)
    model.save(tmp_path / "m.safetensors")
    assert np.array_equal(minigen.load(tmp_path / "m.safetensors").sample(300, seed=9), whole)


def test_each_class_has_a_limit_of_its_own(conditional):
    assert conditional.limits_.shape == (2,)
    y = np.tile(conditional.classes_, 1000)
    as_drawn, kept = conditional.sample(2000, 0, y=y, reject=False), conditional.sample(2000, 0, y=y)
    for i, label in enumerate(conditional.classes_):
        of = y == label
        limit = activations.forward(conditional.limits_[i : i + 1], "sigmoid")
        assert 0.2 < (conditional.discriminate(as_drawn[of], y[of]) < limit).mean() < 0.3
        assert (conditional.discriminate(kept[of], y[of]) > limit - 1e-5).all()
    assert np.array_equal(conditional.sample(2000, 0, balanced=True), kept)
    assert conditional.sample(5, average=False).shape == (5, 3)


def test_numbers_beside_rows_and_labels_in_blocks():
    beside = np.linspace(0, 1, len(X), dtype=np.float32)[:, None]
    model = gan().fit(X, beside, progress=False)
    assert model.limits_.shape == (1,) and model.sample(9, y=[0.5]).shape == (9, 3)
    table = np.concatenate([X[:, :1], np.eye(2, dtype=np.float32)[rng.integers(0, 2, len(X))]], axis=1)
    model = gan(blocks=(1, 2), output="linear").fit(table, progress=False)
    drawn = model.sample(500, seed=2)
    assert (drawn[:, 1:].sum(axis=1) == 1).all() and set(np.unique(drawn[:, 1:])) == {0, 1}
    shares = model.sample(500, seed=2, noise=False)[:, 1:]
    assert ((shares > 0) & (shares < 1)).any()


def test_a_draw_that_is_always_rejected_ends(model):
    """The last of its tries is taken, so that sample returns."""
    hopeless = gan().fit(X, progress=False)
    hopeless.limits_ = np.array([np.finfo(np.float64).max])
    assert hopeless.sample(20, seed=0).shape == (20, 3)


@pytest.mark.parametrize("device", ["numpy", "cpu"])
def test_samples_are_made_of_noise_of_another_deviation(device, tmp_path):
    usual, wide = (gan(device=device, latent_std=std).fit(X, progress=False) for std in (1.0, 1.5))
    assert all(usual._state[key].tobytes() == wide._state[key].tobytes() for key in usual._state)  # no training differs
    z = usual.latent(200, seed=1)
    assert 0.9 < z.std() < 1.1 and np.array_equal(wide.latent(200, seed=1), np.float32(1.5) * z)
    drawn = wide.sample(200, seed=1, reject=False)
    assert np.array_equal(drawn, usual.generate(1.5 * z)) and not np.array_equal(drawn, usual.generate(z))
    assert wide.limits_ != usual.limits_  # they leave out the share of samples that they are told to
    below = wide.discriminate(wide.sample(2000, seed=1, reject=False)) < activations.forward(wide.limits_, "sigmoid")
    assert 0.2 < below.mean() < 0.3
    assert np.array_equal(wide.interpolate(3, 4)[0], wide.generate(wide.latent(1, 3))[0])
    assert np.array_equal(usual.set_params(latent_std=1.5).sample(200, seed=1, reject=False), drawn)
    wide.save(tmp_path / "m.safetensors")
    assert np.array_equal(minigen.load(tmp_path / "m.safetensors", device=device).sample(9, 1), wide.sample(9, 1))


def test_limits_follow_the_weights(model):
    again = gan().fit(X, progress=False)
    assert np.array_equal(again.limits_, model.limits_)
    seen = []
    look = [lambda end: seen.append(end.model.limits_) or False]
    again.partial_fit(X, epochs=1, progress=False, callbacks=look)
    assert not np.array_equal(again.limits_, model.limits_)
    gan().fit(X, progress=False, callbacks=look)
    assert seen == [None] * (1 + SETTINGS["epochs"])  # in a training there are none, nor before the first step
    assert gan(epochs=0).fit(X, progress=False).limits_ is None
    assert gan(reject=0).fit(X, progress=False).limits_ is None


def test_bad_settings_are_refused():
    for bad, why in (
        ({"reject": 0.6}, "reject"),
        ({"reject": -0.1}, "reject"),
        ({"pack": 2}, "pack=2"),
        ({"latent_std": 0}, "latent_std must be"),
        ({"latent_std": np.nan}, "latent_std must be"),
    ):
        with pytest.raises(ValueError, match=why):
            gan(**bad).fit(X, progress=False)
    with pytest.raises(ValueError, match="reject must be None or False"):
        gan(reject=0).fit(X, progress=False).sample(2, reject=True)
    with pytest.raises(ValueError, match="reject must be one of"):
        gan(reject=0).fit(X, progress=False).sample(2, reject=0.3)


def test_a_bad_file_is_refused(conditional, tmp_path):
    conditional.save(tmp_path / "m.safetensors")
    settings, tensors = checkpoint.read(tmp_path / "m.safetensors")
    for bad in (np.zeros(3), np.zeros(2, np.float32), np.array([0, np.nan])):
        checkpoint.write(tmp_path / "bad.safetensors", json.dumps(settings), tensors | {"reject.limits": bad})
        with pytest.raises(minigen.ModelFileError, match=r"reject\.limits"):
            minigen.load(tmp_path / "bad.safetensors")
    del settings["params"]["reject"], tensors["reject.limits"]  # a file from before there was such a thing
    checkpoint.write(tmp_path / "old.safetensors", json.dumps(settings), tensors)
    old = minigen.load(tmp_path / "old.safetensors")
    assert old.limits_ is None and np.array_equal(old.sample(9, 1), conditional.sample(9, 1, reject=False))


def test_a_diverged_model_has_no_limits(model, monkeypatch):
    monkeypatch.setattr(rejecting.Rejects, "_logits", lambda self, rows, codes: np.full(len(rows), np.nan))
    assert gan().fit(X, progress=False).limits_ is None
