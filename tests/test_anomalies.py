"""The detector of unusual rows: what it finds, scikit-learn's manners, files, and what it says of columns."""

from __future__ import annotations

import numpy as np
import pytest

import minigen
from minigen.anomalies.columns import Quantiles, Standard

QUICK = dict(latent_prior="normal", steps=30, hidden=(8,), latent_dim=2, members=1, samples=2, batch_size=32)


def correlated(rows: int, seed: int = 0) -> np.ndarray:
    """Five columns that two hidden numbers explain, in different units."""
    rng = np.random.default_rng(seed)
    mixing = np.random.default_rng(99).normal(0, 1, (2, 5))
    noisy = rng.normal(0, 1, (rows, 2)) @ mixing + rng.normal(0, 0.1, (rows, 5))
    return (noisy * [1, 10, 0.1, 1, 100] + 7).astype(np.float32)


@pytest.fixture(scope="module")
def detector():
    return minigen.AnomalyDetector(latent_prior="normal", steps=600, hidden=(32,), latent_dim=2, members=2).fit(
        correlated(300)
    )


def test_it_finds_rows_whose_columns_do_not_go_together(detector):
    usual, unusual = correlated(100, 1), correlated(100, 2)
    for d in range(5):  # each column alone is as usual as before
        unusual[:, d] = np.roll(unusual[:, d], 7 * d)
    usual_scores, scores = detector.score_samples(usual), detector.score_samples(unusual)
    assert (scores[:, None] < usual_scores).mean() > 0.9
    assert (detector.predict(usual) == 1).mean() > 0.9 and (detector.predict(unusual) == -1).mean() > 0.5


def test_explain_names_the_column(detector):
    for d in range(5):
        row = correlated(1, 3)
        row[0, d] += 6 * correlated(300)[:, d].std()
        gains = detector.explain(row)
        assert gains.shape == (1, 5) and gains[0].argmax() == d and gains[0, d] > 10
    assert np.abs(detector.explain(correlated(50, 4))).mean() < 5


PRIORS_OF = [(score, prior) for score in ("bound", "likelihood", "reconstruction") for prior in ("normal", "mixture")]


@pytest.mark.parametrize(("score", "prior"), [*PRIORS_OF, ("latent", "mixture")])
def test_a_score_does_not_depend_on_the_neighbours(score, prior):
    if prior == "mixture":
        pytest.importorskip("sklearn")
    how = QUICK | dict(score_by=score, latent_prior=prior)
    detector = minigen.AnomalyDetector(**how).fit(correlated(80))
    X = correlated(40, 5)
    together = detector.score_samples(X)
    assert together.shape == (40,) and together.dtype == np.float64 and np.isfinite(together).all()
    np.testing.assert_allclose(detector.score_samples(X[::-1])[::-1], together, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose([detector.score_samples(X[i : i + 1])[0] for i in range(5)], together[:5], rtol=1e-3)
    again = minigen.AnomalyDetector(**how).fit(correlated(80))
    np.testing.assert_array_equal(again.score_samples(X), together)


def test_reconstruction_is_the_bound_without_its_kl():
    X = correlated(80)
    scores = {
        s: minigen.AnomalyDetector(score_by=s, **QUICK).fit(X).score_samples(X) for s in ("bound", "reconstruction")
    }
    assert (scores["reconstruction"] > scores["bound"] - 1e-6).all()
    model = minigen.AnomalyDetector(**QUICK).fit(X).models_[0]
    mu, logvar = (part.astype(float) for part in model.encode(Standard.of(X)(X), return_logvar=True))
    kl = 0.5 * (mu**2 + np.exp(logvar) - 1 - logvar).sum(axis=1)
    np.testing.assert_allclose(scores["reconstruction"] - scores["bound"], kl, rtol=1e-4, atol=1e-4)


def test_members_are_the_mean_and_contamination_the_share():
    X = correlated(200)
    detector = minigen.AnomalyDetector(**QUICK | dict(members=3, contamination=0.2)).fit(X)
    alone = [minigen.AnomalyDetector(**QUICK | dict(seed=i)).fit(X).score_samples(X) for i in range(3)]
    np.testing.assert_allclose(detector.score_samples(X), np.mean(alone, axis=0))
    assert (detector.predict(X) == -1).sum() == 40
    np.testing.assert_array_equal(detector.fit_predict(X), detector.predict(X))
    np.testing.assert_allclose(detector.decision_function(X), detector.score_samples(X) - detector.offset_)


def test_extreme_values_are_compressed():
    x = np.random.default_rng(0).normal(7, 3, (5000, 1))
    seen = Standard.of(x)(x)[:, 0]
    z = (x[:, 0] - x.mean()) / x.std()
    np.testing.assert_allclose(seen[np.abs(z) < 1], z[np.abs(z) < 1], atol=0.04)
    values = Standard.of(x)(np.array([[-1e30], [-20.0], [7.0], [50.0], [1e30]]))[:, 0]
    assert (np.diff(values) > 0).all() and 100 < values[-1] < 200
    constant = Standard.of(np.full((9, 2), [[0.0, 500.0]]))
    np.testing.assert_allclose(constant(np.array([[0.0, 500.0], [1.0, 1000.0]])), [[0, 0], [2 * np.arcsinh(0.5)] * 2])


@pytest.mark.slow  # seconds
def test_rarely_lit_pixels_do_not_undo_the_training():
    """They are up to 40 deviations away: in their own scale the loss reached 1e9, and scores of usual rows -1e17."""
    pytest.importorskip("sklearn")
    X = minigen.datasets.mnist_sample().images[:2000].reshape(2000, -1).astype(np.float32)
    detector = minigen.AnomalyDetector().fit(X[:1000])
    assert detector.models_[0].history_.last_epoch()["loss"] < 600
    assert detector.score_samples(X[1000:]).min() > -1e5


def test_quantiles_are_those_of_a_normal():
    stats = pytest.importorskip("scipy.stats")
    x = np.random.default_rng(0).lognormal(0, 2, (5000, 1))
    seen = Quantiles.of(x)(x)
    expected = stats.norm.ppf((stats.rankdata(x[:, 0]) - 0.5) / 5000)
    middle = np.abs(expected) < 3
    np.testing.assert_allclose(seen[middle, 0], expected[middle], atol=0.06)
    q = Quantiles.of(np.array([[0.0], [0.0], [0.0], [1.0]]))
    values = q(np.array([[-1e6], [-1.0], [0.0], [0.5], [1.0], [2.0], [1e30]]))[:, 0]
    assert (np.diff(values) > 0).all() and np.isfinite(values).all() and abs(values[2]) < 0.6
    assert q(np.array([[0.0]]))[0, 0] < 0 < q(np.array([[1.0]]))[0, 0]
    constant = Quantiles.of(np.full((9, 1), 5.0))
    assert abs(constant(np.array([[5.0]]))[0, 0]) < 1e-6 and constant(np.array([[6.0]]))[0, 0] > 0.1


def ring(n: int, rng: np.random.Generator) -> np.ndarray:
    """Points on a circle of radius 1, nearly."""
    angles = rng.uniform(0, 2 * np.pi, n)
    return (np.stack([np.cos(angles), np.sin(angles)], axis=1) + 0.04 * rng.standard_normal((n, 2))).astype(np.float32)


def test_rows_inside_of_a_ring_are_unusual():
    """N(0, I) as the latents' density, and a learned variance that stays at that of the columns, call them usual."""
    pytest.importorskip("sklearn")
    rng = np.random.default_rng(0)
    known, usual, inside = ring(300, rng), ring(200, rng), 0.3 * rng.standard_normal((200, 2)).astype(np.float32)
    known, usual, inside = (40 + 10 * points for points in (known, usual, inside))  # in units of some kind
    detector = minigen.AnomalyDetector(members=1).fit(known)
    better = detector.score_samples(usual)[:, None] > detector.score_samples(inside)
    assert better.mean() > 0.97, "of all pairs the usual one scores higher"
    assert detector.models_[0].variance_ < 0.05, "in units of a column's own"


@pytest.mark.parametrize("prior", ["normal", "mixture"])
@pytest.mark.parametrize("columns", ["standard", "quantile"])
def test_a_detector_is_saved(tmp_path, columns, prior):
    if prior == "mixture":
        pytest.importorskip("sklearn")
    pandas = pytest.importorskip("pandas")
    X = pandas.DataFrame(correlated(80), columns=list("abcde"))
    detector = minigen.AnomalyDetector(**QUICK | dict(columns=columns, latent_prior=prior, members=2)).fit(X)
    detector.save(tmp_path / "d.safetensors")
    loaded = minigen.load(tmp_path / "d.safetensors")
    assert loaded.get_params() == detector.get_params() and list(loaded.feature_names_in_) == list("abcde")
    np.testing.assert_array_equal(loaded.score_samples(X), detector.score_samples(X))
    np.testing.assert_array_equal(loaded.predict(X), detector.predict(X))
    with pytest.raises(ValueError, match="features|columns|names"):
        loaded.predict(X[["a", "b"]])


def test_a_bad_file_is_refused(tmp_path):
    import json

    from minigen.training import checkpoint

    detector = minigen.AnomalyDetector(columns="quantile", **QUICK).fit(correlated(80))
    detector.save(tmp_path / "d.safetensors")
    settings, tensors = checkpoint.read(tmp_path / "d.safetensors")
    claims = settings["params"] | {"latent_prior": "mixture"}
    bad = (("members", []), ("item_shape", [4]), ("offset", "low"), ("params", {"score_by": "x"}), ("params", claims))
    for name, value in bad:
        checkpoint.write(tmp_path / "bad.safetensors", json.dumps(settings | {name: value}), tensors)
        with pytest.raises(minigen.ModelFileError):
            minigen.load(tmp_path / "bad.safetensors")
    for columns in ("quantile", "standard"):
        claimed = settings | {"params": settings["params"] | {"columns": columns}}
        checkpoint.write(tmp_path / "bad.safetensors", json.dumps(claimed), tensors | {"scaling": -tensors["scaling"]})
        with pytest.raises(minigen.ModelFileError, match=columns):
            minigen.load(tmp_path / "bad.safetensors")
    del tensors["scaling"]
    checkpoint.write(tmp_path / "bad.safetensors", json.dumps(settings), tensors)
    with pytest.raises(minigen.ModelFileError, match="scaling is missing"):
        minigen.load(tmp_path / "bad.safetensors")


def test_a_file_from_before_there_was_a_choice_of_prior_scores_as_it_did(tmp_path):
    import json

    from minigen.training import checkpoint

    detector = minigen.AnomalyDetector(**QUICK).fit(correlated(80))
    detector.save(tmp_path / "d.safetensors")
    settings, tensors = checkpoint.read(tmp_path / "d.safetensors")
    del settings["params"]["latent_prior"]
    checkpoint.write(tmp_path / "old.safetensors", json.dumps(settings), tensors)
    old, X = minigen.load(tmp_path / "old.safetensors"), correlated(9, 1)
    np.testing.assert_array_equal(old.score_samples(X), detector.score_samples(X))


@pytest.mark.parametrize(
    "setting",
    [
        {"latent_prior": "x"},
        {"latent_prior": "normal", "score_by": "latent"},
        {"score_by": "x"},
        {"columns": "x"},
        {"contamination": 0.6},
        {"contamination": "some"},
        {"members": 0},
    ],
)
def test_bad_settings_are_named(setting):
    with pytest.raises(ValueError, match=next(iter(setting))):
        minigen.AnomalyDetector(**QUICK | setting).fit(correlated(40))


def test_bad_data_and_use_before_fit():
    with pytest.raises(minigen.NotFittedError, match="not trained yet"):
        minigen.AnomalyDetector().predict(correlated(4))
    with pytest.raises(minigen.NotFittedError):
        minigen.AnomalyDetector().save("x.safetensors")
    for bad in (correlated(1), np.full((9, 3), np.nan), [["a", "b"]] * 4):
        with pytest.raises((ValueError, TypeError), match="X"):
            minigen.AnomalyDetector(**QUICK).fit(bad)


@pytest.mark.slow
def test_scikit_learns_checks():
    checks = pytest.importorskip("sklearn.utils.estimator_checks")
    for result in checks.check_estimator(minigen.AnomalyDetector(**QUICK | dict(steps=10)), on_fail=None):
        assert result["status"] in ("passed", "skipped"), (result["check_name"], result["exception"])
