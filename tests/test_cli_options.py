"""Options of the command line that are easily taken and then ignored; each runs in this process."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

import minigen
from minigen import cli, gradcheck
from minigen.training.checkpoint import MODEL
from minigen.training.history import History
from models import blobs
from png import decode

TRAIN = ["--data", "x.npy", "--no-report", "--batch-size", "16", "--hidden", "5", "--latent-dim", "3"]


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A folder with data and a trained model of each kind, on the device numpy; not to be written to."""
    folder = tmp_path_factory.mktemp("options")
    np.save(folder / "x.npy", blobs(64, 16).reshape(64, 4, 4))
    X = np.load(folder / "x.npy")
    for family in (minigen.GAN, minigen.VAE):
        (folder / family.kind).mkdir()
        model = family(hidden=(5,), latent_dim=3, batch_size=16, epochs=2, device="numpy").fit(X, progress=False)
        model.source_ = "x.npy"
        model.save(folder / family.kind / MODEL)
    return folder


@pytest.fixture
def command(runs, tmp_path, monkeypatch, capsys):
    """A function that runs a command in a folder with the data, and returns what it prints."""
    (tmp_path / "x.npy").write_bytes((runs / "x.npy").read_bytes())
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(History, "plot", lambda history, path: None)  # slow, and no subject here

    def command(*arguments: object) -> str:
        words = [str(word) for word in arguments]
        monkeypatch.setattr(sys, "argv", ["minigen", *words])
        assert cli.run(words) == 0, capsys.readouterr()
        return capsys.readouterr().out

    return command


@pytest.fixture
def threads():
    cpu = pytest.importorskip("minigen.cpu", reason="no compiled backend", exc_type=ImportError)
    before = cpu.get_num_threads()
    yield cpu
    cpu.set_num_threads(before)


def test_threads(command, threads):
    threads.set_num_threads(1024)
    cores = threads.get_num_threads()
    for count in (2, 1):
        command("train", "gan", *TRAIN, "--device", "cpu", "--threads", count, "--epochs", "0", "--out", count)
        assert threads.get_num_threads() == min(count, cores)


@pytest.mark.parametrize(("family", "name"), [(f, name) for f in (minigen.GAN, minigen.VAE) for name in f.presets])
def test_preset(command, family, name):
    command(
        "train",
        family.kind,
        "--data",
        "x.npy",
        "--batch-size",
        "16",
        "--preset",
        name,
        "--epochs",
        "0",
        "--hidden",
        "5",
        "--out",
        "out",
    )
    saved = minigen.load(f"out/{MODEL}").get_params()
    given = {"batch_size": 16, "epochs": 0, "hidden": (5,), "device": saved["device"]}
    assert saved == {**family().get_params(), **family.presets[name], **given}


GIVEN = {
    "gan": {
        "seed": 7,
        "loss": "minimax",
        "activation": "tanh",
        "output": "sigmoid",
        "hidden_discriminator": (4, 3),
        "ema": 0.5,
        "pack": 4,
        "learning_rate": (0.01, 0.04),
    },
    "vae": {
        "seed": 7,
        "likelihood": "gaussian",
        "variance": 0.5,
        "beta": 2.0,
        "activation": "tanh",
        "kl_warmup": 3.0,
        "free_bits": 0.25,
    },
}
COMMON = {
    "init": "he_normal",
    "optimizer": "sgd",
    "learning_rate": 0.01,
    "beta1": 0.4,
    "beta2": 0.9,
    "eps": 1e-3,
    "schedule": "cosine",
    "warmup": 0.25,
    "momentum": 0.5,
    "weight_decay": 0.1,
    "clip_norm": 2.0,
}


@pytest.mark.parametrize("kind", ["gan", "vae"])
def test_every_setting_reaches_the_model(command, kind):
    given = {**COMMON, **GIVEN[kind]}
    words: list[object] = []
    for name, value in given.items():
        words += ["--" + name.replace("_", "-"), ",".join(map(str, value)) if isinstance(value, tuple) else value]
    command("train", kind, *TRAIN, "--epochs", "1", "--out", "out", *words)
    saved = minigen.load(f"out/{MODEL}").get_params()
    expected = {**given, "hidden": (5,), "latent_dim": 3, "batch_size": 16, "epochs": 1}
    assert {name: saved[name] for name in expected} == expected


def test_a_variance_is_a_number_or_a_word(command):
    given = ["--likelihood", "gaussian", "--variance", "learned", "--importance-samples", "2", "--epochs", "1"]
    command("train", "vae", *TRAIN, *given, "--out", "out")
    saved = minigen.load(f"out/{MODEL}")
    assert (saved.variance, saved.importance_samples, saved.variance_.shape) == ("learned", 2, (16,))
    for noise in (True, False):
        command("sample", "out", "-n", "4", "--seed", "3", "--noise", "yes" if noise else "no", "--out", "s.npy")
        np.testing.assert_array_equal(np.load("s.npy"), saved.sample(4, seed=3, noise=noise))


def test_columns(command, runs):
    tile = 64 + 2  # a picture of 4 x 4, each pixel 16 x 16, and the line beside it
    for columns, lines in ((6, 1), (2, 3), (4, 2)):
        command("sample", runs / "gan", "-n", "6", "--columns", columns, "--out", "grid.png")
        assert decode(open("grid.png", "rb").read()).shape == (lines * tile + 2, columns * tile + 2)
        command("reconstruct", runs / "vae", "-n", "6", "--columns", columns, "--out", "pairs.png")
        assert decode(open("pairs.png", "rb").read()).shape == (lines * tile + 2, columns * (tile + 64) + 2)


def test_quiet_shows_no_progress_even_on_a_terminal(command, runs, monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    shown = []
    real = minigen.GAN.partial_fit

    def partial_fit(self, X, y=None, **arguments):
        shown.append(arguments.get("progress"))
        return real(self, X, y, **arguments)

    monkeypatch.setattr(minigen.GAN, "partial_fit", partial_fit)
    assert command("train", "gan", *TRAIN, "--epochs", "1", "--quiet", "--out", "quiet") == ""
    assert set(shown) == {False}
    assert "results in" in command("train", "gan", *TRAIN, "--epochs", "1", "--out", "loud")
    assert shown[-1] is not False


@pytest.mark.parametrize("seed", [5, 2**32 - 1])
def test_gradcheck_seed_and_device(command, monkeypatch, seed):
    asked = []

    def run(backends, seed):
        asked.append(([backend.name for backend in backends], seed))
        return [gradcheck.Row("dense", "numpy", "nothing", 0.0, 1.0)]

    monkeypatch.setattr(gradcheck, "run", run)
    assert f"repeat with --seed {seed}" in command("gradcheck", "--device", "numpy", "--seed", seed)
    assert asked == [(["numpy"], seed)]
    command("gradcheck", "--device", "numpy"), command("gradcheck", "--device", "numpy")
    assert asked[1][1] != asked[2][1], "without a seed, fresh ones"


def test_resume_on_another_device(command, runs):
    assert ", on numpy (ieee), 1 epoch\n" in command(
        "train", "gan", "--resume", runs / "gan", "--device", "numpy", "--epochs", "1", "--out", "on"
    )
    if minigen.devices()["cpu"].usable:
        said = command("train", "gan", "--resume", runs / "gan", "--device", "cpu", "--epochs", "1", "--out", "cpu")
        assert ", on cpu (" in said


def test_resume_at_another_rate_on_other_data(command, runs):
    np.save("other.npy", blobs(48, 16, seed=5).reshape(48, 4, 4))
    said = command(
        "train",
        "vae",
        "--resume",
        runs / "vae",
        "--epochs",
        "2",
        "--learning-rate",
        "0.25",
        "--data",
        "other.npy",
        "--out",
        "on",
        "--sample-every",
        "0",
    )
    assert said.startswith("other.npy: 48 x 4 x 4, uint8\n") and "2 epochs\n" in said
    resumed = minigen.load(f"on/{MODEL}")
    assert (resumed.learning_rate, resumed.source_, resumed.epochs) == (0.25, "other.npy", 4)
    assert (resumed.history_.epochs, resumed.history_.ends) == (4, [4, 8, 11, 14])


@pytest.mark.parametrize("kind", ["gan", "vae"])
def test_sample_draws_as_many_as_asked_from_the_seed(command, runs, kind):
    said = command("sample", runs / kind, "-n", "5", "--seed", "3", "--device", "numpy", "--out", "s.npy")
    assert said == "s.npy: 5 samples, seed 3\n"
    drawn = minigen.load(runs / kind / MODEL, device="numpy").sample(5, seed=3)
    np.testing.assert_array_equal(np.load("s.npy"), drawn)


def test_reconstruct_takes_rows_evenly_from_the_data_named(command, runs):
    np.save("other.npy", blobs(50, 16, seed=5).reshape(50, 4, 4))
    command("reconstruct", runs / "vae", "--data", "other.npy", "-n", "3", "--device", "numpy", "--out", "r.npy")
    originals = np.load("other.npy")[[0, 24, 49]]
    pairs = np.load("r.npy")
    np.testing.assert_array_equal(pairs[:, 0], originals)
    expected = minigen.load(runs / "vae" / MODEL, device="numpy").reconstruct(originals)
    np.testing.assert_array_equal(pairs[:, 1], expected)


def test_pictures_come_as_often_as_asked(command):
    for every, epochs in ((2, [2, 4]), (3, [3]), (0, [])):
        command("train", "gan", *TRAIN, "--epochs", "5", "--sample-every", every, "--out", f"every-{every}")
        names = [f"samples-epoch-000{epoch}.png" for epoch in epochs]
        assert sorted(path.name for path in Path(f"every-{every}").glob("samples-epoch-*")) == names
