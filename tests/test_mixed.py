"""VAE(likelihood="mixed"): columns of numbers and of labels in one model."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import minigen

SMALL: dict[str, Any] = {
    "likelihood": "mixed",
    "blocks": (1, 3, 1),
    "variance": "learned",
    "latent_dim": 3,
    "hidden": (24,),
    "epochs": 60,
    "batch_size": 50,
    "learning_rate": 1e-2,
    "device": "cpu",
    "seed": 1,
}


def table(rows: int = 400) -> np.ndarray:
    """A label, a number that depends on it, and a number of another size."""
    rng = np.random.default_rng(2)
    label = rng.choice(3, rows, p=[0.5, 0.3, 0.2])
    number = np.array([-20.0, 0.0, 40.0])[label] + rng.normal(size=rows)
    return np.column_stack([number, np.eye(3)[label], 1e3 + rng.normal(size=rows)]).astype(np.float32)


@pytest.fixture(scope="module")
def model() -> minigen.VAE:
    return minigen.VAE(**SMALL).fit(table(), progress=False)


def test_samples_have_labels_and_numbers_that_belong_together(model):
    x = model.sample(2000, seed=3)
    labels, real = x[:, 1:4], table()
    assert set(np.unique(labels)) == {0, 1} and (labels.sum(axis=1) == 1).all()
    np.testing.assert_allclose(labels.mean(axis=0), real[:, 1:4].mean(axis=0), atol=0.1)
    medians = [np.median(x[labels[:, k] == 1, 0]) for k in range(3)]
    assert medians[0] < medians[1] - 8 < medians[2] - 16
    assert x[:, 4].mean() == pytest.approx(1e3, abs=0.5) and x[:, 4].std() == pytest.approx(1, abs=0.5)
    np.testing.assert_array_equal(x, model.sample(2000, seed=3))


def test_without_noise_samples_are_means_and_probabilities(model):
    x = model.sample(50, seed=3, noise=False)
    np.testing.assert_allclose(x[:, 1:4].sum(axis=1), 1, atol=1e-5)
    assert ((x[:, 1:4] > 0) & (x[:, 1:4] < 1)).any()
    z = model._normal((50, 3), 3, 4)
    np.testing.assert_array_equal(x, model.decode(z))
    again = model.reconstruct(table())
    assert (again[:, 1:4].argmax(axis=1) == table()[:, 1:4].argmax(axis=1)).mean() > 0.95


def test_the_noise_of_a_number_and_the_draw_of_a_label_are_independent():
    """Blocks next to each other would share random bits if both were drawn from the same."""
    rng = np.random.default_rng(0)
    rows = np.column_stack([rng.normal(size=(200, 1)), np.eye(2)[rng.integers(0, 2, 200)]])
    model = minigen.VAE(**SMALL | {"blocks": (1, 2), "epochs": 1, "learning_rate": 1e-9}).fit(rows, progress=False)
    x, means = model.sample(20000, seed=1), model.sample(20000, seed=1, noise=False)
    noise, surprise = x[:, 0] - means[:, 0], x[:, 1] - means[:, 1]
    assert abs(np.corrcoef(noise, surprise)[0, 1]) < 0.03


def test_variances_are_those_of_the_numbers(model):
    assert model.variance_.shape == (5,) and np.isnan(model.variance_[1:4]).all()
    assert (model.variance_[[0, 4]] > 0).all()
    untrained = minigen.VAE(**SMALL | {"epochs": 0}).fit(table(), progress=False).noise_.state()["noise.0.logvar"]
    moved = model.noise_.state()["noise.0.logvar"] != untrained
    np.testing.assert_array_equal(moved, [True, False, False, False, True])
    assert np.array_equal(model.columns_.mean[1:4], [0, 0, 0]) and np.array_equal(model.columns_.std[1:4], [1, 1, 1])
    fixed = minigen.VAE(**SMALL | {"variance": 0.25, "epochs": 1}).fit(table(), progress=False)
    scalar = minigen.VAE(**SMALL | {"variance": "learned_scalar", "epochs": 1}).fit(table(), progress=False)
    assert fixed.variance_ == 0.25 and scalar.variance_.shape == () and 0 < scalar.variance_ < 2


def test_a_saved_model_samples_and_scores_the_same(model, tmp_path):
    model.save(tmp_path / "model.safetensors")
    other = minigen.load(tmp_path / "model.safetensors", device="cpu")
    assert other.blocks == model.blocks
    np.testing.assert_array_equal(model.sample(20, seed=3), other.sample(20, seed=3))
    np.testing.assert_array_equal(model.elbo(table()[:20]), other.elbo(table()[:20]))
    other.partial_fit(table(), epochs=1, progress=False)


def test_scores_are_densities_in_the_units_of_the_data():
    """Of a model whose posterior is the prior, and whose decoder says nothing, they are known."""
    rows = table()
    plain = minigen.VAE(**SMALL | {"variance": 1.0, "epochs": 1}).fit(rows, progress=False)
    for net in (plain.encoder_, plain.decoder_):
        net.load_state({key: np.zeros_like(value) for key, value in net.state().items()})
    scaled = (rows[:, [0, 4]] - rows[:, [0, 4]].mean(axis=0)) / rows[:, [0, 4]].std(axis=0)
    expected = -np.log(3) - (scaled**2 / 2 + np.log(2 * np.pi) / 2 + np.log(rows[:, [0, 4]].std(axis=0))).sum(axis=1)
    np.testing.assert_allclose(plain.score_samples(rows, samples=2), expected, rtol=1e-4)


BAD = {
    "no blocks": ({"blocks": None}, table, "blocks must be the widths"),
    "wrong sum": ({"blocks": (1, 3)}, table, "blocks must add up to the 5 columns"),
    "no labels": ({"blocks": (3, 1, 1)}, table, "X must be one-hot in columns 0 to 2"),
    "tiny variance": ({"variance": 1e-9}, table, "variance must be"),
    "grey levels": ({}, lambda: (100 * table()).clip(0, 255).astype(np.uint8), "X must be floating"),
    "not standardised": ({"blocks": (3, 1, 1), "standardize": False}, table, "X must be one-hot in columns 0 to 2"),
}


@pytest.mark.parametrize("case", BAD)
def test_what_is_refused(case):
    settings, rows, message = BAD[case]
    with pytest.raises(ValueError, match=message):
        minigen.VAE(**SMALL | settings).fit(rows(), progress=False)


def test_rows_to_score_are_checked_too(model):
    bad = table()
    bad[7, 2] = 0.5
    with pytest.raises(ValueError, match="row 7"):
        model.elbo(bad)


def test_conditions_and_importance_samples():
    rows = table(100)
    told = SMALL | {"importance_samples": 3, "epochs": 2}
    model = minigen.VAE(**told).fit(rows, rows[:, 1:4].argmax(axis=1), progress=False)
    x = model.sample(5, y=1, seed=0)
    assert x.shape == (5, 5) and np.isfinite(x).all()
