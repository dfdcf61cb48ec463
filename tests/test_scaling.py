"""The data's own units: columns of a table, zeros and ones, rounding at the edge of a range, and rows far outside."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

import minigen
from minigen.estimators import scaling
from minigen.reference_backend import NumpyBackend
from models import blobs

DEVICES = [name for name, device in minigen.devices().items() if device.usable]
TABLES = {"gan": minigen.GAN, "vae": lambda **settings: minigen.VAE(likelihood="gaussian", **settings)}
SMALL = {"hidden": (16,), "latent_dim": 4, "batch_size": 32, "epochs": 3}


@pytest.fixture(params=DEVICES)
def device(request):
    return request.param


@pytest.fixture(params=TABLES)
def table_model(request):
    return TABLES[request.param]


def table(rows: int = 200, seed: int = 0) -> np.ndarray:
    """Correlated columns as a table has them: in the thousands, tiny, far from 0, skewed, and a constant."""
    rng = np.random.default_rng(seed)
    common, own = rng.normal(size=(rows, 1)), rng.normal(size=(rows, 5))
    x = (common + own) / np.sqrt(2)
    columns = [3000 * x[:, 0] + 700, 1e-6 * x[:, 1], 1e5 + x[:, 2], np.exp(x[:, 3]), 40 * (x[:, 4] > 0)]
    return np.column_stack([*columns, np.full(rows, 0.1)]).astype(np.float32)


# --- columns ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(1, 1), (7, 3), (1000, 5), (3, 700)])
def test_statistics_are_those_of_float64_in_any_number_of_pieces(rng, monkeypatch, shape):
    rows = (rng.normal(size=shape) * 10.0 ** rng.integers(-20, 20, shape[1]) + 1e4).astype(np.float32)
    rows[:, 0] = 0.1
    ops = NumpyBackend()
    for chunk in (1, 100, 1 << 20):
        monkeypatch.setattr(scaling, "CHUNK", chunk)
        columns = scaling.measure(rows, ops)
        exact = rows.astype(np.float64)
        np.testing.assert_allclose(columns.mean, exact.mean(axis=0), rtol=1e-12)
        np.testing.assert_allclose(columns.std, exact.std(axis=0), rtol=1e-9, atol=1e-9 * columns.std.max())
        constant = exact.max(axis=0) == exact.min(axis=0)
        assert not columns.std[constant].any() and (columns.std[~constant] > 0).all()
        assert columns.mean[0] == np.float32(0.1)
        back = columns.restore(columns.standardise(rows, ops), ops)
        np.testing.assert_allclose(back, rows, rtol=1e-6, atol=1e-6 * columns.std.max())


@pytest.mark.slow
def test_columns_in_their_own_units_are_learnt(table_model, device):
    """No divergence; a sample's columns have the data's means and spreads, a GAN's within what a small one reaches."""
    X = table()
    settings = {**SMALL, "hidden": (32,), "epochs": 100, "learning_rate": 1e-3}
    model = table_model(device=device, **settings).fit(X)
    drawn = model.sample(2000, seed=0)
    assert drawn.dtype == np.float32 and drawn.shape == (2000, 6)
    np.testing.assert_array_equal(drawn[:, 5], np.float32(0.1))
    std = X[:, :5].std(axis=0, dtype=np.float64)
    off = np.abs(drawn[:, :5].mean(axis=0, dtype=np.float64) - X[:, :5].mean(axis=0, dtype=np.float64)) / std
    ratio = drawn[:, :5].std(axis=0, dtype=np.float64) / std
    most, low, high = (0.6, 0.2, 2.5) if model.kind == "gan" else (0.3, 0.8, 1.4)
    assert off.max() < most and ratio.min() > low and ratio.max() < high, (off, ratio)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["load_wine", "load_breast_cancer"])
def test_tables_of_scikit_learn(table_model, name):
    """With default settings but for 600 steps at most: a GAN comes near by then."""
    X = getattr(pytest.importorskip("sklearn.datasets", reason="no scikit-learn"), name)().data
    model = table_model()
    model.set_params(epochs=min(model.epochs, 600 // (len(X) // model.batch_size))).fit(X, progress=False)
    drawn = model.sample(2000, seed=0)
    off, ratio = np.abs(drawn.mean(axis=0) - X.mean(axis=0)) / X.std(axis=0), drawn.std(axis=0) / X.std(axis=0)
    assert off.max() < (0.8 if model.kind == "gan" else 0.15), off
    assert 0.5 < ratio.min() and ratio.max() < (2.2 if model.kind == "gan" else 1.25), ratio


def test_a_gan_on_grey_values_as_floats_spreads_as_they_do():
    X = blobs(400, 16).astype(np.float32)
    model = minigen.GAN(epochs=40, hidden=32, latent_dim=8, batch_size=64).fit(X)
    assert model.output_ == "linear" and model.columns_ is not None
    drawn = model.sample(1000, seed=0)
    assert drawn.std() == pytest.approx(X.std(), rel=0.4) and drawn.mean() == pytest.approx(X.mean(), rel=0.3)


@pytest.mark.slow
def test_other_units_give_the_same_model_in_those_units(table_model, device):
    """Units that are powers of two change no bit: same weights, and samples, reconstructions, scores that differ by
    the units alone; densities by their logarithm."""
    X = table()[:, :5]
    units = np.array([2.0, 0.5, 4.0, 1024.0, 1.0], np.float32)
    a, b = table_model(device=device, **SMALL).fit(X), table_model(device=device, **SMALL).fit(X * units)
    np.testing.assert_array_equal(a.sample(9, seed=3) * units, b.sample(9, seed=3))
    if a.kind == "gan":
        np.testing.assert_array_equal(a.discriminate(X), b.discriminate(X * units))
        np.testing.assert_array_equal(a.interpolate(1, 2) * units, b.interpolate(1, 2))
        return
    np.testing.assert_array_equal(a.encode(X), b.encode(X * units))
    np.testing.assert_array_equal(a.reconstruct(X) * units, b.reconstruct(X * units))
    jacobian = np.log(units.astype(np.float64)).sum()
    for score in ("elbo", "score_samples"):
        x, y = getattr(a, score)(X), getattr(b, score)(X * units)  # other noise: by the values of a row
        assert np.mean(x - y) == pytest.approx(jacobian, abs=1.5)
    difference = a.elbo(X, samples=400).mean() - b.elbo(X * units, samples=400).mean()
    assert difference == pytest.approx(jacobian, abs=0.1)


def test_reported_losses_are_in_the_units_of_the_data(device):
    X = table(256)
    model = minigen.VAE(likelihood="gaussian", device=device, **{**SMALL, "epochs": 30, "learning_rate": 1e-9}).fit(X)
    assert model.history_.last_epoch()["loss"] == pytest.approx(-model.elbo(X, samples=50).mean(), abs=0.3)
    assert abs(model.columns_.log_scale) > 1


def test_standardising_can_be_asked_for_and_declined(table_model):
    X = table() / 5000
    assert table_model(standardize=False, **SMALL).fit(X).columns_ is None
    inside = np.random.default_rng(0).random((100, 3))
    model = table_model(standardize=True, **SMALL).fit(inside)
    assert model.columns_ is not None and (model.kind == "vae" or model.output_ == "linear")
    assert minigen.GAN(**SMALL).fit(inside).columns_ is None  # a sigmoid reaches them
    for bad, data, text in [
        (minigen.GAN(standardize=True, output="tanh", **SMALL), inside, "output='linear'"),
        (minigen.VAE(standardize=True, **SMALL), inside, "likelihood='gaussian'"),
        (table_model(standardize=True, **SMALL), blobs(), "uint8"),
        (table_model(standardize="yes", **SMALL), inside, "standardize must be one of 'auto', True, False"),
    ]:
        with pytest.raises(ValueError, match="standardize must be") as caught:
            bad.fit(data)
        assert text in str(caught.value) and not hasattr(bad, "networks_")


def test_a_mapped_file_stays_out_of_memory(tmp_path, table_model):
    np.save(tmp_path / "x.npy", table())
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    seen = []
    watch = lambda end: seen.append(end.model._run.step.data)  # noqa: E731
    a = table_model(**SMALL).fit(mapped, callbacks=[watch])
    assert scaling._mapped(seen[0]) and not seen[0].flags.writeable
    b = table_model(**SMALL).fit(table())
    np.testing.assert_array_equal(a.history_.values, b.history_.values)
    np.testing.assert_array_equal(a.partial_fit(mapped).history_.values, b.partial_fit(table()).history_.values)


def test_arrays_on_a_gpu_are_standardised_there(computing_gpus, table_model):
    fake = computing_gpus()
    X = fake.empty((200, 6), np.float32)
    X[...] = table()
    a, b = (table_model(device="cuda", **SMALL).fit(data) for data in (X, table()))
    np.testing.assert_array_equal(a.columns_.mean, b.columns_.mean)
    np.testing.assert_array_equal(a.history_.values, b.history_.values)
    method = "discriminate" if a.kind == "gan" else "score_samples"
    found = getattr(a, method)(X)
    assert isinstance(found, fake.ndarray)
    np.testing.assert_array_equal(np.asarray(found), getattr(b, method)(table()))


# --- rows far outside -------------------------------------------------------------------------------


@pytest.mark.parametrize("likelihood", ["bernoulli", "gaussian"])
@pytest.mark.parametrize("standardize", [False, "auto"])
def test_the_worst_anomalies_score_lowest(device, likelihood, standardize):
    rng = np.random.default_rng(0)
    if likelihood == "bernoulli":  # its data have a range, its weights need not
        X = rng.random((200, 5)).astype(np.float32)
        far, model = X[:3], minigen.VAE(device=device, **SMALL).fit(X)
        state = model.encoder_.state()
        model.encoder_.load_state({**state, "encoder.1.b": state["encoder.1.b"] + np.float32(300)})
        X = X[:0]
    else:
        X = rng.normal(size=(200, 5)).astype(np.float32)
        far = X[:3].copy()
        far[0, 2], far[1, 0], far[2] = 9999, -9999, 9999
        model = minigen.VAE(likelihood="gaussian", standardize=standardize, device=device, **SMALL).fit(X)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for method in (model.elbo, model.score_samples):
            scores = method(far)
            assert np.isfinite(scores).all() and scores.max() < -1000
            assert not len(X) or scores.max() < method(X).min()
            assert scores.min() >= -1e30
        assert np.isfinite(model.score(far))
        mu, logvar = model.encode(far, return_logvar=True)
        assert np.isfinite(mu).all() and logvar.max() <= 40


def test_what_overflows_float32_scores_minus_infinity(device):
    X = np.random.default_rng(0).normal(size=(200, 5)).astype(np.float32)
    model = minigen.VAE(likelihood="gaussian", device=device, **SMALL).fit(X)
    far = np.concatenate([X[:4], np.full((1, 5), 3e38, np.float32), np.float32([[1e25, -1e25, 1e25, 3e38, -3e38]])])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for method in (model.elbo, model.score_samples):
            scores = method(far)
            assert np.isfinite(scores[:4]).all() and np.isneginf(scores[4:]).all()
        assert np.isneginf(model.score(far))
        model.reconstruct(far), model.encode(far)


# --- a row's score ----------------------------------------------------------------------------------


@pytest.mark.parametrize("data", ["bytes", "table"])
@pytest.mark.parametrize("method", ["elbo", "score_samples"])
def test_a_row_scores_alone_as_in_a_crowd(device, data, method, monkeypatch, rng):
    """Stated tolerance: 1e-5 of the score; the same noise, and only a sum's rounding may depend on other rows."""
    X = blobs(300) if data == "bytes" else table(300)
    settings = {} if data == "bytes" else {"likelihood": "gaussian"}
    model = minigen.VAE(device=device, **settings, **SMALL).fit(X)
    score = lambda rows: getattr(model, method)(rows, samples=3)  # noqa: E731
    crowd = score(X)
    close = {"rtol": 1e-5, "atol": 1e-4}
    for i in rng.integers(0, 300, 5):
        np.testing.assert_allclose(score(X[i : i + 1])[0], crowd[i], **close)
    order = rng.permutation(300)
    np.testing.assert_allclose(score(X[order]), crowd[order], **close)
    monkeypatch.setattr("minigen.estimators.scoring.ROWS_AT_ONCE", 70)
    np.testing.assert_allclose(score(X), crowd, **close)
    others = getattr(model, method)(X, samples=3, seed=1)
    assert np.abs(others - crowd).max() > 1e-3, "the seed decides nothing"


def test_chance_averages_out_over_rows():
    """With one draw a row, the mean bound of many rows is near that of many: rows do not share one draw's luck."""
    X = blobs(1000)
    model = minigen.VAE(**{**SMALL, "epochs": 20}).fit(X)
    exact = model.elbo(X, samples=100)
    one = np.array([model.elbo(X, seed=seed) for seed in range(8)])
    deviation = (one - exact).std()
    assert np.abs(one.mean(axis=1) - exact.mean()).max() < 5 * deviation / np.sqrt(1000)
    assert np.unique(minigen.estimators.scoring.noise_rows(X, NumpyBackend())).size > 700


def test_rows_are_encoded_once(monkeypatch):
    model = minigen.VAE(**SMALL).fit(blobs())
    encoded = []
    forward = type(model.encoder_).forward
    monkeypatch.setattr(
        type(model.encoder_), "forward", lambda self, x, work: encoded.append(self.name) or forward(self, x, work)
    )
    model.score_samples(blobs(), samples=5)
    assert encoded.count("encoder") == 1 and encoded.count("decoder") == 5


def test_scoring_shows_progress_when_asked_for_and_else_only_on_a_terminal(capfd):
    model = minigen.VAE(**SMALL).fit(blobs(), progress=False)
    model.score_samples(blobs(), progress=True)
    shown = capfd.readouterr().err
    assert "64 draws a row" in shown and "12800/12800" in shown
    model.score_samples(blobs()), model.elbo(blobs(), progress=False)
    assert capfd.readouterr().err == ""
    with pytest.raises(ValueError, match="progress must be"):
        model.elbo(blobs(), progress="no")


# --- rounding at the edge ---------------------------------------------------------------------------


def test_rounding_at_the_edge_is_clipped(device):
    rng = np.random.default_rng(0)
    X = rng.random((200, 5)).astype(np.float32)
    X[:, 0] = np.linspace(0, 1, 200)
    edge = X.copy()
    edge[-1, 0], edge[0, 0] = np.float32(1) + np.float32(1.2e-7), -1e-8
    for model, other in [
        (minigen.VAE(device=device, **SMALL), minigen.VAE(device=device, **SMALL)),
        (minigen.GAN(device=device, **SMALL), minigen.GAN(device=device, **SMALL)),
    ]:
        model.fit(edge), other.fit(X)
        np.testing.assert_array_equal(model.history_.values, other.history_.values)
        assert model.kind == "vae" or model.output_ == "sigmoid"
        model.partial_fit(edge)
        use = "discriminate" if model.kind == "gan" else "elbo"
        np.testing.assert_array_equal(getattr(other, use)(edge), getattr(other, use)(X))
    symmetric = minigen.GAN(device=device, **SMALL).fit(2 * edge - 1)
    assert symmetric.output_ == "tanh"
    assert edge[0, 0] < 0 and edge[-1, 0] > 1  # the caller's array is left alone


def test_what_lies_further_out_is_told_with_its_digits():
    X = np.random.default_rng(0).random((100, 3)).astype(np.float32)
    X[3, 1] = 1.00001
    for model in (minigen.VAE(**SMALL), minigen.GAN(output="sigmoid", **SMALL)):
        with pytest.raises(ValueError, match=r"X must lie in \[0, 1\] .* to 1\.00001; rescale it, np\.clip\(X, 0, 1\)"):
            model.fit(X)
    assert minigen.GAN(**SMALL).fit(X).output_ == "linear"


# --- zeros and ones ---------------------------------------------------------------------------------


def bits(rows: int = 300) -> np.ndarray:
    return (np.random.default_rng(0).random((rows, 2, 4)) < [0.05, 0.3, 0.6, 0.95]).astype(np.uint8)


TYPES = [(device, dtype) for device in DEVICES for dtype in (np.uint8, bool)]
TYPES += [("auto", np.int64), ("auto", np.uint32)]


@pytest.mark.slow
@pytest.mark.parametrize(("device", "dtype"), TYPES)
def test_zeros_and_ones_are_taken_as_such_and_come_back_as_they_came(device, dtype, tmp_path):
    X = bits().astype(dtype)
    vae = minigen.VAE(device=device, **{**SMALL, "epochs": 20, "learning_rate": 1e-2}).fit(X)
    gan = minigen.GAN(device=device, **{**SMALL, "epochs": 2}).fit(X)
    assert vae.binary_ and gan.binary_ and gan.output_ == "sigmoid"
    for model in (vae, gan):
        drawn = model.sample(1000, seed=0)
        assert drawn.dtype == dtype and drawn.shape == (1000, 2, 4) and set(np.unique(drawn)) <= {0, 1}
        model.save(tmp_path / "m")
        loaded = minigen.load(tmp_path / "m", device=device)
        assert loaded.binary_
        np.testing.assert_array_equal(loaded.sample(9, seed=2), model.sample(9, seed=2))
        model.partial_fit(X, epochs=1)
    # Drawn from p(x | z), not rounded: a pixel that is 1 in 5 of 100 is so in the samples too.
    assert np.abs(vae.sample(4000, seed=0).astype(float).mean(axis=0) - X.mean(axis=0)).max() < 0.08
    for between in (vae.decode(np.zeros((3, 4))), vae.reconstruct(X[:3]), gan.generate(np.zeros((3, 4)))):
        assert between.dtype == np.float32 and 0 < between.min() and between.max() < 1
    floats = minigen.VAE(device=device, **{**SMALL, "epochs": 20, "learning_rate": 1e-2}).fit(X.astype(np.float32))
    np.testing.assert_array_equal(vae.history_.values[:200], floats.history_.values)
    np.testing.assert_array_equal(vae.elbo(X.astype(np.uint8)), vae.elbo(X))


def test_other_numbers_are_refused_by_a_model_of_zeros_and_ones():
    model = minigen.VAE(**SMALL).fit(bits())
    for bad in (2 * bits(), bits().astype(np.float32), bits().astype(np.int64) + 1):
        with pytest.raises((ValueError, TypeError), match="X must be"):
            model.elbo(bad)
    grey = minigen.VAE(**SMALL).fit(blobs(200, 8).reshape(200, 2, 4))
    assert not grey.binary_
    grey.elbo(bits())  # nearly black pictures


def test_zeros_and_ones_on_a_gpu(computing_gpus):
    fake = computing_gpus()
    for dtype in (np.uint8, bool, np.int64):
        X = fake.empty((300, 2, 4), dtype)
        X[...] = bits()
        model = minigen.VAE(device="cuda", **SMALL).fit(X)
        assert model.binary_ and model.sample(2).dtype == dtype
        assert isinstance(model.elbo(X), fake.ndarray)


def test_pictures_of_zeros_and_ones_are_black_and_white(tmp_path):
    from minigen import output

    X = (np.random.default_rng(0).random((100, 8, 8)) < 0.5).astype(np.uint8)
    for model in (minigen.VAE(**SMALL).fit(X), minigen.GAN(output="tanh", **SMALL).fit(X)):
        drawn = model.sample(4, seed=0)
        picture = output.picture(model, (drawn,), 2)
        assert set(np.unique(picture)) - {0, 255} <= {picture[0, 0]}, "only the frame is grey"
        assert (picture == 255).sum() % drawn.sum() == 0
        output.write_items(tmp_path / "x.csv", model, drawn.reshape(4, 64))
        assert set((tmp_path / "x.csv").read_text().splitlines()[1].split(",")) <= {"0", "1"}


def test_lists_and_tables_of_zeros_and_ones():
    assert scaling.bits_as_bytes([[0, 1], [1, 1]])[0].dtype == np.uint8
    none = [[[0, 2], [1, 1]], [[0, 1], [1]], "abc", [[0.0, 1.0]], np.float32([[0, 1]]), np.empty((0, 3), int), None]
    for other in none:
        found, dtype = scaling.bits_as_bytes(other)
        assert found is other and dtype is None
