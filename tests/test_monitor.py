"""Metrics in the course of a training: what is recorded, when it stops, which weights it keeps, what it warns of."""

from __future__ import annotations

import csv
import json
import warnings

import numpy as np
import pytest

import minigen
from minigen import metrics
from minigen.cli import run
from minigen.estimators import looking_back
from minigen.training.checkpoint import read, write
from models import blobs

QUICK = dict(hidden=6, latent_dim=2, batch_size=16, device="numpy")
X, NEW = blobs(96), blobs(400)[300:348]


@pytest.fixture(autouse=True)
def no_warnings_of_tiny_models():
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "mode collapse, or")
        yield


def falling_then_rising(best):
    """A metric that is best at the evaluation of this number."""
    seen = []

    def metric(model, validation):
        seen.append(model.decode(np.zeros((1, 2), np.float32)) if model.kind == "vae" else model.sample(1, seed=0))
        return abs(len(seen) - best)

    metric.seen = seen
    return metric


@pytest.mark.parametrize("family", [minigen.GAN, minigen.VAE])
def test_metrics_are_those_of_the_model_at_that_epoch(family, tmp_path):
    """Of 48 samples and the 48 validation rows; real rows' are those of training rows in the samples' place."""
    kept = {}
    model = family(epochs=5, **QUICK)
    model.fit(
        X,
        validation=NEW,
        evaluate_every=2,
        metrics=["frechet distance", "copies of training rows"],
        callbacks=[lambda end: kept.update({end.epoch: end.model.sample(48, seed=0)}) or False],
    )
    history = model.history_
    assert history.evaluations.epochs == [2, 4, 5] and set(history.metrics) == {
        "frechet distance",
        "copies of training rows",
    }
    expected = [metrics.frechet_distance(kept[epoch], NEW) for epoch in (2, 4, 5)]
    np.testing.assert_allclose(history.metrics["frechet distance"], expected, rtol=1e-6)
    expected = [metrics.copied(kept[epoch], X) for epoch in (2, 4, 5)]
    np.testing.assert_allclose(history.metrics["copies of training rows"], expected)
    real = history.evaluations.real
    assert real["copies of training rows"] == metrics.copied(NEW, X)
    assert 0 < real["frechet distance"] < min(history.metrics["frechet distance"])
    model.save(tmp_path / "model")
    loaded = minigen.load(tmp_path / "model").history_
    assert loaded.evaluations.to_file() == history.evaluations.to_file()
    history.to_csv(tmp_path / "history.csv")
    table = list(csv.DictReader((tmp_path / "history.csv").open()))
    assert [row["copies of training rows"] != "" for row in table] == [False, True, False, True, True]


def test_evaluations_do_not_change_the_training():
    plain = minigen.GAN(epochs=2, **QUICK).fit(X)
    watched = minigen.GAN(epochs=2, **QUICK).fit(X, validation=NEW, evaluate_every=1)
    np.testing.assert_array_equal(watched.history_.values, plain.history_.values)
    np.testing.assert_array_equal(watched.sample(5, seed=1), plain.sample(5, seed=1))


@pytest.mark.parametrize("train, family", [(minigen.train_gan, minigen.GAN), (minigen.train_vae, minigen.VAE)])
def test_the_short_form_measures_too(train, family):
    how = dict(validation=NEW, evaluate_every=2, metrics=["coverage"], restore_best=True, patience=3)
    short = train(X, epochs=2, progress=False, **how, **QUICK)
    long = family(epochs=2, **QUICK).fit(X, **how)
    assert list(short.history_.metrics) == ["coverage"]
    np.testing.assert_array_equal(short.history_.metrics["coverage"], long.history_.metrics["coverage"])
    with pytest.raises(TypeError, match="validate"):
        train(X, validate=NEW)


def test_the_bound_is_that_of_the_validation_rows():
    model = minigen.VAE(epochs=2, **QUICK).fit(X, validation=NEW, metrics=["bound", "log likelihood"], evaluate_every=2)
    assert model.history_.metrics["bound"][-1] == pytest.approx(model.elbo(NEW).mean(), rel=1e-6)
    assert model.history_.metrics["log likelihood"][-1] == pytest.approx(model.score_samples(NEW).mean(), rel=1e-6)


def test_zeros_and_ones():
    bits = X > 100
    model = minigen.VAE(epochs=1, **QUICK).fit(bits, validation=bits[:40], metrics=["bound", "reconstruction error"])
    error = np.sqrt(((model.reconstruct(bits[:40]) - bits[:40]) ** 2).mean())
    assert model.history_.metrics["reconstruction error"][0] == pytest.approx(error, rel=1e-5)


@pytest.mark.parametrize("family", [minigen.GAN, minigen.VAE])
def test_early_stopping_and_the_best_weights(family, tmp_path):
    metric = falling_then_rising(3)
    settings = {"ema": 0.9} if family is minigen.GAN else {}
    model = family(epochs=20, **settings, **QUICK)
    model.fit(X, validation=NEW, evaluate_every=1, metrics=[metric], patience=2, restore_best=True)
    history = model.history_
    assert (history.stop_reason, history.epochs, history.evaluations.best_epoch) == ("early stopping", 5, 3)
    now = model.decode(np.zeros((1, 2), np.float32)) if family is minigen.VAE else model.sample(1, seed=0)
    np.testing.assert_array_equal(now, metric.seen[2])
    model.save(tmp_path / "model")
    assert minigen.load(tmp_path / "model").history_.stop_reason == "early stopping"
    model.partial_fit(X, epochs=1)
    assert history.epochs == 6 and history.steps == 6 * 6


def test_without_restore_best_the_last_weights_stay():
    metric = falling_then_rising(1)
    model = minigen.GAN(epochs=3, **QUICK).fit(X, validation=NEW, evaluate_every=1, metrics=[metric])
    np.testing.assert_array_equal(model.sample(1, seed=0), metric.seen[-1])
    assert model.history_.evaluations.best_epoch == 1 and model.history_.stop_reason == "finished"


def test_labels_and_numbers_beside_validation_rows():
    y, y_new = np.arange(96) % 3, np.arange(48) % 3
    model = minigen.VAE(epochs=1, **QUICK).fit(X, y, validation=(NEW, y_new))
    assert model.history_.metrics["bound"][-1] == pytest.approx(model.elbo(NEW, y_new).mean(), rel=1e-6)
    beside = np.linspace(0, 1, 96)[:, None]
    minigen.GAN(epochs=1, **QUICK).fit(X, beside, validation=(NEW, beside[:48]))
    with pytest.raises(ValueError, match="y must be given"):
        minigen.VAE(epochs=1, **QUICK).fit(X, y, validation=NEW)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"evaluate_every": 1}, "validation must be given with evaluate_every"),
        ({"restore_best": True}, "validation must be given with restore_best"),
        ({"validation": NEW, "evaluate_every": 0}, "evaluate_every must be an integer of at least 1, not 0"),
        ({"validation": NEW, "patience": 0}, "patience must be an integer of at least 1"),
        ({"validation": NEW, "metrics": ["fid"]}, r"metrics\[0\] must be one of 'frechet distance'"),
        ({"validation": NEW, "metrics": ["bound"]}, r"metrics\[0\] must be one of"),
        ({"validation": NEW, "metrics": "recall"}, "metrics must be a list of names"),
        ({"validation": NEW[:, :3]}, r"validation must have items of shape \(12,\) as X has, not \(3,\)"),
        ({"validation": NEW.astype(float)}, "validation must be uint8"),
        ({"validation": NEW, "metrics": ["nearer to training rows"], "patience": 1}, "metrics must begin with"),
    ],
)
def test_arguments_that_make_no_sense(given, message):
    with pytest.raises((TypeError, ValueError), match=message):
        minigen.GAN(epochs=1, **QUICK).fit(X, **given)


def test_files_whose_metrics_cannot_be_are_refused(tmp_path):
    model = minigen.GAN(epochs=1, **QUICK).fit(X, validation=NEW)
    model.save(tmp_path / "model")
    settings, tensors = read(tmp_path / "model")
    for change in ({"epochs": [0]}, {"values": {"recall": []}}, {"real": {"recall": "x"}}, {"best_epoch": 0}, {"a": 1}):
        changed = json.loads(json.dumps(settings))
        changed["history"]["metrics"].update(change)
        write(tmp_path / "changed", json.dumps(changed), tensors)
        with pytest.raises(minigen.ModelFileError, match=r"history\.metrics"):
            minigen.load(tmp_path / "changed")


# --- warnings -------------------------------------------------------------------------------------------


def test_a_collapsed_generator_is_told_by_its_variance(monkeypatch):
    monkeypatch.setattr(looking_back, "STEPS_TO_LEARN", 9)
    rows = np.random.default_rng(0).normal(size=(128, 4)).astype(np.float32)
    settings = {"learning_rate": (1e-8, 1e-8), "batch_size": 16, "hidden": 4, "latent_dim": 2, "device": "numpy"}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model = minigen.GAN(epochs=1, **settings).fit(rows)  # too few steps to tell
        model.partial_fit(rows, epochs=1)  # as first made, samples vary
    model._state = {**model._state, "generator.params": 1e-2 * np.array(model.generator_.params)}
    with pytest.warns(UserWarning, match=r"mode collapse: the variance of the samples is \d.*of that of the data"):
        model.partial_fit(rows, epochs=1)


def test_a_discriminator_that_has_won(monkeypatch):
    monkeypatch.setattr(looking_back, "STEPS_TO_LEARN", 9)
    rng = np.random.default_rng(0)
    rows = (100 + rng.normal(size=(128, 4))).astype(np.float32)
    settings = {"learning_rate": (1e-9, 5e-2), "batch_size": 16, "standardize": False, "device": "numpy"}
    with pytest.warns(UserWarning, match=r"the discriminator has won: its loss .* is .*, where it is 1.39"):
        minigen.GAN(epochs=12, hidden=8, latent_dim=2, **settings).fit(rows)


def test_memorised_rows():
    """A VAE with a latent as wide as its data and no KL to pay learns its few rows by heart."""
    rng = np.random.default_rng(0)
    few, new = (rng.normal(size=(n, 30)).astype(np.float32) for n in (24, 200))
    model = minigen.VAE(likelihood="gaussian", hidden=6, latent_dim=2, batch_size=24, epochs=1, device="numpy")
    model.sample = lambda n, seed=None, **how: few[np.arange(n) % len(few)] + np.float32(1e-3)
    with pytest.warns(UserWarning, match="memorised rows: 100% of the samples are copies of training rows, but 0% of"):
        model.fit(few, validation=new)


# --- the command line -----------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_command_line_evaluates_on_rows_that_it_leaves_out(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    np.save("x.npy", blobs(200))
    words = ["--hidden", "6", "--latent-dim", "2", "--batch-size", "16", "--epochs", "4", "--device", "numpy"]
    how = ["--evaluate-every", "2", "--metrics", "bound,frechet-distance", "--restore-best", "--patience", "9"]
    assert run(["train", "vae", "--data", "x.npy", "--out", "vae", *words, *how]) == 0
    said = capsys.readouterr().out
    assert "epoch 2/4: bound -" in said and "frechet distance" in said and "(real rows" in said
    model = minigen.load("vae")
    assert model.history_.evaluations.epochs == [2, 4] and model.history_.steps == 4 * 12  # 180 rows
    left_out = blobs(200)[9::10]
    compared: list[list[int]] = []
    monkeypatch.setattr(minigen.metrics, "evaluate", lambda _, *rows, **how: compared.append([len(r) for r in rows]))
    assert model.left_out_ and run(["evaluate", "vae"]) == 0
    assert run(["evaluate", "vae", "--held-out", "x.npy"]) == 0 and run(["evaluate", "vae", "--data", "x.npy"]) != 0
    assert compared == [[180, 20], [180, 200]]
    capsys.readouterr()
    if model.history_.evaluations.best_epoch == 4:
        assert model.history_.metrics["bound"][-1] == pytest.approx(model.elbo(left_out).mean(), rel=1e-5)
    np.save("new.npy", blobs(50))
    assert run(["train", "vae", "--resume", "vae", "--epochs", "1", "--validation", "new.npy"]) == 0
    assert not minigen.load("vae").left_out_
    resumed = minigen.load("vae").history_
    assert resumed.evaluations.epochs == [2, 4, 5] and resumed.steps == 4 * 12 + 13
