"""A training on a machine that others use too: the article's GAN beside 0, 1 and 2 programs that never sleep.

    python -m bench.busy                                  # this tree: one thread, two, and as many as minigen chooses
    python -m bench.busy --other before=/path/to/python   # and another version of minigen, in turns with it
    python -m bench.busy --add                            # more rounds into the same result file

Each contender is a process of its own that trains for a while; nothing else of this benchmark runs meanwhile but the
busy loops; a turn in which other programs took more than a tenth of a core is taken again. Contenders take turns, and
the order is turned around from round to round. A sample is a turn: the mean time of its steps, at batch 128 in epochs
of 10, without the first epoch. Writes `bench/results/busy-NAME.json`.

Not an epoch: where the scheduler puts threads and loops decides how fast a whole turn is. Fast turns have more epochs,
so that a median of all epochs is one of the lucky turns.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bench.environment import RESULTS, machine, machine_name, provenance, write_json

LOADS = (0, 1, 2)
STEPS = 10  # of an epoch
WORKER = """
import json, sys, time
import numpy as np
import minigen

threads, fixed, seconds = int(sys.argv[1]), sys.argv[2] == "fixed", float(sys.argv[3])
if threads:
    minigen.set_num_threads(threads)
if fixed:
    import minigen.cpu
    getattr(minigen.cpu._native, "choose_threads", lambda choose: None)(False)
data = np.random.default_rng(0).integers(0, 256, (int(sys.argv[4]) * 128, 784), np.uint8)
end = time.perf_counter() + seconds
model = minigen.GAN(epochs=10**6, device="cpu", precision="ieee")
model.fit(data, callbacks=[lambda end_: end_.epoch > 2 and time.perf_counter() > end], progress=False)
print(json.dumps(model.history_.seconds[1:]))
"""
OWN = {  # threads (0: as minigen does by itself), whether they are fixed, OMP_NUM_THREADS
    "1 thread": (1, "fixed", ""),
    "2 threads": (2, "fixed", ""),
    "as it chooses": (0, "free", ""),
    "OMP_NUM_THREADS=8": (0, "free", "8"),
}
OTHERS = {name: OWN[name] for name in ("1 thread", "2 threads", "OMP_NUM_THREADS=8")}


@contextmanager
def busy_loops(number: int) -> Iterator[list[int]]:
    """That many endless loops, by their process numbers."""
    loops = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(number)]
    try:
        yield [loop.pid for loop in loops]
    finally:
        for loop in loops:
            loop.kill()
            loop.wait()


def seconds_of_others(loops: list[int]) -> float:
    """Processor time that was used so far by others than ``loops`` and the children that have ended. Linux only."""
    everyone = sum(int(field) for field in Path("/proc/stat").read_text().split()[1:4])
    for loop in loops:
        everyone -= sum(int(field) for field in Path(f"/proc/{loop}/stat").read_text().rsplit(")", 1)[1].split()[11:13])
    ended = resource.getrusage(resource.RUSAGE_CHILDREN)
    return everyone / os.sysconf("SC_CLK_TCK") - ended.ru_utime - ended.ru_stime


def train(python: str, contender: tuple[int, str, str], seconds: float, loops: list[int]) -> float:
    """Mean seconds a step. In an empty folder: ``python`` takes the minigen that it has installed."""
    threads, choice, asked = contender
    environment = {name: value for name, value in os.environ.items() if name not in ("OMP_NUM_THREADS", "PYTHONPATH")}
    if asked:
        environment["OMP_NUM_THREADS"] = asked
    command = [python, "-c", WORKER, str(threads), choice, str(seconds), str(STEPS)]
    while True:
        begun, others = time.perf_counter(), seconds_of_others(loops)
        with tempfile.TemporaryDirectory() as folder:
            done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=True)
        if seconds_of_others(loops) - others < 0.1 * (time.perf_counter() - begun):
            return statistics.fmean(json.loads(done.stdout)) / STEPS
        print("other programs are at work: once more", file=sys.stderr)


def measure(pythons: dict[str, str], rounds: int, seconds: float, cells: dict[str, dict[str, list[float]]]) -> None:
    """Add samples to ``cells[load][contender]``, ``contender`` as ``version, how many threads``."""
    versions = {"": (sys.executable, OWN), **{name: (python, OTHERS) for name, python in pythons.items()}}
    contenders = [(v, name, each[name]) for v, (_, each) in versions.items() for name in each]
    for turn in range(rounds):
        for load in LOADS:
            with busy_loops(load) as loops:
                for version, name, contender in contenders[:: -1 if turn % 2 else 1]:
                    label = f"{version}, {name}" if version else name
                    sample = train(versions[version][0], contender, seconds, loops)
                    cells.setdefault(str(load), {}).setdefault(label, []).append(round(sample, 7))


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.busy", description=__doc__.splitlines()[0])
    parser.add_argument("--name", help="of the result file, busy-NAME.json (default: the machine's)")
    parser.add_argument("--other", action="append", default=[], metavar="NAME=PYTHON", help="another version")
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--seconds", type=float, default=2.0, help="of one turn")
    parser.add_argument("--add", action="store_true", help="keep the samples that the result file has")
    arguments = parser.parse_args()
    path = Path(RESULTS) / f"busy-{arguments.name or machine_name()}.json"
    before = json.loads(path.read_text()) if arguments.add else {"cells": {}, "sample": "turn"}
    if before.get("sample") != "turn":
        parser.error(f"--add: the samples in {path} are epochs and not turns; without --add it is written anew")
    cells: dict[str, dict[str, list[float]]] = before["cells"]
    others: dict[str, Any] = dict(each.split("=", 1) for each in arguments.other)
    measure(others, arguments.rounds, arguments.seconds, cells)
    facts = {"schema": 1, "kind": "busy", "sample": "turn", "machine": machine(), **provenance()}
    write_json(path, {**facts, "cells": cells})


if __name__ == "__main__":
    main()
