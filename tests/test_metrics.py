"""Metrics against closed forms, loops that spell out their definitions, and what they must say of known cases."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

import minigen
from minigen import metrics
from minigen.metrics import distances, pairs


def rows(rng, n, width, mean=0.0, scale=1.0):
    return (mean + scale * rng.standard_normal((n, width))).astype(np.float32)


# --- distances ------------------------------------------------------------------------------------------


def test_frechet_distance_of_shifted_and_stretched_rows(rng):
    """For b = c a + m: |(c - 1) mean + m|^2 + (c - 1)^2 tr cov, since the covariances commute."""
    a = rows(rng, 50, 7)
    b = (3 * a + 2).astype(np.float32)
    expected = ((2 * a.mean(0, dtype=np.float64) + 2) ** 2).sum() + 4 * a.astype(np.float64).var(0, ddof=1).sum()
    assert metrics.frechet_distance(a, b) == pytest.approx(expected, rel=1e-5)
    assert metrics.frechet_distance(a, a) == pytest.approx(0, abs=1e-9)


def test_frechet_distance_against_scipys_root_of_a_matrix(rng):
    linalg = pytest.importorskip("scipy.linalg")
    mix = rng.standard_normal((6, 6))
    a, b = rows(rng, 40, 6), (rows(rng, 30, 6) @ mix).astype(np.float32)
    A, B = (np.cov(x.astype(np.float64), rowvar=False) for x in (a, b))
    difference = a.mean(0, dtype=np.float64) - b.mean(0, dtype=np.float64)
    expected = difference @ difference + np.trace(A + B - 2 * linalg.sqrtm(A @ B).real)
    assert metrics.frechet_distance(a, b) == pytest.approx(expected, rel=1e-6)


def test_frechet_distance_with_fewer_rows_than_columns(rng):
    a, b = rows(rng, 5, 30), rows(rng, 4, 30, mean=1)
    found = metrics.frechet_distance(a, b)
    assert found == pytest.approx(metrics.frechet_distance(b, a), rel=1e-6) and found > 1


def test_kernel_distance_against_its_sum_of_pairs(rng):
    a, b = rows(rng, 9, 4), rows(rng, 9, 4, mean=0.5)

    def kernel(x, y):
        return (float(x.astype(np.float64) @ y) / 4 + 1) ** 3

    pairs = [(i, j) for i in range(9) for j in range(9)]
    expected = sum((kernel(a[i], a[j]) + kernel(b[i], b[j])) / 72 for i, j in pairs if i != j)
    expected -= sum(2 * kernel(a[i], b[j]) / 81 for i, j in pairs)
    found = metrics.kernel_distance(a, b)
    assert found.value == pytest.approx(expected, rel=1e-6) and math.isnan(found.error)


def test_kernel_distance_is_unbiased_and_knows_its_error(rng, monkeypatch):
    """Of equal distributions it is 0 within its error; of others it is not."""
    monkeypatch.setattr(distances, "BLOCK", 25)
    same = metrics.kernel_distance(rows(rng, 1000, 3), rows(rng, 1000, 3))
    other = metrics.kernel_distance(rows(rng, 1000, 3), rows(rng, 1000, 3, mean=1.0))
    assert abs(same.value) < 5 * same.error and other.value > 5 * other.error


# --- neighbours -----------------------------------------------------------------------------------------


def loop_radii(x, k):
    return [sorted(np.linalg.norm(x - row, axis=1))[k] for row in x]  # the first is the row itself


def test_neighbour_metrics_against_loops(rng):
    a, b = rows(rng, 23, 3).astype(np.float64), rows(rng, 31, 3, mean=0.3, scale=1.4).astype(np.float64)
    ball_a, ball_b = loop_radii(a, 3), loop_radii(b, 3)

    def inside(point, centres, reach):
        return [np.linalg.norm(point - c) <= r for c, r in zip(centres, reach, strict=True)]

    precision = np.mean([any(inside(x, b, ball_b)) for x in a])
    recall = np.mean([any(inside(x, a, ball_a)) for x in b])
    assert metrics.precision_recall(a, b, k=3) == pytest.approx((precision, recall))
    counts = np.array([inside(x, b, ball_b) for x in a])
    expected = counts.sum() / (3 * len(a)), counts.any(axis=0).mean()
    assert metrics.density_coverage(a, b, k=3) == pytest.approx(expected)


def test_what_the_neighbour_metrics_say(rng):
    """Of the same distribution all are high; a collapsed model has precision and no recall, noise neither."""
    real, same = rows(rng, 400, 2), rows(rng, 400, 2)
    collapsed, far = rows(rng, 400, 2, scale=0.02), rows(rng, 400, 2, mean=30)
    assert min(metrics.precision_recall(same, real)) > 0.9 and min(metrics.density_coverage(same, real)) > 0.8
    assert metrics.precision_recall(collapsed, real).precision > 0.9
    assert metrics.precision_recall(collapsed, real).recall < 0.1
    assert metrics.density_coverage(collapsed, real).coverage < 0.1
    assert metrics.precision_recall(far, real) == (0, 0) and metrics.density_coverage(far, real) == (0, 0)


def test_memorisation(rng):
    """Against Mann and Whitney's U by SciPy; copies are found, new rows of the distribution are not."""
    stats = pytest.importorskip("scipy.stats")
    train, new, held_out = (rows(rng, n, 3).astype(np.float64) for n in (200, 150, 120))
    copies = train[:150] + 1e-3
    found = metrics.memorisation(new, train, held_out)
    near = [np.linalg.norm(train - x, axis=1).min() for x in new]
    far = [np.linalg.norm(train - x, axis=1).min() for x in held_out]
    U = stats.mannwhitneyu(far, near).statistic
    assert found.share == pytest.approx(U / (120 * 150)) and abs(found.z) < 5
    assert metrics.memorisation(copies, train, held_out).share > 0.95
    assert metrics.memorisation(copies, train, held_out).z > 5


@pytest.mark.parametrize("kind", ["pixels", "bits", "far from zero", "doubles"])
def test_neighbours_are_exact(rng, kind, monkeypatch):
    """Although found by products in float32: against float64 differences, ties and equal rows included."""
    monkeypatch.setattr(pairs, "ELEMENTS", 2000)  # many blocks
    monkeypatch.setattr(pairs, "SPARE", 1)  # many doubts
    a, b = {
        "pixels": lambda: (rng.integers(0, 256, (n, 30)).astype(np.uint8) for n in (70, 90)),
        "bits": lambda: (rng.integers(0, 2, (n, 6)).astype(np.uint8) for n in (70, 90)),
        "far from zero": lambda: (rows(rng, n, 5, mean=3e4) for n in (70, 90)),
        "doubles": lambda: (1e25 * rng.normal(size=(n, 4)) for n in (70, 90)),
    }[kind]()
    b[40:50] = b[:10]
    b[50:60] = a[:10]
    squares = ((a[:, None].astype(np.float64) - b[None]) ** 2).sum(axis=2)
    order = np.argsort(squares, axis=1, kind="stable")[:, :3]
    found, numbers = pairs.nearest(a, b, 3)
    np.testing.assert_array_equal(numbers, order)
    np.testing.assert_array_equal(found, np.take_along_axis(squares, order, 1))
    own = ((b[:, None].astype(np.float64) - b[None]) ** 2).sum(axis=2)
    np.fill_diagonal(own, np.inf)
    reach = np.sort(own, axis=1)[:, 2]
    np.testing.assert_array_equal(pairs.nearest(b, b, 3, but_itself=True)[0][:, -1], reach)
    counts, covered = pairs.in_balls(a, b, reach)
    np.testing.assert_array_equal(counts, (squares <= reach).sum(axis=1))
    np.testing.assert_array_equal(covered, (squares <= reach).any(axis=0))
    edge = np.diag(squares[:, :70]) * (1 + 1e-7 * (-1.0) ** np.arange(70))  # a point each, just inside or just outside
    np.testing.assert_array_equal(pairs.in_balls(a, b[:70], edge)[0], (squares[:, :70] <= edge).sum(axis=1))


def test_copies_are_told_from_means(rng):
    train, new = rows(rng, 300, 20), rows(rng, 100, 20)
    means = (train[:100] + train[100:200] + train[200:]) / 3  # nearer to the training rows than new ones
    assert metrics.copied(train[:50] + np.float32(1e-3), train) == 1
    assert metrics.copied([[0.24], [0.26], [0.76]], [[0.0], [1.0]]) == pytest.approx(2 / 3)  # a third: at 1/4 and 3/4
    assert metrics.copied(new, train) == metrics.copied(means, train) == 0
    assert metrics.memorisation(means, train, new).share > 0.9


def test_class_coverage():
    class ByValue:
        @staticmethod
        def classes(items):
            return items[:, 0].astype(int)

    real = np.repeat([0, 1, 2, 3], 5)[:, None].astype(np.uint8)
    assert metrics.class_coverage(real[::-1], real, ByValue) == 1
    assert metrics.class_coverage(real[:10], real, ByValue) == pytest.approx(0.5)
    assert metrics.class_coverage(np.uint8([[9], [0]]), real, ByValue) == pytest.approx(0.25)
    with pytest.raises(ValueError, match="must give 20 classes"):
        metrics.class_coverage(real, real, type("Bad", (), {"classes": staticmethod(lambda items: items / 2)}))


# --- arguments, features, evaluation ---------------------------------------------------------------------


@pytest.mark.parametrize("metric", [metrics.frechet_distance, metrics.kernel_distance, metrics.precision_recall])
def test_bad_arguments(rng, metric):
    good = rows(rng, 10, 3)
    with pytest.raises(ValueError, match=r"samples must have items of shape \(3,\) as real has, not \(4,\)"):
        metric(rows(rng, 10, 4), good)
    with pytest.raises(ValueError, match="samples .*NaN"):
        metric(np.full((10, 3), np.nan), good)
    with pytest.raises(TypeError, match="features must be a function"):
        metric(good, good, "inception")
    with pytest.raises(ValueError, match="features must give finite rows"):
        metric(good, good, lambda x: x.sum())


def test_k_and_rows(rng):
    with pytest.raises(ValueError, match="k must be below the 3 rows of the smaller set, not 3"):
        metrics.precision_recall(rows(rng, 3, 2), rows(rng, 9, 2))


def test_features_see_items(rng):
    """In their shape and type, not as flat rows."""
    pictures = rng.integers(0, 256, (12, 4, 5), np.uint8)

    def features(items):
        assert items.shape[1:] == (4, 5) and items.dtype == np.uint8
        return items.mean(axis=2)

    expected = metrics.frechet_distance(pictures.mean(axis=2), (pictures // 2).mean(axis=2))
    assert metrics.frechet_distance(pictures, pictures // 2, features) == pytest.approx(expected, rel=1e-5)


@pytest.fixture(scope="module")
def model():
    train = np.random.default_rng(0).normal(size=(300, 3)).astype(np.float32)
    return minigen.VAE(likelihood="gaussian", hidden=8, latent_dim=2, epochs=2, device="numpy").fit(train), train


def test_evaluate(rng, model):
    """Each figure is what the metric gives for the samples of that seed, and for the held-out rows beside them."""
    vae, train = model
    held_out = rows(rng, 80, 3)
    found = metrics.evaluate(vae, train, held_out, seed=3)
    assert found.rows == 80
    assert found["frechet distance"].model == metrics.frechet_distance(vae.sample(80, seed=3), train)
    assert found["frechet distance"].held_out == pytest.approx(metrics.frechet_distance(held_out, train))
    assert 0.35 < found["nearer to training rows"].held_out < 0.65
    assert json.loads(found.to_json())["figures"]["recall"]["held_out"] == found["recall"].held_out
    assert "held-out rows" in str(found) and found._repr_html_().count("<tr>") == 2 + len(found.figures)
    assert found["bound"].of == "training rows" and found["copies of training rows"].held_out < 0.3
    np.testing.assert_allclose(found["bound"].held_out, vae.elbo(held_out, seed=3).mean(), rtol=1e-6)
    np.testing.assert_allclose(found["log likelihood"].held_out, vae.score_samples(held_out, seed=3).mean(), rtol=1e-6)
    error = np.sqrt(((vae.reconstruct(held_out) - held_out) ** 2).mean())
    assert found["reconstruction error"].held_out == pytest.approx(error, rel=1e-5)
    assert metrics.evaluate(vae, train, held_out, seed=3) == found
    with pytest.raises(ValueError, match="n must be an integer from 2 to 80, not 81"):
        metrics.evaluate(vae, train, held_out, n=81)
    with pytest.raises(minigen.NotFittedError):
        metrics.evaluate(minigen.VAE(), train, held_out)


def test_a_conditional_model_needs_labels_for_its_likelihoods(rng):
    train, held_out = rows(rng, 60, 3), rows(rng, 40, 3)
    y, y_new = np.arange(60) % 2, np.arange(40) % 2
    vae = minigen.VAE(likelihood="gaussian", hidden=4, latent_dim=2, epochs=1, batch_size=30, device="numpy")
    vae.fit(train, y)
    names = [figure.name for figure in metrics.evaluate(vae, train, held_out).figures]
    assert "bound" not in names and "recall" in names
    found = metrics.evaluate(vae, train, held_out, labels=(y, y_new))
    np.testing.assert_allclose(found["bound"].held_out, vae.elbo(held_out, y_new).mean(), rtol=1e-6)
    with pytest.raises(ValueError, match="labels must be a pair"):
        metrics.evaluate(vae, train, held_out, labels=(y, y))
