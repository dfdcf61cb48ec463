"""Rare digits: what a classifier gains from made rows.

    MINIGEN_DATA=... python -m bench.augmentation                 # three draws of rows, all methods
    python -m bench.augmentation --quick                          # the digits of the package, one draw, nothing written

Of MNIST 30 rows of each of the digits 2, 3, 5 and 8 and 1,000 of each other one; a perceptron 784-128-10 of
scikit-learn is trained on these, or with rows added by one of the methods to 1,000 of each, and tested on the test set.
Beside minigen's methods SMOTE on pixels (Chawla et al. 2002), and a VAE for each rare digit that learns its 30 rows
alone. Runs are written to `bench/results/augmentation-MACHINE.json`; those in it that are not measured again stay.
The share of `method="transfer"` was chosen on the draw of seed 0. Needs scikit-learn; SMOTE needs imbalanced-learn.
"""

from __future__ import annotations

import argparse
import importlib.util
import time
import warnings
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

import minigen
from bench.digits import load
from bench.environment import RESULTS, complete, machine, machine_name, provenance, with_earlier, write_json
from minigen.augmentation import METHODS

RARE, FEW = (2, 3, 5, 8), 30


def draw(images: np.ndarray, labels: np.ndarray, seed: int, many: int) -> tuple[np.ndarray, np.ndarray]:
    """Few rows of the rare digits and ``many`` of each other one, flat."""
    rng = np.random.default_rng(seed)
    chosen = [rng.permutation(np.flatnonzero(labels == c))[: FEW if c in RARE else many] for c in range(10)]
    rows = np.concatenate(chosen)
    return images[rows].reshape(len(rows), -1), labels[rows]


def methods() -> dict[str, Any]:
    found: dict[str, Any] = {
        "as they are": lambda X, y, seed: (X, y),
        **{f"minigen, {method}": partial(by_minigen, method=method) for method in METHODS},
        "a VAE a class": vae_a_class,
    }
    if importlib.util.find_spec("imblearn"):
        found["SMOTE"] = smote
    return found


def by_minigen(X: np.ndarray, y: np.ndarray, seed: int, method: str) -> tuple[np.ndarray, np.ndarray]:
    return minigen.augment(X, y, seed=seed, method=method)


def vae_a_class(X: np.ndarray, y: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
    most = np.bincount(y).max()
    made, labels = [X], [y]
    for c in RARE:
        model = minigen.VAE(batch_size=FEW, epochs=1000, hidden=(128,), latent_dim=8, seed=seed)
        made.append(complete(model.fit(X[y == c], progress=False)).sample(most - FEW, seed=seed))
        labels.append(np.full(most - FEW, c))
    return np.concatenate(made), np.concatenate(labels)


def smote(X: np.ndarray, y: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
    from imblearn.over_sampling import SMOTE

    return SMOTE(random_state=seed).fit_resample(X, y)


def figures(said: np.ndarray, truth: np.ndarray) -> dict[str, float]:
    """Mean recall of all digits and of the rare ones."""
    recalls = [float((said[truth == c] == c).mean()) for c in range(10)]
    return {"balanced_accuracy": float(np.mean(recalls)), "rare_recall": float(np.mean([recalls[c] for c in RARE]))}


def as_inputs(images: np.ndarray) -> np.ndarray:
    return images.reshape(len(images), -1).astype(np.float32) / 255


def main(arguments: list[str] | None = None) -> int:
    from sklearn.neural_network import MLPClassifier

    parser = argparse.ArgumentParser(prog="python -m bench.augmentation", description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--methods", nargs="+", help="names of methods (default: all)")
    parser.add_argument("--iterations", type=int, default=30, help="passes of the classifier")
    parser.add_argument("--quick", action="store_true", help="the digits of the package, 300 of each, one draw")
    parser.add_argument("--out", type=Path, default=RESULTS / f"augmentation-{machine_name()}.json")
    options = parser.parse_args(arguments)
    (images, labels), (test, truth) = load("sample" if options.quick else "mnist", None)
    runs: list[dict[str, Any]] = []
    when = provenance()
    for seed in options.seeds[: 1 if options.quick else None]:
        X, y = draw(images, labels, seed, 300 if options.quick else 1000)
        for method, make in methods().items():
            if options.methods and method not in options.methods:
                continue
            start = time.perf_counter()
            more, of_them = make(X, y, seed)
            seconds = time.perf_counter() - start
            classifier = MLPClassifier((128,), max_iter=options.iterations, random_state=seed)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # all classifiers end after as many passes, converged or not
                said = classifier.fit(as_inputs(more), of_them).predict(as_inputs(test))
            run = {"method": method, "seed": seed, "seconds": seconds, **figures(said, truth)}
            print(run, flush=True)
            runs.append(run | when)
    if not options.quick:
        runs = with_earlier(options.out, runs, "method", "seed")
        result = {"schema": 1, "kind": "augmentation", "machine": machine(), **when}
        write_json(options.out, result | {"runs": runs})
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
