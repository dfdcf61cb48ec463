"""The mixture that a VAE's latents are drawn from: against SciPy and scikit-learn, in files, in the hands of a user."""

from __future__ import annotations

import sys

import numpy as np
import pytest

import minigen
from minigen.estimators import mixture
from minigen.training import checkpoint, history
from models import blobs

pytest.importorskip("sklearn")
stats = pytest.importorskip("scipy.stats")

SMALL = dict(hidden=(16,), latent_dim=2, batch_size=32, epochs=3, components=3, latent_prior="mixture")
QUIET = {"progress": False}


def clusters(rows: int, width: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Latents around two centres, and a deviation for each."""
    rng = np.random.default_rng(seed)
    mu = rng.normal(0, 1, (rows, width)) + 6 * (rng.integers(0, 2, rows)[:, None] * 2 - 1)
    return mu, np.full((rows, width), 0.1)


@pytest.fixture(scope="module")
def fitted():
    return mixture.fit(*clusters(900, 3, 0), np.arange(900) % 2, 2, 4, seed=1)


@pytest.fixture(scope="module")
def model():
    return minigen.VAE(**SMALL).fit(blobs(), **QUIET)


@pytest.fixture(scope="module")
def labelled():
    return minigen.VAE(**SMALL).fit(blobs(), np.arange(200) % 3 == 0, **QUIET)


def test_the_density_is_scipys(fitted):
    z, groups = np.random.default_rng(2).normal(0, 5, (40, 3)), np.arange(40) % 2
    expected = np.zeros(40)
    for i in range(40):
        parts = zip(fitted.weights[groups[i]], fitted.means[groups[i]], fitted.factors[groups[i]], strict=True)
        for weight, mean, factor in parts:
            expected[i] += weight * stats.multivariate_normal(mean, np.linalg.inv(factor @ factor.T)).pdf(z[i])
    np.testing.assert_allclose(fitted.log_density(z, groups), np.log(expected), rtol=1e-9)


def test_draws_have_the_moments_of_the_mixture(fitted):
    n, rng = 40_000, np.random.default_rng(3)
    for group in range(2):
        z = fitted.draw(np.full(n, group), rng.random(n), rng.standard_normal((n, 3)))
        weights, means = fitted.weights[group], fitted.means[group]
        mean = weights @ means
        inner = sum(w * np.linalg.inv(f @ f.T) for w, f in zip(weights, fitted.factors[group], strict=True))
        covariance = inner + (weights[:, None] * (means - mean)).T @ (means - mean)
        np.testing.assert_allclose(z.mean(axis=0), mean, atol=0.2)
        np.testing.assert_allclose(np.cov(z, rowvar=False), covariance, rtol=0.05, atol=0.5)
        own = fitted.log_density(z[:2000], np.full(2000, group)).mean()
        assert own == pytest.approx(fitted.log_densities[group, 0], abs=0.15), "as likely as what it was fitted to"


def test_draws_of_a_slanted_component_have_its_covariance():
    """From noise whose covariance is the identity to the last digits."""
    U, mean = np.array([[1.0, 2.0, -1.0], [0.0, 2.0, 1.0], [0.0, 0.0, 0.5]]), np.array([1.0, -2.0, 3.0])
    one = mixture.Mixture(np.ones((1, 1)), mean[None, None], U[None, None], np.zeros((1, 2)))
    normals = np.sqrt(3) * np.concatenate([np.eye(3), -np.eye(3)])
    apart = one.draw(np.zeros(6, int), np.full(6, 0.5), normals) - mean
    np.testing.assert_allclose(apart.T @ apart / 6, np.linalg.inv(U @ U.T), rtol=1e-5)


def test_a_uniform_beyond_the_rounded_sum_of_weights_takes_the_last_component():
    weights = np.array([[0.5, 0.5 - 1e-9, 0.0]])
    made = mixture.Mixture(weights, np.arange(3.0).reshape(1, 3, 1), np.ones((1, 3, 1, 1)), np.zeros((1, 2)))
    z = made.draw(np.zeros(2, int), np.array([0.1, np.nextafter(1, 0)]), np.zeros((2, 1)))
    np.testing.assert_array_equal(z, [[0], [1]])


def test_held_out_rows_are_no_others():
    draws = np.broadcast_to(np.arange(20.0)[:, None], (3, 20, 1))  # three of each row
    known, held_out = (set(part.ravel()) for part in mixture._split(draws, np.random.default_rng(0)))
    assert len(held_out) == 2 and not known & held_out and known | held_out == set(range(20))


def test_two_clusters_are_found(fitted):
    assert fitted.components == [4, 4] and (fitted.log_densities[:, 1] > -6).all()  # one Gaussian would get -7.5
    alone = mixture.standard_normal(3).log_density(np.zeros((1, 3)), np.zeros(1, int))
    np.testing.assert_allclose(alone, -1.5 * np.log(2 * np.pi))


def test_few_rows_get_few_components_and_a_rare_class_one():
    mu, deviation = clusters(121, 2, 4)
    groups = np.r_[np.zeros(120, int), 1]
    made = mixture.fit(mu, deviation, groups, 2, 50, seed=0)
    assert made.components == [6, 1] and made.weights.shape == (2, 6) and made.weights[1, 0] == 1
    rng = np.random.default_rng(0)
    z = made.draw(np.ones(500, int), rng.random(500), rng.standard_normal((500, 2)))
    np.testing.assert_allclose(z.mean(axis=0), mu[120], atol=0.05)
    assert np.isfinite(made.log_density(z, np.ones(500, int))).all()


def test_a_mixture_that_knows_only_its_rows_is_reported(monkeypatch):
    monkeypatch.setattr(mixture, "ROWS_A_COMPONENT", 0.5)
    monkeypatch.setattr(mixture, "LEAST_ROWS_A_COMPONENT", 1)
    monkeypatch.setattr(mixture, "LEAST_POINTS", 500)
    mu, deviation = np.random.default_rng(0).normal(0, 1, (2, 60, 2))
    with pytest.warns(UserWarning, match="Try fewer components than 50"):
        mixture.fit(mu, np.full_like(deviation, 1e-3), np.zeros(60, int), 1, 50, seed=0)


def test_samples_come_from_the_mixture_unless_told_otherwise(model):
    known = model.latent_prior_
    assert known.components == [3] and np.isfinite(known.log_densities).all()
    drawn = model.sample(50, seed=4)
    np.testing.assert_array_equal(drawn, model.sample(50, seed=4, prior="mixture"))
    plain = minigen.VAE(**SMALL | {"latent_prior": "normal"}).fit(blobs(), **QUIET)
    assert plain.latent_prior_ is None
    np.testing.assert_array_equal(plain.sample(50, seed=4), model.sample(50, seed=4, prior="normal"))
    assert (drawn != plain.sample(50, seed=4)).any()
    again = minigen.VAE(**SMALL).fit(blobs(), **QUIET)
    for name, value in known.tensors().items():
        np.testing.assert_array_equal(value, again.latent_prior_.tensors()[name])
    with pytest.raises(ValueError, match="the model has no mixture"):
        plain.sample(3, prior="mixture")
    with pytest.raises(ValueError, match="prior must be None"):
        plain.sample(3, prior="gaussian")


def test_samples_are_nearer_to_the_latents_of_the_data(model):
    """Of four blobs the latents have clusters, between which N(0, I) draws too."""
    X = blobs(400, seed=0)

    def distance(items):
        return np.linalg.norm(items[:, None].astype(float) - X[None], axis=2).min(axis=1).mean()

    assert distance(model.sample(300, seed=0)) <= distance(model.sample(300, seed=0, prior="normal"))


def test_latent_score_is_the_density_of_the_latent(model):
    X = blobs(20, seed=3)
    mu, logvar = model.encode(X, return_logvar=True)
    zeros = np.zeros(20, int)
    np.testing.assert_allclose(model.latent_score(X), model.latent_prior_.log_density(mu, zeros), rtol=1e-6)
    normal = -((mu.astype(float) ** 2).sum(axis=1) / 2) - np.log(2 * np.pi)
    np.testing.assert_allclose(model.latent_score(X, prior="normal"), normal, rtol=1e-5)
    drawn = model.latent_score(X, samples=200, prior="normal")
    np.testing.assert_allclose(drawn, normal - np.exp(logvar.astype(float)).sum(axis=1) / 2, atol=1.0)
    np.testing.assert_allclose(model.latent_score(X[7:8], samples=5), model.latent_score(X, samples=5)[7:8], rtol=1e-4)
    with pytest.raises(ValueError, match="samples must be"):
        model.latent_score(X, samples=-1)


def test_each_class_has_a_mixture(labelled):
    assert len(labelled.latent_prior_.components) == 2
    X, y = blobs(12, seed=5), np.arange(12) % 2 == 1
    mu = labelled.encode(X, y)
    expected = labelled.latent_prior_.log_density(mu, y.astype(int))
    np.testing.assert_allclose(labelled.latent_score(X, y), expected, rtol=1e-6)
    assert labelled.sample(5, seed=1, y=True).shape == labelled.sample(5, seed=1).shape == (5, 12)


@pytest.mark.parametrize("which", ["model", "labelled"])
def test_it_is_saved_and_needs_no_scikit_learn_afterwards(which, request, tmp_path, monkeypatch):
    model = request.getfixturevalue(which)
    model.save(tmp_path / "m.safetensors")
    monkeypatch.setitem(sys.modules, "sklearn", None)
    monkeypatch.setitem(sys.modules, "sklearn.mixture", None)
    with pytest.raises(ImportError, match="needs scikit-learn: pip install"):
        minigen.VAE(**SMALL).fit(blobs(), **QUIET)
    loaded = minigen.load(tmp_path / "m.safetensors")
    np.testing.assert_array_equal(loaded.sample(20, seed=2), model.sample(20, seed=2))
    X, y = blobs(9, seed=6), None if which == "model" else np.zeros(9, bool)
    np.testing.assert_array_equal(loaded.latent_score(X, y), model.latent_score(X, y))


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("prior.weights", lambda v: v * 2),
        ("prior.factors", lambda v: -v),
        ("prior.means", lambda v: v[:, :, :1].copy()),
        ("prior.means", lambda v: v * np.nan),
        ("prior.log_densities", None),
    ],
)
def test_a_bad_mixture_in_a_file_is_refused(model, tmp_path, name, change):
    import json

    model.save(tmp_path / "m.safetensors")
    settings, tensors = checkpoint.read(tmp_path / "m.safetensors")
    if change is None:
        del tensors[name]
    else:
        tensors[name] = change(tensors[name])
    checkpoint.write(tmp_path / "m.safetensors", json.dumps(settings), tensors)
    with pytest.raises(minigen.ModelFileError, match=name):
        minigen.load(tmp_path / "m.safetensors")


def test_going_on_fits_it_anew_and_settings_may_change(model, tmp_path):
    model.save(tmp_path / "m.safetensors")
    on = minigen.load(tmp_path / "m.safetensors").set_params(components=2)
    seen = []
    on.partial_fit(blobs(), epochs=1, callbacks=[lambda end: seen.append(end.model.latent_prior_)], **QUIET)
    assert seen == [None] and on.latent_prior_.components == [2]
    assert on.set_params(latent_prior="normal").partial_fit(blobs(), epochs=0, **QUIET).latent_prior_ is None
    assert on.set_params(latent_prior="mixture").partial_fit(blobs(), epochs=0, **QUIET).latent_prior_ is not None
    assert minigen.VAE(**SMALL | {"epochs": 0}).fit(blobs(), **QUIET).latent_prior_ is None


@pytest.mark.parametrize(
    ("setting", "match"), [({"latent_prior": "flow"}, "latent_prior"), ({"components": 0}, "components")]
)
def test_bad_settings(setting, match):
    with pytest.raises(ValueError, match=match):
        minigen.VAE(**SMALL | setting).fit(blobs(), **QUIET)


def test_columns_of_a_table_and_numbers_beside_rows():
    X = np.random.default_rng(0).normal(50, 10, (120, 4)).astype(np.float32)
    table = minigen.VAE(**SMALL, likelihood="gaussian").fit(X, X[:, :1], **QUIET)
    mu = table.encode(X, X[:, :1])
    assert table.latent_prior_.components == [3]
    typical = table.latent_prior_.log_density(mu, np.zeros(120, int)).mean()
    assert typical == pytest.approx(table.latent_prior_.log_densities[0, 0], abs=2), "latents of standardised columns"


@pytest.mark.slow
def test_on_the_command_line(tmp_path, monkeypatch, capsys):
    from minigen import cli

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(history.History, "plot", lambda history, path: None)  # slow, and no subject
    np.save("x.npy", blobs())
    settings = ["--hidden", "8", "--latent-dim", "2", "--batch-size", "32", "--epochs", "2", "--components", "2"]
    words = ["train", "vae", "--data", "x.npy", *settings, "--latent-prior", "mixture", "--out", "run", "--quiet"]
    assert cli.run(words) == 0
    assert cli.run(["info", "run"]) == 0
    assert "2 Gaussians, " in capsys.readouterr().out
    for prior in ("mixture", "normal"):
        assert cli.run(["sample", "run", "-n", "4", "--seed", "1", "--prior", prior, "--out", f"{prior}.npy"]) == 0
        expected = minigen.load("run").sample(4, seed=1, prior=prior)
        np.testing.assert_array_equal(np.load(f"{prior}.npy"), expected)
    assert cli.run(["sample", "run", "--prior", "flow"]) == 2


@pytest.mark.parametrize("weighted", [False, True])
def test_scores_under_the_mixture_have_its_density_in_place_of_the_normals(model, labelled, weighted):
    """By another way: the same draws' density from `latent_score`, the entropy and the divergence in closed form."""
    for one, y in ((model, None), (labelled, np.arange(200) % 3 == 0)):
        X, how = blobs(), {"samples": 1, "seed": 5}
        method = one.score_samples if weighted else one.elbo
        found = method(X, y, prior="mixture", **how)
        mu, logvar = (part.astype(float) for part in one.encode(X, y, return_logvar=True))
        kl = 0.5 * (mu**2 + np.exp(logvar) - 1 - logvar).sum(axis=1)
        reconstruction = one.elbo(X, y, **how) + kl
        density = {prior: one.latent_score(X, y, prior=prior, **how) for prior in ("mixture", "normal")}
        noise = one.score_samples(X, y, **how) - reconstruction - density["normal"]  # -log q(z | x), of one draw
        np.testing.assert_allclose(found, reconstruction + density["mixture"] + noise, rtol=1e-4, atol=1e-3)
        np.testing.assert_array_equal(method(X, y, prior=None, **how), found)
        assert not np.allclose(found, method(X, y, **how))


def test_a_mixture_that_is_the_normal_changes_no_estimate(model):
    own = model.latent_prior_
    try:
        model.latent_prior_ = mixture.standard_normal(2)
        found = model.score_samples(blobs(), samples=4, prior="mixture")
        exact, drawn = (model.elbo(blobs(), samples=2000, prior=prior) for prior in ("normal", "mixture"))
    finally:
        model.latent_prior_ = own
    np.testing.assert_allclose(found, model.score_samples(blobs(), samples=4), rtol=1e-5, atol=1e-4)
    np.testing.assert_allclose(drawn, exact, atol=0.3)


def test_a_mixture_fitted_afterwards_sees_columns_as_the_training_did():
    X = np.random.default_rng(0).normal([5, -2, 100], [0.1, 3, 20], (200, 3)).astype(np.float32)
    how = SMALL | {"likelihood": "gaussian", "variance": "learned"}
    first = minigen.VAE(**how).fit(X, **QUIET)
    after = minigen.VAE(**how | {"latent_prior": "normal"}).fit(X, **QUIET).fit_latent_prior(X)
    np.testing.assert_allclose(after.latent_prior_.means, first.latent_prior_.means, rtol=1e-4, atol=1e-5)


def test_a_mixture_is_fitted_afterwards(model, tmp_path):
    plain = minigen.VAE(**SMALL | {"latent_prior": "normal"}).fit(blobs(), **QUIET)
    for method in (plain.elbo, plain.score_samples):
        with pytest.raises(ValueError, match="prior must be None or 'normal'"):
            method(blobs(), prior="mixture")
    assert plain.fit_latent_prior(blobs()) is plain
    np.testing.assert_array_equal(plain.latent_prior_.means, model.latent_prior_.means)
    np.testing.assert_array_equal(plain.sample(9, seed=1), model.sample(9, seed=1))
    plain.save(tmp_path / "m.safetensors")
    loaded = minigen.load(tmp_path / "m.safetensors")
    np.testing.assert_array_equal(loaded.elbo(blobs(), prior="mixture"), plain.elbo(blobs(), prior="mixture"))
    with pytest.raises(minigen.NotFittedError):
        minigen.VAE().fit_latent_prior(blobs())


def test_a_row_whose_latent_is_far_out_does_not_stop_a_fit():
    mu, deviation = clusters(300, 4, 0)
    none, how = np.zeros(300, int), dict(seed=0, draws=300, least_variance=1e-3)
    for far in (1e3, 1e5):
        some = mu.copy()
        some[:12] *= far * np.arange(1, 13)[:, None]
        found = mixture.fit(some, deviation, none, 1, 8, **how).log_density(some, none)
        assert np.isfinite(found).all()
        if far == 1e3:  # the others' components stay as narrow as they are
            alone = mixture.fit(mu[12:], deviation[12:], none[12:], 1, 8, **how).log_density(mu, none)
            assert found[12:].mean() > alone[12:].mean() - 8
