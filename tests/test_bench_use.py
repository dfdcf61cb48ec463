"""`bench.anomalies` and `bench.augmentation`: their splits, figures and tables in cases that are known."""

from __future__ import annotations

import json

import numpy as np
import pytest

from bench import anomalies, augmentation, environment, report_use

MACHINE = {"cpu": "a", "cores": 2, "system": "b"}


def test_a_detector_never_sees_an_unusual_row():
    unusual = np.arange(30) % 3 == 0
    X = np.arange(30.0)[:, None]
    train, test, truth = anomalies.split(X, unusual, 0)
    assert len(train) == 10 and truth.sum() == 10 and len(test) == 20
    seen = set(train[:, 0].astype(int))
    assert not seen & set(np.flatnonzero(unusual)) and not seen & set(test[:, 0].astype(int))
    np.testing.assert_array_equal(truth, unusual[test[:, 0].astype(int)])
    assert (anomalies.split(X, unusual, 1)[0] != train).any()


def test_uniform_points_fill_the_box():
    usual = np.random.default_rng(0).normal(size=(50, 3))
    rows, unusual = anomalies.among_uniform(usual)
    assert rows.shape == (250, 3) and unusual.sum() == 200 and not unusual[:50].any()
    assert (rows.min(axis=0) == usual.min(axis=0)).all() and (rows.max(axis=0) == usual.max(axis=0)).all()


def test_each_set_is_chosen_on_or_held_out():
    pytest.importorskip("sklearn")
    names = []
    for name, X, unusual in anomalies.sets():
        assert len(X) == len(unusual) and 0 < unusual.sum() < len(X)
        assert name.startswith((*anomalies.CHOSEN_ON, *anomalies.HELD_OUT)), name
        assert anomalies.is_held_out(name) != name.startswith(anomalies.CHOSEN_ON)
        names.append(name)
    assert len(set(names)) == len(names) and set(anomalies.QUICK) - {"pyod Gaussians"} <= set(names)


@pytest.mark.parametrize(("sign", "auc"), [(1, 1.0), (-1, 0.0), (0, 0.5)])
def test_roc_auc_of_known_scores(sign, auc):
    pytest.importorskip("sklearn")
    one = ("moons", np.arange(20.0)[:, None], np.arange(20) >= 15)
    run = anomalies.measure(one, "known", lambda train, test, seed: sign * test[:, 0], 0)
    assert run["roc_auc"] == auc and run["rows"] == 7 and not run["held_out"] and run["seconds"] >= 0


def test_detectors_score_what_is_far_away_as_more_unusual():
    pytest.importorskip("sklearn")
    rng = np.random.default_rng(0)
    train, test = rng.normal(size=(60, 4)), np.array([[0.0] * 4, [40.0, -40, 40, 40]])
    for name in ("IsolationForest", "PCA"):
        near, far = anomalies.detectors()[name](train, test, 0)
        assert far > near
    near, far = anomalies.ours(train, test, 0, steps=20, members=1)
    assert far > near


def test_the_table_of_detectors():
    runs = [
        {"set": name, "held_out": name == "iris 0", "detector": detector, "seed": seed, "roc_auc": auc, "seconds": took}
        for detector, took, aucs in (("a", 1.0, (0.5, 0.7, 0.6)), ("pyod VAE", 5.0, (0.8, 0.6, 1.0)))
        for name, auc in zip(("wine 0", "wine 1", "iris 0"), aucs, strict=True)
        for seed in (0, 1)
    ]
    partly = [runs[0] | {"detector": "of one set"}]
    result = {
        "machine": MACHINE,
        "created": "now",
        "runs": [r | {"commit": "c", "dirty": False} for r in runs + partly],
    }
    tables = {name: cells_of(text) for name, text in report_use.anomalies_tables(result).items()}
    cells = tables["roc-auc"]
    assert cells[0][1:6] == ["all sets (3)", "held out (1)", "chosen on (2)", "wine (2)", "iris (1)"]
    assert cells[2] == ["pyod VAE", "**0.800**", "1.000", "0.700", "0.700", "1.000", "5.00", "1.0"]
    assert cells[3] == ["a", "**0.600**", "0.600", "0.600", "0.600", "0.600", "1.00", "5.0"]
    assert len(cells) == 4
    cells = tables["roc-auc-of-all-detectors"]
    assert cells[0][1:5] == ["all sets (1)", "held out (0)", "chosen on (1)", "wine (1)"]
    assert [line[:2] for line in cells[2:]] == [
        ["pyod VAE", "**0.800**"],
        ["a", "**0.500**"],
        ["of one set", "**0.500**"],
    ]


def cells_of(text):
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line.startswith("|")]


def test_neighbours_in_a_table():
    took = {"minigen": [1.0, 3.0], "b": [4.0]}
    result = {"machine": MACHINE, "created": "now", "commit": "c", "dirty": False, "seconds": took}
    cells = cells_of(report_use.neighbours_tables(result | {"rows": 10, "others": 2000, "columns": 7})["seconds"])
    assert cells[0] == ["nearest of 2,000 rows for 10, 7 columns", "seconds"]
    assert cells[2:] == [["minigen", "2.0 (1.0 to 3.0)"], ["b", "4.0"]]


def test_few_rows_of_rare_digits():
    labels = np.repeat(np.arange(10), 50)
    images = np.arange(500 * 4, dtype=np.float64).reshape(500, 2, 2)
    rows, of_them = augmentation.draw(images, labels, 3, 40)
    counts = np.bincount(of_them)
    assert rows.shape == (sum(counts), 4) and len(np.unique(rows[:, 0])) == len(rows)
    assert all(counts[c] == (augmentation.FEW if c in augmentation.RARE else 40) for c in range(10))
    np.testing.assert_array_equal(labels[(rows[:, 0] / 4).astype(int)], of_them)


def test_recalls_of_known_answers():
    truth = np.repeat(np.arange(10), 4)
    said = truth.copy()
    said[8] = 0  # one of four twos
    said[20:24] = 1  # all fives
    found = augmentation.figures(said, truth)
    assert found["balanced_accuracy"] == pytest.approx((8 + 0.75) / 10)
    assert found["rare_recall"] == pytest.approx((0.75 + 1 + 0 + 1) / 4)
    one = {"method": "m", "seed": 0, "seconds": 2.0, **found, "commit": "c", "dirty": False}
    result = {"machine": MACHINE, "created": "now", "runs": [one]}
    assert "| m | 1 | 0.875 | 0.688 | 2 |" in report_use.augmentation_tables(result)["accuracy"]


def test_runs_that_are_measured_again_are_replaced(tmp_path):
    path = tmp_path / "x.json"
    runs = [{"a": 1, "seed": 0, "value": 1}, {"a": 1, "seed": 1, "value": 2}]
    assert environment.with_earlier(path, runs, "a", "seed") == runs
    path.write_text(json.dumps({"runs": runs}))
    new = [{"a": 1, "seed": 1, "value": 3}, {"a": 2, "seed": 1, "value": 4}]
    assert environment.with_earlier(path, new, "a", "seed") == [runs[0], *new]
