"""What bench.tables does with tables, models and peers, on cases whose figures are known."""

from __future__ import annotations

import json

import numpy as np
import pytest

from bench import report_tables, tables

pd = pytest.importorskip("pandas")
pytest.importorskip("narwhals")
pytest.importorskip("sklearn")


def frame(n: int, seed: int = 0) -> pd.DataFrame:
    """``b`` follows from ``a``, and ``yes`` is as likely as no."""
    rng = np.random.default_rng(seed)
    yes = rng.random(n) < 0.5
    return pd.DataFrame({"a": rng.normal(size=n) + 4 * yes, "yes": np.where(yes, "y", "n"), "b": np.arange(n) % 7})


def test_a_table_is_named_by_its_file_and_targets(tmp_path):
    frame(9).to_csv(tmp_path / "x.csv", index=False)
    label, found, targets, rows = tables.named(f"some={tmp_path}/x.csv:yes:y")
    assert (label, list(found), targets, rows) == ("some", ["a", "yes", "b"], ("yes:y",), None)
    assert tables.named(f"some={tmp_path}/x.csv:a")[2] == ("a",)
    for wrong in ("x.csv", "some=x.csv", f"some={tmp_path}/x.csv"):
        with pytest.raises(SystemExit, match="--data must be diamonds, "):
            tables.named(wrong)


def test_a_table_of_scikit_learn():
    pytest.importorskip("sklearn")
    label, found, targets, _ = tables.named("cancer")
    assert (label, found.shape, targets) == ("cancer", (569, 31), ("diagnosis:malignant",))
    assert found["diagnosis"].value_counts().to_dict() == {"benign": 357, "malignant": 212}


def test_without_the_package_it_is_said_how_to_get_it(monkeypatch, tmp_path):
    monkeypatch.setattr(tables, "environment", lambda: None)
    monkeypatch.setattr(tables.sys, "path", [str(tmp_path)])
    with pytest.raises(SystemExit, match="no plotnine/data/diamonds.csv: python -m bench.setup_peers tables"):
        tables.named("diamonds")


@pytest.mark.slow  # boosted trees
def test_figures_of_copies_and_of_noise(monkeypatch, tmp_path):
    """A model that gives its training rows again is as good as real rows, but for privacy; noise is told from them."""
    pytest.importorskip("sklearn")
    frame(400).to_csv(tmp_path / "x.csv", index=False)

    def train(model, known, said, folder):
        if model == "ctgan":
            return known, {"seconds": 1.0, "epochs": said["epochs"]}
        return known.assign(a=np.random.default_rng(0).uniform(50, 60, len(known))), {"seconds": 2.0}

    monkeypatch.setattr(tables, "train", train)
    monkeypatch.setattr(tables, "environment", lambda: None)
    real, copies, noise = tables.measure(f"some={tmp_path}/x.csv:yes:y", ["ctgan", "TableVAE"], 3, 0, 300, 2)
    assert [run["model"] for run in (real, copies, noise)] == ["held-out rows", "ctgan", "TableVAE"]
    assert real["rows"] == 225 and "nearer_to_training_rows" not in real and copies["epochs"] == 3
    assert copies["columns"] == copies["pairs"] == copies["quality"] == 1
    # Of 225 rows 75 are compared with: a third of the copies is there, the others are as near to either.
    assert copies["nearer_to_training_rows"] == pytest.approx(2 / 3, abs=0.06)
    assert copies["f1_mean"] == real["f1_mean"] > 0.9 > noise["f1_mean"]
    assert copies["detection_auc"] < 0.6 and noise["detection_auc"] > 0.99 and noise["columns"] < 0.9
    assert real["epochs"] is None and copies["threads"] == 2


def test_a_table_shows_the_figures_that_there_are():
    facts = {"machine": {"cpu": "a test", "cores": 2, "system": "Linux"}, "commit": None, "created": "2026-11-27"}
    run = {"data": "diamonds", "model": "TableVAE", "epochs": 3, "r2_price": 0.98765, "seconds": 12.34, **facts}
    real = {"data": "diamonds", "model": "held-out rows", "epochs": None, "r2_price": 0.99, **facts}
    text = report_tables.tables({**facts, "dirty": False, "runs": [real, run]})["diamonds"]
    assert "| diamonds | R² of price | training, s |" in text and "F1" not in text
    assert "| TableVAE, 3 epochs | 0.988 | 12.3 |" in text and "| held-out rows | 0.990 |  |" in text


def test_a_million_rows_in_small():
    run = tables.million(1000, 0, epochs=2)
    assert run["rows"] == 1000 and run["epochs"] == 2 and 0 < run["quality"] < 1
    assert 0 < run["bytes_before"] <= run["peak_bytes"]


def test_runs_are_kept_one_by_one_and_one_that_measured_the_same_is_replaced(tmp_path, capsys):
    path = tmp_path / "tables.json"
    first = {"data": "a", "model": "m", "seed": 0, "rows": 9, "epochs": 3, "threads": 1, "seconds": 2.0}
    for run in (first, {**first, "threads": 2}, {**first, "seconds": 1.0}):
        tables.keep(run, path)
        assert json.loads(capsys.readouterr().out) == run
    assert json.loads(path.read_text())["runs"] == [{**first, "threads": 2}, {**first, "seconds": 1.0}]
    tables.keep({**first, "data": "b"}, None)  # of a quick look nothing is kept
    assert len(json.loads(path.read_text())["runs"]) == 2
