"""The article's GAN, several at once of different seeds: `minigen.fit_many` beside JAX's vmap and torch.func.

    python -m bench.many                # 1, 4, 16 and 64 models; and 8 on all cores beside one on one thread
    python -m bench.many --device cuda  # 16, 64 and 1 models on a GPU; a stage of `bench/gpu.sh`
    python -m bench.many --quick        # once in small, to see that all are there and agree: its figures mean nothing

A sample is the time of some steps of all models, over models and steps: seconds a model-step. minigen's are trainings
as a user starts them, with the losses kept; on the CPU making the networks counts, on a GPU it would outlast the
steps and does not. The others' are steps alone, of weights that are there. Contenders are checked and take turns as in
`bench.compare`. Writes `bench/results/many-MACHINE.json`, after each turn.

"Eight at once" is what is asked of `fit_many` on the CPU: the time of 8 models on all cores over that of one model of
as many epochs on one thread, times cores over 8. It is 1 where nothing is lost. "Apart" is the same of as many
processes as cores, of one thread and one model each, which share nothing but the machine: its memory and its clock.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from bench import oracle
from bench.environment import RESULTS, cores, machine, machine_name, provenance, write_json
from bench.peers import Peer, interpreter, is_installed
from bench.process import ContenderError, Process, read_weights, write_job
from bench.spec import Spec, check_inputs, initial_weights

CONTENDERS = {
    "minigen": Peer("bench.peers.many_minigen", "minigen", label="minigen.fit_many"),
    "jax-vmap": Peer("bench.peers.many_jax", "jax", "jax", label="JAX, vmap over a jitted scan"),
    "torch-func": Peer("bench.peers.many_torch", "torch", "torch", label="PyTorch, torch.func"),
}
ON_GPU = {
    "minigen": Peer("bench.peers.many_minigen", "minigen", label="minigen.fit_many, exact=False"),
    "minigen-exact": Peer("bench.peers.many_minigen_exact", "minigen", label="minigen.fit_many"),
    "jax-vmap": CONTENDERS["jax-vmap"],
    "torch-func-graph": Peer("bench.peers.many_torch_graph", "torch", "torch", label="PyTorch, torch.func, CUDA graph"),
}
COUNTS = {"cpu": (1, 4, 16, 64), "cuda": (16, 64, 1)}
SECONDS = 0.4  # of a sample on a GPU
EIGHT = 8
STEPS_PER_EPOCH = {"cpu": 40, "cuda": 470}  # nearly those of the bundled digits; of MNIST
SCAN = {"cpu": 10, "cuda": 47}  # steps a call of JAX, or a graph: what JAX draws for them is kept for all models
CHECK_STEPS = 5
PATIENCE = {"cpu": 600.0, "cuda": 60.0}  # seconds to wait for an answer: compilers are slow


class Timed(NamedTuple):
    """A contender in a cell.

    Each model trains as long as one of ``models`` models does (None: as many as the cell has). ``processes`` is how
    many processes do that at the same time.
    """

    name: str
    spec: Spec
    models: int | None = None
    processes: int = 1


class Bench:
    """Contenders on one data set, each started, checked, and then timed in turns with the others."""

    def __init__(self, folder: Path, steps: int, rounds: int, epochs: int, device: str, quick: bool) -> None:
        """``steps`` is the number of steps of an epoch."""
        self.folder, self.rounds, self.epochs, self.device = folder, rounds, epochs, device
        self.contenders = ON_GPU if device == "cuda" else CONTENDERS
        self.batch, self.hidden, columns = (8, (8,), 20) if quick else (128, (128,), 784)
        self.data = np.random.default_rng(0).integers(0, 256, (steps * self.batch, columns), np.uint8)
        self.started = 0

    def spec(self, at_once: int, threads: int) -> Spec:
        at = {"device": self.device, "threads": threads, "steps_per_call": SCAN[self.device], "at_once": at_once}
        return Spec("gan", self.hidden, self.batch, *self.data.shape, **at)

    @contextlib.contextmanager
    def process(self, name: str, spec: Spec) -> Iterator[Process]:
        peer, self.started = self.contenders[name], self.started + 1
        folder = self.folder / f"{self.started}-{name}"
        job = write_job(folder, peer.module, spec, self.data, initial_weights(spec))
        process = Process(interpreter(peer, {}), job, PATIENCE[self.device])
        try:
            yield process
        finally:
            process.close()

    def check(self, process: Process, spec: Spec) -> dict[str, float]:
        """The last model's losses and weights after some given steps, compared with float64."""
        indices, noise = check_inputs(spec, CHECK_STEPS)
        inputs, out = self.folder / "inputs.npz", self.folder / "checked.npz"
        np.savez(inputs, indices=indices, noise=noise)
        process.ask("check", inputs=str(inputs), out=str(out))
        initial = initial_weights(spec)
        losses, weights = oracle.train(spec, self.data, initial, indices, noise)
        errors = oracle.errors(np.load(out)["losses"], read_weights(out), losses, weights, initial)
        return dict(zip(("loss_error", "weight_error"), errors, strict=True))

    def measure(self, todo: dict[str, Timed], records: dict[str, dict[str, Any]], keep: Callable[[], None]) -> None:
        """Fill ``records`` by the labels of ``todo``: contenders and their cells, which take turns.

        ``keep`` is called after each turn.
        """
        running: dict[str, list[Process]] = {}
        with contextlib.ExitStack() as stack:
            for label, timed in todo.items():
                records[label] = self.prepare(stack, running, label, timed)
            for turn in range(self.rounds):
                order = list(running)
                for label in order[turn % len(order) :] + order[: turn % len(order)]:
                    steps, processes = records[label]["steps"], running[label]
                    with ThreadPoolExecutor(len(processes)) as pool:
                        asked = [pool.submit(process.ask, "run", warmup=0, steps=steps) for process in processes]
                    seconds = max(answer.result()["seconds"] for answer in asked)
                    records[label]["samples"].append(seconds / (steps * todo[label].spec.at_once * len(processes)))
                keep()

    def prepare(
        self, stack: contextlib.ExitStack, running: dict[str, list[Process]], label: str, timed: Timed
    ) -> dict[str, Any]:
        peer, spec = self.contenders[timed.name], timed.spec
        if not is_installed(interpreter(peer, {}), peer.needs):
            return {"status": "missing", "reason": f"{peer.needs} is not installed; python -m bench.setup_peers"}
        try:
            processes = [stack.enter_context(self.process(timed.name, spec)) for _ in range(timed.processes)]
            record = {"status": "timed", "check": self.check(processes[0], spec), "samples": []}
            if not oracle.agrees(record["check"], spec.precision):
                return record | {"status": "differs", "reason": "computes something else"}
            for number, process in enumerate(processes):
                if len(processes) > 1 and hasattr(os, "sched_setaffinity"):  # a worker of one thread takes the first
                    usable = sorted(os.sched_getaffinity(0))
                    os.sched_setaffinity(process.process.pid, {usable[number % len(usable)]})
                process.ask("run", warmup=0, steps=self.epoch(spec))
            record["steps"] = self.steps(processes[0], timed)
            running[label] = processes
            return record
        except ContenderError as error:
            return {"status": "failed", "reason": str(error)}

    def epoch(self, spec: Spec) -> int:
        return spec.n // spec.batch

    def steps(self, process: Process, timed: Timed) -> int:
        """Of a sample, whole epochs: about as many model-steps for each number of models, on a GPU by the clock."""
        spec = timed.spec
        if self.device == "cpu":
            return self.epoch(spec) * max(1, self.epochs // (timed.models or spec.at_once))
        seconds = process.ask("run", warmup=0, steps=self.epoch(spec))["seconds"]
        return self.epoch(spec) * max(1, min(self.epochs, round(SECONDS / seconds)))


def measure(options: argparse.Namespace, folder: Path, keep: Callable[[dict[str, Any]], None]) -> None:
    """``keep`` gets the result whenever it has grown."""
    threads = options.threads or cores()
    steps = (SCAN if options.quick else STEPS_PER_EPOCH)[options.device]
    bench = Bench(folder, steps, options.rounds, options.epochs, options.device, options.quick)
    result: dict[str, Any] = {"device": options.device, "threads": threads, "cells": []}
    for at_once in options.counts:
        spec = bench.spec(at_once, threads)
        records: dict[str, Any] = {}
        result["cells"].append({"models": at_once, "contenders": records})
        bench.measure({name: Timed(name, spec) for name in bench.contenders}, records, lambda: keep(result))
        print(at_once, {name: record.get("samples") or record.get("reason") for name, record in records.items()})
    if options.device == "cpu":
        together, alone = bench.spec(EIGHT, threads), bench.spec(1, 1)
        eight = result["eight"] = {"models": EIGHT, "cores": threads}
        todo = {
            "together": Timed("minigen", together),
            "alone": Timed("minigen", alone, models=EIGHT),
            "apart": Timed("minigen", alone, models=EIGHT, processes=threads),
        }
        bench.measure(todo, eight, lambda: keep(result))


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.many", description=__doc__.splitlines()[0])
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--quick", action="store_true", help="once in small; its figures mean nothing")
    parser.add_argument("--counts", type=lambda text: [int(n) for n in text.split(",")], help="of models: 1,4,16,64")
    parser.add_argument("--rounds", type=int, help="turns of each contender (default: 7)")
    parser.add_argument("--epochs", type=int, help="in a turn, all models together (default: 64), on a GPU at most")
    parser.add_argument("--threads", type=int, help="default: one a core")
    parser.add_argument("--out", type=Path, help="the result file (default: bench/results/many-MACHINE.json)")
    options = parser.parse_args(arguments)
    options.counts = options.counts or ([1, 3] if options.quick else list(COUNTS[options.device]))
    options.rounds = options.rounds or (1 if options.quick else 7)
    options.epochs = options.epochs or (1 if options.quick else 64)
    if options.quick and not options.out:
        parser.error("--quick needs --out: its figures belong to no results")
    at = options.device
    facts = {"schema": 1, "kind": "many", "quick": options.quick, "machine": machine(at), **provenance()}
    out = options.out or RESULTS / f"many-{machine_name(at)}.json"
    with tempfile.TemporaryDirectory() as folder:
        measure(options, Path(folder), lambda result: write_json(out, {**facts, **result}))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
