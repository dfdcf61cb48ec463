"""Mode collapse on two toys, as in table 1 of PacGAN (Lin, Khetan, Fanti and Oh 2018, section 4.1).

    python -m bench.pacgan                                   # the paper's GAN and PacGAN2, PacGAN4, on a budget
    python -m bench.pacgan --data grid --settings "minigen's own" --seeds 0 1 2

``ring``: eight Gaussians of standard deviation 0.01 on a circle of radius 1; ``grid``: 25 of 0.05, two apart. 100,000
points. A mode is found if one of 2,500 samples lies within three standard deviations of its centre; a sample that
lies so near to any is of high quality.

The paper's networks and settings: a generator 2-400-400-400-400-2 with batch norm and ReLU, a discriminator
2m-200-200-200-1 of maxout with five pieces, Adam at 1e-4 with beta1 0.8, and for PacGANm a hundred packs of m points a
step. Weights are drawn with a standard deviation of 0.02 there, here as `minigen.GAN` does by itself. The paper trains
for 400 epochs, that is 400,000 steps; ``--steps`` is the budget here, and the result file says it. Runs are added to
`bench/results/pacgan-MACHINE.json`.

The setting ``minigen's own`` has smaller networks, R1 in place of batch norm, maxout and packs, an average of the
generator's weights, a learning rate that begins forty times as high and falls to 0, and rejects a twentieth of the
samples.
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

POINTS = 100_000
SAMPLES = 2500
BATCH = 100
ANGLES = 2 * np.pi * np.arange(8) / 8
DATA: dict[str, tuple[np.ndarray, float]] = {
    "ring": (np.stack([np.cos(ANGLES), np.sin(ANGLES)], axis=1), 0.01),
    "grid": (np.stack(np.meshgrid(range(-4, 5, 2), range(-4, 5, 2)), axis=-1).reshape(-1, 2).astype(float), 0.05),
}
"""The modes' centres ``[M, 2]`` and their standard deviation."""
PAPER_NETWORKS: dict[str, Any] = {
    "latent_dim": 2,
    "hidden": (400, 400, 400, 400),
    "hidden_discriminator": (200, 200, 200),
    "activation": "relu",
    "normalization": "batch",
    "maxout": 5,
    "output": "linear",
    "standardize": False,
    "learning_rate": 1e-4,
    "beta1": 0.8,
}
SETTINGS: dict[str, dict[str, Any]] = {
    "GAN": PAPER_NETWORKS,
    "PacGAN2": PAPER_NETWORKS | {"pack": 2},
    "PacGAN4": PAPER_NETWORKS | {"pack": 4},
    "minigen's own": {
        "latent_dim": 2,
        "hidden": (128, 128, 128),
        "activation": "relu",
        "output": "linear",
        "r1": 0.03,
        "ema": 0.999,
        "reject": 0.05,
        "learning_rate": 4e-3,
        "schedule": "linear",
        "beta1": 0.0,
    },
}
PAPER: dict[tuple[str, str], dict[str, float]] = {
    ("ring", "GAN"): {"modes": 6.3},
    ("ring", "PacGAN4"): {"modes": 7.8},
    ("grid", "GAN"): {"modes": 17.3, "high_quality": 0.948},
    ("grid", "PacGAN4"): {"modes": 24.8},
}
"""After its 400,000 steps, means of ten runs."""


def draw(data: str, n: int, seed: int) -> np.ndarray:
    """``float32[n, 2]`` points of the mixture, each mode as likely as the others."""
    centres, deviation = DATA[data]
    rng = np.random.default_rng(seed)
    points = centres[rng.integers(len(centres), size=n)] + deviation * rng.standard_normal((n, 2))
    return points.astype(np.float32)


def judge(data: str, samples: np.ndarray) -> dict[str, float]:
    """How many modes were found, the share of samples of high quality, and how unevenly these lie.

    The last is the divergence, in nats, of the modes' shares among the samples of high quality from even ones.
    """
    centres, deviation = DATA[data]
    distances = np.linalg.norm(samples[:, None, :].astype(np.float64) - centres, axis=2)
    near = distances.min(axis=1) <= 3 * deviation
    counts = np.bincount(distances.argmin(axis=1)[near], minlength=len(centres))
    shares = counts[counts > 0] / max(counts.sum(), 1)
    return {
        "modes": int((counts > 0).sum()),
        "high_quality": float(near.mean()),
        "divergence": float((shares * np.log(shares * len(centres))).sum()) if len(shares) else float("inf"),
    }


def train(data: str, given: dict[str, Any], steps: int, seed: int) -> Any:
    """A model trained for a number of steps, each on ``BATCH`` packs; the steps are rounded up to whole epochs."""
    batch = BATCH * (given.get("pack") or 1)
    rows = min(POINTS, steps * batch)
    epochs = -(-steps * batch // rows)
    model = minigen.GAN(**given, batch_size=batch, epochs=epochs, seed=seed)
    return complete(model.fit(draw(data, rows, seed), progress=False))


def measure(data: str, setting: str, steps: int, seed: int) -> dict[str, Any]:
    given = SETTINGS[setting]
    begin = time.process_time()
    model = train(data, given, steps, seed)
    cost = time.process_time() - begin
    run = {"data": data, "setting": setting, "settings": given, "steps": steps, "seed": seed, "cpu_seconds": cost}
    return run | judge(data, np.asarray(model.sample(SAMPLES, seed=seed + 1000))) | provenance()


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.pacgan", description=__doc__.splitlines()[0])
    parser.add_argument("--data", nargs="+", choices=list(DATA), default=list(DATA))
    parser.add_argument("--settings", nargs="+", choices=list(SETTINGS), default=list(SETTINGS))
    parser.add_argument("--seeds", nargs="+", type=int, default=list(range(10)))
    parser.add_argument("--steps", type=int, default=10_000)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, default=RESULTS / f"pacgan-{machine_name()}.json")
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> int:
    options = parse(arguments)
    minigen.set_num_threads(options.threads)
    result: dict[str, Any] = json.loads(options.out.read_text()) if options.out.exists() else {"runs": []}
    result |= {"schema": 1, "kind": "pacgan", "machine": machine(), **provenance()}
    result["points"], result["samples"] = POINTS, SAMPLES
    for seed in options.seeds:
        for data in options.data:
            for setting in options.settings:
                run = measure(data, setting, options.steps, seed)
                keys = ("data", "setting", "steps", "seed")
                others = [old for old in result["runs"] if [old[k] for k in keys] != [run[k] for k in keys]]
                result["runs"] = [*others, run]
                write_json(options.out, result)
                print({key: value for key, value in run.items() if key != "settings"}, flush=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
