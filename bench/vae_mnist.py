"""The VAE's public figures: ten epochs of 784-400-20 on MNIST, on each device named.

    MINIGEN_DATA=... python -m bench.vae_mnist [cpu/ieee cpu/bf16x6 cpu/bf16 numpy ...]

A name is a device, or a device and the precision of its products. Adam 1e-3, batch 128, grey pixels, Bernoulli
reconstruction. Implementations elsewhere come to a training loss of 106.1 to 106.6 nats in the last epoch and a
negative ELBO of 105.5 to 105.9 on the test set with sampled z (96.8 with z = mu, which is no bound). Writes
`bench/results/vae-mnist-MACHINE.json`.
"""

from __future__ import annotations

import sys
import time
from typing import Any

import minigen
from bench.environment import RESULTS, machine, machine_name, provenance, write_json


def measure(device: str, precision: str, seed: int) -> dict[str, Any]:
    """One training: loss of the last epoch, test negative ELBO with one sampled z a row, and seconds.

    ``precision`` is that of matrix products, also in the test; empty is the device's own.
    """
    settings = {"precision": precision} if precision else {}
    train, test = minigen.datasets.mnist("train"), minigen.datasets.mnist("test")
    begin = time.perf_counter()
    model = minigen.train_vae(train, device=device, seed=seed, **settings)
    seconds = time.perf_counter() - begin
    loss, reconstruction, kl = map(float, model.history_.epoch_means()[-1])
    return {
        "device": device,
        "precision": precision,
        "seed": seed,
        "train_loss": loss,
        "reconstruction": reconstruction,
        "kl": kl,
        "test_negative_elbo": float(-model.elbo(test).mean()),
        "seconds": seconds,
    }


def main(backends: list[str]) -> None:
    runs = []
    for backend in backends:
        device, _, precision = backend.partition("/")
        for seed in range(3 if device != "numpy" else 1):
            runs.append(measure(device, precision, seed))
            print({key: round(value, 3) if isinstance(value, float) else value for key, value in runs[-1].items()})
    result = {"schema": 1, "kind": "vae-mnist", "machine": machine(), **provenance(), "runs": runs}
    write_json(RESULTS / f"vae-mnist-{machine_name()}.json", result)


if __name__ == "__main__":
    main(sys.argv[1:] or ["cpu/ieee", "cpu/bf16x6", "cpu/bf16", "numpy"])
