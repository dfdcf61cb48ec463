"""Whole training steps side by side: minigen and what a user would pick instead.

    python -m bench.compare --quick                 # a minute: does everything run and agree?
    python -m bench.compare                         # writes bench/results/compare-MACHINE.json
    python -m bench.compare --sweep all             # how the cost grows; sweeps-MACHINE.json
    python -m bench.compare --model variants        # R1, WGAN-GP, batch norm, conditional; variants-MACHINE.json
    python -m bench.compare --model vae --elbo 110  # time until the test ELBO is -110 nats
    python -m bench.compare --estimate              # how long would it take?

A cell is one model at one size. In each cell every contender starts in a process of its own, is shown to compute what
`bench.oracle` computes in float64, and is then timed in turns with the others: a contender that is not installed, fails
or computes something else is named with its reason and not timed.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from bench import floor, oracle
from bench.environment import RESULTS, cores, machine, machine_name, openblas_core, provenance, write_json
from bench.peers import PEERS, interpreter, is_installed
from bench.process import ContenderError, Process, read_weights, write_job
from bench.spec import MODELS, PRECISIONS, VARIANTS, WIDTHS, Spec, check_inputs, initial_weights, pixels

SCHEMA = 1
CHECK_STEPS = 10
CHECK_ATTEMPTS = 5
"""Sets of batches and noise on which a contender may show that it agrees; the first does for a shallow network.

A ReLU's input within rounding of zero may come out on either side of it, and while Adam's moments are young, the
weights then go another way: any float32 contender may differ from float64 on one set of batches, the likelier the
deeper the network is. A contender that computes something else differs on all.
"""
PER_CALL = {"cpu": (1e10, 100), "cuda": (1e12, 200)}
"""About how many FLOPs a contender with a loop of its own does per call from Python, and at most how many steps."""
BUSY = 0.5
"""Load average over the last minute above which a run begins with a warning."""
EVALUATIONS_PER_EPOCH = 4
"""Of the test ELBO, on the way to `--elbo`."""
SWEEPS = ("batch", "width", "depth", "data", "threads")
SWEPT_BATCHES = (32, 128, 512, 2048, 4096)
SWEPT_WIDTHS = (32, 128, 512, 2048)
GUESSED_SHARE = 0.2
"""Of the measured peak: how fast contenders are on average, for the estimate of how long a run takes."""
GUESSED_PEAK = {"cpu": 2e11, "cuda": 3e13}
"""FLOP/s, of one core or of the GPU, for the same."""


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.compare", description=__doc__.splitlines()[0])
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--model", choices=[*MODELS, *VARIANTS, "all", "variants"], default="all")
    parser.add_argument("--peers", nargs="+", metavar="PEER", choices=list(PEERS), help=f"of {', '.join(PEERS)}")
    parser.add_argument("--batch", nargs="+", type=int, help="default: 128 32 512 4096; with --sweep 128")
    parser.add_argument(
        "--width",
        nargs="+",
        help="article, wide, 256 (units), 512x3 (three layers); default: article wide, with --sweep article",
    )
    parser.add_argument("--sweep", nargs="+", choices=[*SWEEPS, "all"], default=[], help="cells around the first one")
    parser.add_argument("--threads", type=int, default=cores(), help="cores for every contender (default: all)")
    parser.add_argument("--precision", choices=PRECISIONS, default="ieee", help="of matrix products on a GPU")
    parser.add_argument("--data-size", type=int, help="rows of the data set (default: as it is)")
    parser.add_argument("--rounds", type=int, default=9, help="timed turns of every contender")
    parser.add_argument("--chunk", type=float, default=0.4, metavar="SECONDS", help="about how long one turn lasts")
    parser.add_argument(
        "--cell-seconds",
        type=float,
        metavar="SECONDS",
        help="shorten the turns so that those of one cell take this long together (a turn is one step at least)",
    )
    parser.add_argument(
        "--starts", type=int, help="starts of every contender in a model's first cell (default: 3, with --sweep 1)"
    )
    parser.add_argument("--elbo", type=float, metavar="NATS", help="also: time until the test negative ELBO is below")
    parser.add_argument("--epochs", type=int, default=30, help="epochs after which --elbo gives up")
    parser.add_argument("--patience", type=float, default=300, metavar="SECONDS", help="for one answer of a contender")
    parser.add_argument("--python", nargs="+", default=[], metavar="PEER=PATH", help="torch=, jax=, tensorflow=")
    parser.add_argument("--setup", action="store_true", help="first make the peers' virtual environments")
    parser.add_argument("--quick", action="store_true", help="a smoke run: its figures mean nothing")
    parser.add_argument("--estimate", action="store_true", help="say how long it would take, and do nothing")
    parser.add_argument(
        "--out",
        type=Path,
        help="result file (default: compare-MACHINE.json, or variants- or, with --sweep, sweeps-; in bench/results)",
    )
    options = parser.parse_args(arguments)
    if options.quick:
        options.batch, options.width, options.rounds, options.chunk, options.starts = [32], ["article"], 2, 0.02, 1
        options.data_size = options.data_size or 512
    elif options.out is None:
        options.out = RESULTS / f"{file_kind(options)}-{machine_name(options.device)}.json"
    options.starts = options.starts or (1 if options.sweep else 3)
    options.batch = options.batch or ([128] if options.sweep else [128, 32, 512, 4096])
    options.width = options.width or (["article"] if options.sweep else ["article", "wide"])
    for number in (*options.batch, options.rounds, options.threads):
        if number < 1:
            parser.error(f"--batch, --rounds and --threads must be positive, not {number}")
    options.chosen = dict(item.split("=", 1) for item in options.python)
    return options


def file_kind(options: argparse.Namespace) -> str:
    """What the result file is named after, beside the machine."""
    if options.sweep:
        return "sweeps"
    return "variants" if options.model == "variants" or options.model in VARIANTS else "compare"


# --- cells ------------------------------------------------------------------------------------------------------------


def hidden_layers(model: str, width: str) -> tuple[int, ...]:
    if width in WIDTHS[model]:
        return WIDTHS[model][width]
    size, _, depth = width.partition("x")
    return (int(size),) * int(depth or 1)


def make_spec(model: str, hidden: tuple[int, ...], batch: int, n: int, options: argparse.Namespace) -> Spec:
    spec = Spec(model, hidden, batch, n, device=options.device, threads=options.threads, precision=options.precision)
    work, most = (0, 1) if options.quick else PER_CALL[options.device]
    return replace(spec, steps_per_call=max(1, min(most, int(work / floor.flops(spec)))))


def cells(options: argparse.Namespace, n: int) -> list[Spec]:
    """All cells, each once. The first of each model is the base that the sweeps vary."""
    wanted: list[Spec] = []
    for model in {"all": MODELS, "variants": VARIANTS}.get(options.model, (options.model,)):
        grid = [(hidden_layers(model, width), batch) for width in options.width for batch in options.batch]
        wanted += [make_spec(model, hidden, batch, n, options) for hidden, batch in grid]
        hidden, batch = grid[0]
        sweeps = SWEEPS if "all" in options.sweep else options.sweep
        if "batch" in sweeps:
            wanted += [make_spec(model, hidden, size, n, options) for size in SWEPT_BATCHES if size <= n]
        if "width" in sweeps:
            wanted += [make_spec(model, (units,), batch, n, options) for units in SWEPT_WIDTHS]
        if "depth" in sweeps:
            wanted += [make_spec(model, (hidden[0],) * k, batch, n, options) for k in (1, 2, 4, 8)]
        if "data" in sweeps:
            sizes = [n * 4**k // 64 for k in range(4)]
            wanted += [make_spec(model, hidden, batch, size, options) for size in sizes if size >= batch]
        if "threads" in sweeps:
            counts = sorted({1, *(2**k for k in range(1, 8) if 2**k < options.threads), options.threads})
            wanted += [replace(make_spec(model, hidden, batch, n, options), threads=k) for k in counts]
    return list(dict.fromkeys(wanted))


def load_data(options: argparse.Namespace) -> tuple[np.ndarray, np.ndarray, str]:
    """Training and test rows ``uint8[N, 784]``, and their name: MNIST from ``$MINIGEN_DATA``, else the bundled ones."""
    from minigen import datasets

    if os.environ.get("MINIGEN_DATA"):
        train, test = (np.asarray(datasets.mnist(split, download=False)) for split in ("train", "test"))
        name = "MNIST"
    else:
        digits = np.asarray(datasets.mnist_sample())
        order = np.random.default_rng(0).permutation(len(digits))
        train, test = digits[order[:-1000]], digits[order[-1000:]]
        name = "the bundled MNIST sample"
    train, test = (rows.reshape(len(rows), -1) for rows in (train, test))
    if options.data_size:
        train = np.resize(train, (options.data_size, train.shape[1]))
    return np.ascontiguousarray(train), test, name


# --- one cell ---------------------------------------------------------------------------------------------------------


class Cell:
    """One spec, its data and its folder of files for the contenders."""

    def __init__(
        self, spec: Spec, data: np.ndarray, folder: Path, options: argparse.Namespace, compiled: Path | None = None
    ) -> None:
        self.spec, self.folder, self.options, self.compiled = spec, folder, options, compiled
        self.data = data[: spec.n]
        self.weights = initial_weights(spec)
        self.expected: dict[tuple[str, int], tuple[np.ndarray, list[np.ndarray]]] = {}

    def inputs(self, attempt: int = 0) -> Path:
        """The file of the check's batches and noise."""
        path = self.folder / f"check-{attempt}.npz"
        if not path.exists():
            indices, noise = check_inputs(self.spec, CHECK_STEPS, attempt)
            np.savez(path, indices=indices, noise=noise)
        return path

    def oracle(self, algorithm: str, attempt: int) -> tuple[np.ndarray, list[np.ndarray]]:
        if (algorithm, attempt) not in self.expected:
            given = np.load(self.inputs(attempt))
            self.expected[algorithm, attempt] = oracle.train(
                self.spec, self.data, self.weights, given["indices"], given["noise"], algorithm
            )
        return self.expected[algorithm, attempt]

    @contextlib.contextmanager
    def start(self, name: str) -> Iterator[Process]:
        """A running contender; ended at exit. The caller stops all others first."""
        folder = Path(tempfile.mkdtemp(prefix=f"{name}-", dir=self.folder))
        job = write_job(folder / "job", PEERS[name].module, self.spec, self.data, self.weights)
        process = Process(interpreter(PEERS[name], self.options.chosen), job, self.options.patience, self.compiled)
        try:
            yield process
        finally:
            process.close()
            shutil.rmtree(folder)

    def first_step(self, process: Process, record: dict[str, Any]) -> None:
        """Note the start-up, and the memory before anything but training has run."""
        answer = process.ask("first")
        record.setdefault("startup_seconds", []).append(time.perf_counter() - process.started)
        record["versions"], record["algorithm"] = answer["versions"], answer["algorithm"]
        process.ask("run", warmup=0, steps=self.spec.steps_per_call)
        record.update(process.ask("memory"))

    def check(self, process: Process, record: dict[str, Any]) -> None:
        """Given steps, compared with the oracle; and the timed step's own where the contender tells its draws."""
        for attempt in range(CHECK_ATTEMPTS):
            record["check"] = self.check_given(process, record["algorithm"], attempt)
            if oracle.agrees(record["check"], self.spec.precision):
                break
        record["check"]["attempts"] = attempt + 1
        if oracle.agrees(record["check"], self.spec.precision):
            timed = self.check_timed(process)
            record["check"]["weight_error"] = float(np.maximum(record["check"]["weight_error"], timed))
        if not oracle.agrees(record["check"], self.spec.precision):
            record["status"] = "differs"
            record["reason"] = (
                f"computes something else: after {CHECK_STEPS} steps losses differ by "
                f"{record['check']['loss_error']:.1e} and weights by {record['check']['weight_error']:.1e}"
            )

    def check_given(self, process: Process, algorithm: str, attempt: int) -> dict[str, Any]:
        out = self.folder / "checked.npz"
        process.ask("check", inputs=str(self.inputs(attempt)), out=str(out))
        losses, weights = self.oracle(algorithm, attempt)
        loss_error, weight_error = oracle.errors(
            np.load(out)["losses"], read_weights(out), losses, weights, self.weights
        )
        return {"loss_error": loss_error, "weight_error": weight_error}

    def check_timed(self, process: Process) -> float:
        """The weights' error after the first timed steps, by the attempt's own draws; 0 where they are not told."""
        out = self.folder / "checked.npz"
        for attempt in range(CHECK_ATTEMPTS):
            if not process.ask("check_timed", steps=CHECK_STEPS, attempt=attempt, out=str(out))["drawn"]:
                return 0.0
            drawn = np.load(out)
            _, weights = oracle.train(self.spec, self.data, self.weights, drawn["indices"], drawn["noise"])
            error = oracle.weight_error(read_weights(out), weights, self.weights)
            if oracle.agrees({"loss_error": 0.0, "weight_error": error}, self.spec.precision):
                break
        return error

    def steps_per_turn(self, process: Process) -> int:
        """How many steps last about as long as one turn should."""
        unit = self.spec.steps_per_call
        steps, seconds = unit, process.ask("run", warmup=unit, steps=unit)["seconds"]
        while seconds < self.options.chunk / 4:
            steps *= 2
            seconds = process.ask("run", warmup=0, steps=steps)["seconds"]
        return max(1, round(self.options.chunk / seconds * steps / unit)) * unit

    def prepare(self, name: str, processes: contextlib.ExitStack, starts: int) -> tuple[dict[str, Any], Process | None]:
        """Start, check and calibrate one contender: its record, and its process if it may be timed."""
        record: dict[str, Any] = {"status": "timed"}
        peer = PEERS[name]
        if not is_installed(interpreter(peer, self.options.chosen), peer.needs):
            how = f"; python -m bench.setup_peers {peer.environment}" if peer.environment else ""
            return {"status": "missing", "reason": f"{peer.needs} is not installed{how}"}, None
        try:
            for _ in range(starts - 1):
                with self.start(name) as process:
                    self.first_step(process, record)
            with contextlib.ExitStack() as own:
                process = own.enter_context(self.start(name))
                self.first_step(process, record)
                self.check(process, record)
                if record["status"] != "timed":
                    return record, None
                record["steps_per_sample"] = self.steps_per_turn(process)
                processes.push(own.pop_all())
        except ContenderError as error:
            return record | {"status": "failed", "reason": str(error)}, None
        return record, process

    def run(
        self, names: list[str], starts: int, records: dict[str, Any], keep: Callable[[], None] = lambda: None
    ) -> dict[str, Any]:
        """Prepare all, then time them in turns. ``records`` gets what is known, and ``keep`` is called as it grows."""
        running: dict[str, Process] = {}
        with contextlib.ExitStack() as processes:
            for name in names:
                records[name], process = self.prepare(name, processes, starts)
                if process:
                    running[name] = process
                print(f"  {name:15} {summary(records[name])}", flush=True)
                keep()
            self.bound_turns(records)
            for turn in range(self.options.rounds):
                self.one_round(records, running, turn)
                keep()
        for name, record in records.items():
            if record["status"] == "timed":
                print(f"  {name:15} {1e3 * statistics.median(record['samples']):10.4f} ms a step", flush=True)
        return records

    def bound_turns(self, records: dict[str, Any]) -> None:
        """Fewer steps a turn where all turns together would take longer than ``--cell-seconds``."""
        timed = [record for record in records.values() if record["status"] == "timed"]
        planned = self.options.rounds * self.options.chunk * len(timed)
        if self.options.cell_seconds is None or planned <= self.options.cell_seconds:
            return
        unit = self.spec.steps_per_call
        for record in timed:
            share = record["steps_per_sample"] * self.options.cell_seconds / planned
            record["steps_per_sample"] = max(1, round(share / unit)) * unit

    def one_round(self, records: dict[str, Any], running: dict[str, Process], turn: int) -> None:
        """One turn each, beginning with another contender every round, so that no one always follows the same one."""
        order = list(running)
        shift = turn % len(order) if order else 0
        for name in order[shift:] + order[:shift]:
            steps = records[name]["steps_per_sample"]
            # A turn of one long step warms up by itself.
            warmup = self.spec.steps_per_call if steps > 1 else 0
            try:
                seconds = running[name].ask("run", warmup=warmup, steps=steps)["seconds"]
            except ContenderError as error:
                records[name] |= {"status": "failed", "reason": str(error)}
                del running[name]
                continue
            records[name].setdefault("samples", []).append(seconds / steps)

    def time_to_elbo(self, name: str, test: np.ndarray, target: float, epochs: int) -> dict[str, Any]:
        """Train from the initial weights until the test rows' negative ELBO is below ``target``; evaluation untimed.

        It is evaluated every quarter of an epoch, on the same noise for all.
        """
        x = pixels(self.spec, test)
        eps = np.random.default_rng(2).standard_normal((len(x), self.spec.latent), dtype=np.float32)
        unit = self.spec.steps_per_call
        steps_per_epoch = self.spec.whole_rows // self.spec.batch
        steps = -(-steps_per_epoch // EVALUATIONS_PER_EPOCH // unit) * unit
        seconds, done, curve = 0.0, 0, []
        with self.start(name) as process:
            process.ask("first")
            # Back to the initial weights; the check is done again on the way.
            process.ask("check", inputs=str(self.inputs()), out=str(self.folder / "checked.npz"))
            while done < epochs * steps_per_epoch:
                seconds += process.ask("run", warmup=0, steps=steps)["seconds"]
                done += steps
                out = self.folder / "weights.npz"
                process.ask("weights", out=str(out))
                curve.append([seconds, oracle.negative_elbo(self.spec, read_weights(out), x, eps)])
                if curve[-1][1] <= target:
                    break
        reached = curve[-1][1] <= target
        return {
            "seconds": seconds if reached else None,
            "steps": done,
            "epochs": done / steps_per_epoch,
            "curve": curve,
        }


def summary(record: dict[str, Any]) -> str:
    if "check" not in record or record["status"] != "timed":
        return f"{record['status']}: {record['reason']}"
    check = record["check"]
    return f"agrees: losses {check['loss_error']:.0e}, weights {check['weight_error']:.0e}"


# --- how long it takes ------------------------------------------------------------------------------------------------


def estimated_seconds(spec: Spec, names: list[str], starts: int, options: argparse.Namespace) -> float:
    """Of one cell, roughly: start-ups, the check and its float64 oracle, and the timed turns."""
    cores = spec.threads if spec.device == "cpu" else 1
    step = floor.flops(spec) / (GUESSED_PEAK[spec.device] * cores * GUESSED_SHARE)
    turns = options.rounds * options.chunk * len(names)
    if options.cell_seconds is not None:
        turns = min(turns, options.cell_seconds)
    start = sum(starts * PEERS[name].start for name in names)
    return (
        start
        + step * (2 * CHECK_STEPS * len(names) + 4 * CHECK_STEPS)
        + max(1.2 * turns, options.rounds * step * len(names))
    )


def estimate(todo: list[Spec], options: argparse.Namespace) -> float:
    """Seconds of the whole run; the races to an ELBO, at most ``--epochs`` each, are not in it."""
    total, seen = 0.0, set()
    for spec in todo:
        first = spec.model not in seen
        seen.add(spec.model)
        total += estimated_seconds(spec, contenders(spec, options.peers), options.starts if first else 1, options)
    return total


# --- all cells --------------------------------------------------------------------------------------------------------


def contenders(spec: Spec, names: list[str] | None) -> list[str]:
    """The peers for this cell; all that can do it where none are named."""
    fitting = [name for name, peer in PEERS.items() if spec.model in peer.models and spec.device in peer.devices]
    return fitting if names is None else [name for name in names if name in fitting]


def compare(options: argparse.Namespace, compiled: Path) -> dict[str, Any]:
    """Measure everything that is asked for; the result file is written after each turn, so that little is lost.

    ``compiled`` is a folder where PyTorch's compiler keeps what cells have in common.
    """
    data, test, data_name = load_data(options)
    todo = cells(options, len(data))
    for spec in todo:
        if spec.batch > spec.n:
            raise SystemExit(f"batch {spec.batch} is larger than the data set of {spec.n} rows")
    print(f"{len(todo)} cells, about {estimate(todo, options) / 60:.0f} minutes if nothing else runs here", flush=True)
    if options.estimate:
        return {"cells": []}
    where = machine(options.device) | ({"numpy's openblas": openblas_core()} if options.device == "cpu" else {})
    result: dict[str, Any] = {
        "schema": SCHEMA,
        "kind": "compare",
        **provenance(),
        "machine": where,
        "quick": options.quick,
        "arguments": {k: str(v) if isinstance(v, Path) else v for k, v in vars(options).items() if k not in HIDDEN},
        "load_before": os.getloadavg()[0],
        "data": data_name,
        "check_steps": CHECK_STEPS,
        "tolerance": oracle.TOLERANCES[options.precision],
        "limits": {},
        "cells": [],
    }
    if result["load_before"] > BUSY:
        print(f"this machine is busy (load {result['load_before']:.1f}): figures taken now mean little")
    seen: set[str] = set()
    begin = time.perf_counter()
    for number, spec in enumerate(todo):
        print(f"[{number + 1}/{len(todo)}] {describe(spec)}", flush=True)
        if not options.quick and str(spec.threads) not in result["limits"]:
            limits = measured_limits(spec)
            result["limits"] |= {str(spec.threads): limits} if limits else {}
        first = spec.model not in seen
        seen.add(spec.model)
        with tempfile.TemporaryDirectory(prefix="minigen-bench-") as folder:
            # Start-up is shown for a model's first cell, and there PyTorch's compiler begins with nothing.
            cell = Cell(spec, data, Path(folder), options, None if first else compiled)
            names = contenders(spec, options.peers)
            record: dict[str, Any] = {"spec": spec.to_json()}
            record["floor"] = floor.floor(spec, result["limits"].get(str(spec.threads)))
            record["contenders"] = {}
            result["cells"].append(record)

            def keep() -> None:
                result["minutes"] = round((time.perf_counter() - begin) / 60, 1)
                if options.out:
                    write_json(options.out, result)

            cell.run(names, options.starts if first else 1, record["contenders"], keep)
            if first and spec.model == "vae" and options.elbo is not None:
                record["elbo"] = elbo_race(cell, record["contenders"], test, options)
            keep()
    return result


def measured_limits(spec: Spec) -> dict[str, Any] | None:
    """The machine's limits; None, saying why, where a GPU's library for that fails: the contenders need it not."""
    try:
        return floor.measure(spec.threads, spec.device, spec.precision)
    except subprocess.CalledProcessError as error:
        if spec.device == "cpu":
            raise
        last = (error.stderr.strip().splitlines() or ["nothing was printed"])[-1]
        print(f"this GPU's limits could not be measured: {last[:300]}", flush=True)
        return None


HIDDEN = ("chosen", "python", "out", "setup", "estimate")
"""Options that name paths of one machine; they are kept out of the result file."""


def elbo_race(cell: Cell, records: dict[str, Any], test: np.ndarray, options: argparse.Namespace) -> dict[str, Any]:
    race: dict[str, Any] = {"target": options.elbo, "test_rows": len(test), "contenders": {}}
    for name, record in records.items():
        if record["status"] == "timed":
            outcome = cell.time_to_elbo(name, test, options.elbo, options.epochs)
            race["contenders"][name] = outcome
            took = "not reached" if outcome["seconds"] is None else f"{outcome['seconds']:.1f} s"
            print(f"  {name:15} to {options.elbo} nats: {took}, {outcome['steps']} steps", flush=True)
    return race


def describe(spec: Spec) -> str:
    hidden = "-".join(map(str, spec.hidden))
    return f"{spec.model} {hidden}, batch {spec.batch}, {spec.n} rows, {spec.threads} threads, {spec.device}"


def main(arguments: list[str] | None = None) -> int:
    options = parse(arguments)
    if options.setup:
        from bench.setup_peers import setup

        setup([])
    with tempfile.TemporaryDirectory(prefix="minigen-bench-compiled-") as compiled:
        result = compare(options, Path(compiled))
    records = [record for cell in result["cells"] for record in cell["contenders"].values()]
    bad = [record for record in records if record["status"] in ("differs", "failed")]
    if options.out and not options.estimate:
        print(f"written: {options.out.name}; now run python -m bench.report")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
