"""What the double backward pass of a gradient penalty costs, in forward and backward passes of the same rows.

    python -m bench.penalty_cost                    # the article's discriminator and the quality preset's, batch 128

One pass is the discriminator's forward pass on ``batch`` rows and the gradients of all its parameters, without an
optimizer. ``r1`` uses the forward pass that the loss has made already; ``gradient_penalty`` draws rows between real and
generated ones and makes one of its own. All three are captured and run in turn; raw samples go to
`bench/results/penalty-cost-MACHINE.json`. The count beside each is that of the products' multiplications.
"""

from __future__ import annotations

import argparse
import statistics
import time
from typing import Any

import numpy as np

import minigen
from bench.environment import RESULTS, machine, machine_name, provenance, write_json
from minigen.backend import Backend
from minigen.device import get_backend
from minigen.models.hidden import dense_layers
from minigen.models.layers import Context
from minigen.models.network import Network
from minigen.models.penalty import GradientPenalty, InterpolatedPenalty

NETWORKS = {"article": (784, 128, 1), "quality": (784, 512, 512, 256, 1)}
ACTIVATIONS = ("leaky_relu", "tanh")


def multiplications(ops: Backend, call: Any) -> int:
    """Of all products that ``call`` makes."""
    return sum(operation.flops for operation in ops.record(call) if operation.name.startswith("dense"))


def passes(ops: Backend, sizes: tuple[int, ...], activation: str, batch: int) -> dict[str, Any]:
    """The pass that is the unit and the two penalties, as calls without arguments."""
    net = Network(ops, "discriminator", dense_layers(sizes, activation, "linear"))
    net.initialize(0, "he_uniform", 0)
    rng = np.random.default_rng(0)
    real, fake = (ops.upload(rng.standard_normal((batch, sizes[0]), np.float32)) for _ in range(2))
    counter = ops.upload(np.zeros(1, np.uint64))
    context = Context(training=True, counter=counter, seed=0)
    work = net.workspace(batch, context=context)
    ops.upload(np.full(work[-1].dz.shape, 1 / batch, np.float32), out=work[-1].dz)
    loss = ops.empty((1,))
    r1 = GradientPenalty(ops, net, real, work, "r1", 1.0)
    between = InterpolatedPenalty(ops, net, real, fake, 10.0, context)

    def forward_and_backward() -> None:
        net.forward(real, work)
        net.backward(real, work)

    net.forward(real, work)
    return {
        "pass": forward_and_backward,
        "r1": lambda: r1.add_gradient(loss),
        "gradient_penalty": lambda: between.add_gradient(loss),
    }


def measure(calls: dict[str, Any], ops: Backend, rounds: int, seconds: float) -> dict[str, list[float]]:
    """Seconds of one run, ``rounds`` samples of each call, the calls in turn."""
    programs = {name: ops.capture(call) for name, call in calls.items()}
    counts = {}
    for name, program in programs.items():
        program.run(3)
        begin = time.perf_counter()
        program.run(10)
        counts[name] = max(1, int(seconds / ((time.perf_counter() - begin) / 10)))
    samples: dict[str, list[float]] = {name: [] for name in programs}
    for _ in range(rounds):
        for name, program in programs.items():
            begin = time.perf_counter()
            program.run(counts[name])
            samples[name].append((time.perf_counter() - begin) / counts[name])
    return samples


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--seconds", type=float, default=0.3, help="of one sample")
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    minigen.set_num_threads(options.threads)
    ops = get_backend("cpu")
    cells = []
    for name, sizes in NETWORKS.items():
        for activation in ACTIVATIONS:
            calls = passes(ops, sizes, activation, options.batch)
            counts = {call: multiplications(ops, run) for call, run in calls.items()}
            samples = measure(calls, ops, options.rounds, options.seconds)
            unit = statistics.median(samples["pass"])
            for penalty in ("r1", "gradient_penalty"):
                ratio = statistics.median(samples[penalty]) / unit
                count = counts[penalty] / counts["pass"]
                print(
                    f"{name} {activation:10} {penalty:16} {ratio:.2f} passes, {count:.2f} by count of multiplications"
                )
            cells.append(
                {"network": name, "sizes": sizes, "activation": activation, "flops": counts, "seconds": samples}
            )
    result: dict[str, Any] = {"schema": 1, "kind": "penalty_cost", "machine": machine(), **provenance()}
    result |= {"batch": options.batch, "threads": options.threads, "cells": cells}
    write_json(RESULTS / f"penalty-cost-{machine_name()}.json", result)


if __name__ == "__main__":
    main()
