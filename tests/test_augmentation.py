"""Rows made for rare classes."""

from __future__ import annotations

import numpy as np
import pytest

import minigen
from minigen import augmentation
from models import blobs

SMALL = minigen.VAE(hidden=(8,), latent_dim=2, batch_size=32, epochs=2)
Y = np.repeat(["a", "b", "c"], [150, 40, 10])


@pytest.mark.parametrize("method", ["transfer", "interpolate", "generate"])
def test_every_class_gets_as_many_rows_as_the_largest(method):
    X = blobs(200)
    more, labels = minigen.augment(X, Y, method=method, model=SMALL)
    np.testing.assert_array_equal(more[:200], X)
    np.testing.assert_array_equal(labels[:200], Y)
    assert more.dtype == np.uint8 and more.shape == (450, 12) and (labels[200:] == ["b"] * 110 + ["c"] * 140).all()
    again, _ = minigen.augment(X, Y, method=method, model=SMALL)
    other, _ = minigen.augment(X, Y, method=method, model=SMALL, seed=1)
    np.testing.assert_array_equal(more, again)
    assert (more != other).any()


@pytest.mark.parametrize("neighbours", [0, 2])
def test_new_rows_lie_between_the_latents_of_two(neighbours):
    X = blobs(200)
    how = {"method": "interpolate", "neighbours": neighbours, "sampling_strategy": {"c": 60}}
    sampler = minigen.Oversampler(model=SMALL, **how)
    more, labels = sampler.fit_resample(X, Y)
    assert len(more) == 250 and (labels[200:] == "c").all()
    z = sampler.model_.encode(X[Y == "c"])
    order = np.square(z[:, None] - z[None]).sum(axis=2).argsort(axis=1)
    pairs = [(i, j) for i in range(10) for j in order[i, 1 : neighbours + 1 if neighbours else None]]
    places = np.linspace(0, 1, 201, dtype=np.float32)[:, None]
    possible = np.concatenate([sampler.model_.decode(z[i] + places * (z[j] - z[i])) for i, j in pairs]).astype(int)
    gaps = [np.abs(possible - row).max(axis=1).min() for row in more[200:].astype(int)]
    assert max(gaps) <= 2 and len(np.unique(more[200:], axis=0)) > 20


def test_a_rare_row_is_moved_as_rows_of_a_larger_class_differ_from_their_mean():
    X = blobs(200)
    sampler = minigen.Oversampler(model=SMALL, sampling_strategy={"b": 60})
    more, labels = sampler.fit_resample(X, Y)
    assert len(more) == 220 and (labels[200:] == "b").all()
    z = sampler.model_.encode(X)
    moves = np.concatenate([z[Y == c] - z[Y == c].mean(axis=0) for c in "ab"])  # "c" has fewer rows
    possible = sampler.model_.decode((z[Y == "b"][:, None] + augmentation.SHARE * moves).reshape(-1, 2)).astype(int)
    gaps = [np.abs(possible - row).max(axis=1).min() for row in more[200:].astype(int)]
    assert max(gaps) <= 1 and len(np.unique(more[200:], axis=0)) == 20


def test_tables_whole_numbers_and_a_single_row():
    rng = np.random.default_rng(0)
    X, y = rng.integers(0, 1000, (60, 3)), np.arange(60) > 58
    more, labels = minigen.augment(X, y, method="interpolate", steps=20)
    assert more.dtype == X.dtype and len(more) == 118 and labels.sum() == 59
    np.testing.assert_array_equal(more[:60], X)
    assert len(np.unique(more[60:], axis=0)) == 1
    pandas = pytest.importorskip("pandas")
    frame, _ = minigen.augment(pandas.DataFrame(X, columns=list("abc")), y, steps=20)
    assert list(frame.columns) == list("abc") and len(frame) == 118


def test_nothing_to_do_trains_nothing():
    X = blobs(20)
    sampler = minigen.Oversampler()
    more, labels = sampler.fit_resample(X, np.arange(20) % 2)
    np.testing.assert_array_equal(more, X)
    assert not hasattr(sampler, "model_") and (labels == np.arange(20) % 2).all()


@pytest.mark.parametrize(
    ("settings", "match"),
    [
        ({"method": "x"}, "method"),
        ({"sampling_strategy": "all"}, "sampling_strategy"),
        ({"sampling_strategy": {"z": 9}}, "sampling_strategy"),
        ({"sampling_strategy": {"a": 9}}, "sampling_strategy"),
        ({"neighbours": -1}, "neighbours"),
        ({"model": "vae"}, "model"),
    ],
)
def test_bad_settings(settings, match):
    with pytest.raises((ValueError, TypeError), match=match):
        minigen.augment(blobs(200), Y, **settings)
    with pytest.raises(ValueError, match="y must be labels"):
        minigen.augment(blobs(200), np.zeros((200, 2)))
