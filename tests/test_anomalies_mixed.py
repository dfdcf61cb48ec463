"""The detector on tables of more than numbers, and on the command line."""

from __future__ import annotations

import csv
import json
import sys

import numpy as np
import pytest

import minigen
from minigen import cli
from minigen.anomalies import detector as module
from minigen.anomalies.mixed import MixedColumns
from minigen.training import checkpoint
from models import blobs

pandas = pytest.importorskip("pandas")
pytest.importorskip("narwhals")

SETTINGS = dict(latent_prior="normal", steps=300, hidden=(16,), latent_dim=2, members=1, samples=4, batch_size=64)
SIZES = np.array(["s", "m", "l"], object)


def people(rows: int, seed: int = 0):
    """One hidden class decides a number, a category, a flag and a date; a second number has missing values."""
    rng = np.random.default_rng(seed)
    c = rng.integers(0, 3, rows)
    days = pandas.to_timedelta(c * 10 + rng.integers(0, 3, rows), unit="D")
    frame = pandas.DataFrame(
        {
            "x": 2 * c + rng.normal(0, 0.2, rows),
            "size": SIZES[c],
            "flag": c > 0,
            "day": pandas.Timestamp("2024-01-01") + days,
            "n": rng.normal(0, 1, rows),
        }
    )
    frame.loc[::10, "n"] = np.nan
    return frame


@pytest.fixture(scope="module")
def trained():
    return minigen.AnomalyDetector(**SETTINGS).fit(people(300))


def test_columns_of_a_table_as_numbers():
    frame = pandas.DataFrame({"a": [1.0, 3.0, None], "b": ["u", None, "v"], "c": [True, True, False], "d": [2, 4, 6]})
    columns = MixedColumns.measure(frame, {"d": "category"})
    assert columns.blocks == (1, 2, 4, 3, 4) and columns.numbers.tolist() == [0]
    expected = [
        [1, 1, 0, 1, 0, 0, 0, 0, 1, 0, 1, 0, 0, 0],
        [3, 1, 0, 0, 0, 1, 0, 0, 1, 0, 0, 1, 0, 0],
        [2, 0, 1, 0, 1, 0, 0, 1, 0, 0, 0, 0, 1, 0],
    ]
    np.testing.assert_array_equal(columns.encode(frame), expected)
    new = pandas.DataFrame({"a": [None], "b": ["w"], "c": [None], "d": [2.0]}, dtype=object)
    np.testing.assert_array_equal(columns.encode(new), [[2, 0, 1, 0, 0, 0, 1, 0, 0, 1, 1, 0, 0, 0]])
    probabilities = np.array([[9, 0.4, 0.6, 0.1, 0.2, 0.3, 0.4, 0.5, 0.2, 0.3, 0.1, 0.2, 0.3, 0.4]])
    np.testing.assert_array_equal(columns.as_rows(probabilities), [[9, 0, 1, 0, 0, 0, 1, 1, 0, 0, 0, 0, 0, 1]])
    again = MixedColumns.from_file(json.loads(json.dumps(columns.to_file())))
    assert again.parts == columns.parts


def test_it_finds_and_explains_what_does_not_go_together(trained):
    usual = people(100, 1)
    assert (trained.predict(usual) == 1).mean() > 0.9
    unusual = usual.iloc[1:6].reset_index(drop=True)
    unusual.loc[0, "x"] += 5
    unusual.loc[1, "size"] = "xxl"  # never was
    unusual.loc[2, "day"] += pandas.Timedelta(days=100)
    unusual.loc[3, "n"] = 30
    unusual.loc[4, "size"] = None  # never was missing
    assert (trained.predict(unusual) == -1).all()
    nats = trained.explain(unusual)
    assert nats.shape == (5, 5) and trained.n_features_in_ == 5
    assert nats[:4].argmax(axis=1).tolist() == [0, 1, 3, 4] and nats[4, 1] > 2


def test_a_row_alone_scores_as_among_others(trained):
    X = people(21, 2)
    together = trained.score_samples(X)
    np.testing.assert_allclose(trained.score_samples(X[::-1])[::-1], together, rtol=1e-4, atol=1e-4)
    for i in (0, 5):  # alone, the missing value is a column of None
        np.testing.assert_allclose(trained.score_samples(X.iloc[[i]].astype(object)), together[i], rtol=1e-4, atol=1e-4)
    again = minigen.AnomalyDetector(**SETTINGS).fit(people(300))
    np.testing.assert_array_equal(again.score_samples(X), together)


@pytest.mark.parametrize("columns", ["standard", "quantile"])
def test_a_detector_of_a_table_is_saved(tmp_path, trained, columns):
    if columns == "quantile":
        trained = minigen.AnomalyDetector(**SETTINGS | dict(steps=5, columns=columns)).fit(people(50))
        assert trained.scaling_.tensor.shape[1] == 3
    trained.save(tmp_path / "d.safetensors")
    loaded, X = minigen.load(tmp_path / "d.safetensors"), people(20, 3)
    np.testing.assert_array_equal(loaded.score_samples(X), trained.score_samples(X))
    np.testing.assert_array_equal(loaded.explain(X[:2]), trained.explain(X[:2]))
    settings, tensors = checkpoint.read(tmp_path / "d.safetensors")
    parts = settings["parts"]
    for bad in (parts[:-1], [parts[0] | {"kind": "text"}, *parts[1:]], [{"name": "x"}], [parts[0], *parts[1:] * 2]):
        checkpoint.write(tmp_path / "bad.safetensors", json.dumps(settings | {"parts": bad}), tensors)
        with pytest.raises(minigen.ModelFileError):
            minigen.load(tmp_path / "bad.safetensors")


def test_categories_alone():
    frame = pandas.DataFrame({"a": list("xyxyxyxy") * 8, "b": list("uvuvuvuv") * 8})
    detector = minigen.AnomalyDetector(**SETTINGS | dict(columns="quantile")).fit(frame)
    odd = pandas.DataFrame({"a": ["x", "x"], "b": ["u", "v"]})
    together, apart = detector.score_samples(odd)
    assert together > apart + 1


def test_bad_tables_end_in_one_error(trained):
    X = people(30, 4)
    whole = people(30).drop(columns="n").assign(n=1.0)
    once = minigen.AnomalyDetector(**SETTINGS | dict(steps=1)).fit(whole)
    with pytest.raises(ValueError, match=r"'n' has 3 missing values, the first in row 0"):
        once.predict(X)
    for bad in (X[["x", "size"]], X.rename(columns={"x": "y"}), X[X.columns[::-1]], X.assign(x="text")):
        with pytest.raises(ValueError, match="X|types"):
            trained.predict(bad)
    names = X.assign(id=[f"row {i}" for i in range(30)])
    names = pandas.concat([names, names.assign(id=names["id"] + "'")])  # 60 different texts
    for bad in (X.assign(x=None), X.assign(x=np.inf), names, X[:1], X[:0]):
        with pytest.raises(ValueError, match="X"):
            minigen.AnomalyDetector(**SETTINGS).fit(bad)
    with pytest.raises(ValueError, match="types"):
        minigen.AnomalyDetector(**SETTINGS).fit(X, types={"z": "numeric"})


def test_an_interrupted_training_leaves_no_half_of_a_detector(monkeypatch):
    monkeypatch.setattr(module, "fit_many", lambda models, X, progress: models)
    detector = minigen.AnomalyDetector(**SETTINGS)
    with pytest.raises(KeyboardInterrupt):
        detector.fit(blobs(40))
    assert not hasattr(detector, "models_")


@pytest.fixture
def command(tmp_path, monkeypatch, capsys):
    """A function that runs a command in a folder of its own: its exit code and what it prints."""
    monkeypatch.chdir(tmp_path)

    def command(*words: str) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["minigen", *words])
        code = cli.run([*words])
        said = capsys.readouterr()
        return code, said.out + said.err

    return command


def test_train_and_score_on_the_command_line(command):
    people(60).assign(id=range(60)).to_csv("people.csv", index=False)
    people(20, 1).assign(more=1).to_csv("new.csv", index=False)
    small = ("--steps", "5", "--members", "1", "--samples", "2", "--hidden", "4", "--latent-dim", "2")
    code, said = command("train", "anomalies", "--data", "people.csv", "--exclude", "id", *small)
    assert code == 0 and "results in runs/anomalies" in said
    code, said = command("score", "runs/anomalies", "--data", "new.csv", "--explain")
    assert code == 0 and said == "scores.csv: scores of 20 rows\n"
    with open("scores.csv") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["row", "score", "unusual", *(f"nats of {name}" for name in people(1))]
    detector, X = minigen.load("runs/anomalies"), pandas.read_csv("new.csv").drop(columns="more")
    np.testing.assert_allclose([float(row["score"]) for row in rows], detector.score_samples(X), rtol=1e-8)
    assert [int(row["unusual"]) for row in rows] == (detector.predict(X) == -1).astype(int).tolist()
    code, said = command("info", "runs/anomalies")
    assert code == 0 and "5: x, size, flag, day, n" in said and "people.csv" in said
    for words in (("sample",), ("evaluate",), ("reconstruct",), ("score", "--data", "new.csv", "--labels", "x")):
        code, said = command(words[0], "runs/anomalies", *words[1:])
        assert code == 2 and said.count("\n") == 1, said
    code, said = command("score", "runs/anomalies", "--data", "new.csv", "--out", "new.csv")
    assert code == 2 and "would replace the data" in said


def test_scores_of_a_vae_and_of_numbers(command):
    X = blobs(64, 12)
    np.save("x.npy", X)
    vae = minigen.VAE(hidden=(4,), latent_dim=2, batch_size=32, epochs=1).fit(X, progress=False)
    vae.save("vae.safetensors")
    assert command("score", "vae.safetensors", "--data", "x.npy", "--samples", "3")[0] == 0
    found = np.loadtxt("scores.csv", delimiter=",", skiprows=1)
    np.testing.assert_allclose(found[:, 1], vae.score_samples(X, samples=3), rtol=1e-6)
    code, said = command("train", "anomalies", "--data", "x.npy", "--steps", "2", "--members", "1", "--types", "a=date")
    assert code == 2 and "--types" in said
    assert command("train", "anomalies", "--data", "x.npy", "--steps", "2", "--members", "1", "--quiet")[0] == 0
    assert command("score", "runs/anomalies", "--explain", "--out", "out.csv")[0] == 0
    assert np.loadtxt("out.csv", delimiter=",", skiprows=1).shape == (64, 15)
    for words in (("--explain",), ("--out", "scores.npy")):
        assert command("score", "vae.safetensors", "--data", "x.npy", *words)[0] == 2
