"""Importance weighted autoencoders (Burda, Grosse and Salakhutdinov 2016): the bound and the likelihood by draws k.

    MINIGEN_DATA=... python -m bench.iwae                    # 784-200-200-50, k = 1, 5 and 50, ten epochs each
    MINIGEN_DATA=... python -m bench.iwae --epochs 30 --draws 1 5

The paper's network with one stochastic layer: two deterministic layers of 200 tanh units on each side of 50 latent
variables, Bernoulli pixels, Adam at 1e-3 with beta2 0.999 and epsilon 1e-4, batches of 20. Its 3,280 epochs with a
falling rate come to a negative log-likelihood of 86.76, 85.54 and 84.78 nats on MNIST with fixed binary pixels drawn
anew for each epoch. Here the rate is constant, the pixels are drawn once, each 1 with the probability of its grey,
and the epochs are few: only the order of the k is to be seen. The figures are those of the first ``--test`` test
pictures: the bound with as many draws as in training, and the negative log-likelihood by ``--score`` draws. Runs are
added to `bench/results/iwae-MACHINE.json`.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np

import minigen
from bench.environment import RESULTS, complete, machine, machine_name, provenance, write_json

NETWORK: dict[str, Any] = {
    "latent_dim": 50,
    "hidden": (200, 200),
    "activation": "tanh",
    "likelihood": "bernoulli",
    "learning_rate": 1e-3,
    "eps": 1e-4,
    "batch_size": 20,
}
PAPER = {1: 86.76, 5: 85.54, 50: 84.78}
"""Negative log-likelihood in nats after 3,280 epochs, by draws k."""


def load(rows: int | None, test: int) -> tuple[np.ndarray, np.ndarray]:
    """Binary training and test pictures: MNIST, or the bundled ones where there is no MNIST."""
    try:
        sets = [minigen.datasets.mnist(split, download=False).images for split in ("train", "test")]
    except minigen.datasets.DownloadError:
        whole = minigen.datasets.mnist_sample().images
        sets = [whole[:4000], whole[4000:]]
    rng = np.random.default_rng(0)
    binary = [rng.random(images.shape, np.float32) * 255 < images for images in sets]
    return binary[0][:rows], binary[1][:test]


def measure(k: int, train: np.ndarray, test: np.ndarray, options: argparse.Namespace, seed: int) -> dict[str, Any]:
    model = minigen.VAE(**NETWORK, importance_samples=k, epochs=options.epochs, seed=seed)
    begin = time.process_time()
    complete(model.fit(train, progress=False))
    cost = time.process_time() - begin
    return {
        "draws": k,
        "epochs": options.epochs,
        "seed": seed,
        "rows": len(train),
        "test_rows": len(test),
        "score_draws": options.score,
        "cpu_seconds": cost,
        "bound": float(-model.score_samples(test, samples=k, progress=False).mean()),
        "negative_log_likelihood": float(-model.score_samples(test, samples=options.score, progress=False).mean()),
        **provenance(),
    }


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.iwae", description=__doc__.splitlines()[0])
    parser.add_argument("--draws", nargs="+", type=int, default=list(PAPER))
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--rows", type=int, help="how many training pictures to take, from the first on (default: all)")
    parser.add_argument("--test", type=int, default=1000, help="test pictures that are scored")
    parser.add_argument("--score", type=int, default=1000, help="draws of the likelihood")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, default=RESULTS / f"iwae-{machine_name()}.json")
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> int:
    options = parse(arguments)
    minigen.set_num_threads(options.threads)
    train, test = load(options.rows, options.test)
    result: dict[str, Any] = json.loads(options.out.read_text()) if options.out.exists() else {"runs": []}
    result |= {"schema": 1, "kind": "iwae", "machine": machine(), "network": NETWORK, **provenance()}
    for seed in options.seeds:
        for k in options.draws:
            run = measure(k, train, test, options, seed)
            keys = ("draws", "epochs", "seed", "rows")
            others = [old for old in result["runs"] if [old[key] for key in keys] != [run[key] for key in keys]]
            result["runs"] = [*others, run]
            write_json(options.out, result)
            print(run, flush=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
