"""Unusual rows: how well detectors tell them, and how long they take.

    python -m bench.anomalies                 # all sets, three splits of each
    python -m bench.anomalies --quick         # one split, the first sets of each kind

Of each set half of the usual rows train a detector; it scores the other half and the unusual ones, and the area under
the ROC curve says how often an unusual row scores worse than a usual one. The sets are those that scikit-learn ships
or makes: digits 8 x 8 and wine with one class left out, breast cancer (malignant is unusual), and moons, circles and
blobs with uniform points. Beside `minigen.AnomalyDetector` as it comes: IsolationForest, PCA by reconstruction (nine
tenths of the variance, standardised columns) and, where pyod is installed, its AutoEncoder and VAE, as they come.
Runs are written to `bench/results/anomalies-MACHINE.json`. Needs scikit-learn.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import importlib.util
import io
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

import minigen
from bench.environment import RESULTS, machine, machine_name, provenance, write_json

Set = tuple[str, np.ndarray, np.ndarray]
Score = Callable[[np.ndarray, np.ndarray, int], np.ndarray]
"""From training rows, rows to score and a seed to scores, of which higher ones are more unusual."""


def sets() -> Iterator[Set]:
    """Name, rows, and which of them are unusual."""
    from sklearn import datasets

    for name, load in (("digits", datasets.load_digits), ("wine", datasets.load_wine)):
        X, y = load(return_X_y=True)
        for left_out in np.unique(y):
            yield f"{name} {left_out}", X, y == left_out
    X, y = datasets.load_breast_cancer(return_X_y=True)
    yield "breast cancer", X, y == 0
    toys = {
        "moons": datasets.make_moons(600, noise=0.05, random_state=0)[0],
        "circles": datasets.make_circles(600, noise=0.04, factor=0.5, random_state=0)[0],
        "blobs": datasets.make_blobs(600, 2, random_state=0)[0],
    }
    for name, usual in toys.items():
        low, high = usual.min(axis=0), usual.max(axis=0)
        points = np.random.default_rng(1).uniform(low, high, (200, 2))
        yield name, np.concatenate([usual, points]), np.arange(len(usual) + len(points)) >= len(usual)


def split(X: np.ndarray, unusual: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Training rows, rows to score, and which of these are unusual."""
    usual = np.random.default_rng(seed).permutation(np.flatnonzero(~unusual))
    test = np.concatenate([usual[len(usual) // 2 :], np.flatnonzero(unusual)])
    return X[usual[: len(usual) // 2]].astype(np.float32), X[test].astype(np.float32), unusual[test]


def ours(train: np.ndarray, test: np.ndarray, seed: int, **settings: Any) -> np.ndarray:
    return -minigen.AnomalyDetector(seed=seed, **settings).fit(train).score_samples(test)


def isolation_forest(train: np.ndarray, test: np.ndarray, seed: int) -> np.ndarray:
    from sklearn.ensemble import IsolationForest

    return -IsolationForest(random_state=seed).fit(train).score_samples(test)


def pca(train: np.ndarray, test: np.ndarray, seed: int) -> np.ndarray:
    from sklearn.decomposition import PCA
    from sklearn.preprocessing import StandardScaler

    scale = StandardScaler().fit(train)
    train, test = scale.transform(train), scale.transform(test)
    found = PCA(0.9).fit(train)
    return ((test - found.inverse_transform(found.transform(test))) ** 2).sum(axis=1)


def pyod(module: str, name: str) -> Score:
    def score(train: np.ndarray, test: np.ndarray, seed: int) -> np.ndarray:
        family = getattr(importlib.import_module(f"pyod.models.{module}"), name)
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            found = np.asarray(family(random_state=seed).fit(train).decision_function(test))
        return np.nan_to_num(found, nan=0.0)

    return score


def detectors() -> dict[str, Score]:
    found: dict[str, Score] = {"minigen": ours, "IsolationForest": isolation_forest, "PCA": pca}
    found["minigen, one model"] = lambda train, test, seed: ours(train, test, seed, members=1)
    if importlib.util.find_spec("pyod"):
        found |= {"pyod AutoEncoder": pyod("auto_encoder", "AutoEncoder"), "pyod VAE": pyod("vae", "VAE")}
    return found


def main(arguments: list[str] | None = None) -> int:
    from sklearn.metrics import roc_auc_score

    parser = argparse.ArgumentParser(prog="python -m bench.anomalies", description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--sets", nargs="+", help="names of sets (default: all)")
    parser.add_argument("--detectors", nargs="+", help="names of detectors (default: all)")
    parser.add_argument("--quick", action="store_true", help="one split of digits 0, wine 0, breast cancer and moons")
    parser.add_argument("--out", type=Path, default=RESULTS / f"anomalies-{machine_name()}.json")
    options = parser.parse_args(arguments)
    wanted = ["digits 0", "wine 0", "breast cancer", "moons"] if options.quick else options.sets
    runs: list[dict[str, Any]] = []
    for name, X, unusual in sets():
        if wanted and name not in wanted:
            continue
        for seed in options.seeds[: 1 if options.quick else None]:
            train, test, truth = split(X, unusual, seed)
            for detector, score in detectors().items():
                if options.detectors and detector not in options.detectors:
                    continue
                start = time.perf_counter()
                auc = float(roc_auc_score(truth, score(train, test, seed)))
                seconds = time.perf_counter() - start
                runs.append({"set": name, "detector": detector, "seed": seed, "roc_auc": auc, "seconds": seconds})
                print(f"{name}, {detector}, seed {seed}: {auc:.3f}, {seconds:.1f} s", flush=True)
    result = {"schema": 1, "kind": "anomalies", "quick": options.quick, "machine": machine(), **provenance()}
    write_json(options.out, result | {"runs": runs})
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
