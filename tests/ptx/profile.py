"""How many instructions a step's launches execute on the multiprocessor that has the most, and which lines they are.

``cd tests && python -m ptx.profile gan --architecture 90 --precision tf32x3 --lines 12``. A multiprocessor has four
schedulers, each of which starts at most one instruction of a warp a clock. So a launch takes at least as many clocks as
the busiest multiprocessor's warps have instructions, over four (``issue``), and as many as the longest warp has
(``longest``). Program ``p`` is counted on multiprocessor ``p`` modulo their number, of the architecture's largest card.
This is a guide where no GPU is at hand, and no time: conflicts in shared memory, caches and waiting are not in it, and
``ptxas`` may make several instructions of one.

With ``--models 16`` it is of sixteen models whose steps are launched together (:mod:`minigen.cuda.plan.many`), with
products cut for all of them, or with ``--exact`` in the order of one model. The programs of one model are run, and
counted for each.
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

import minigen.cuda.kernels
from minigen.cuda.backend import PRECISIONS, CudaBackend
from minigen.cuda.plan import many
from minigen.cuda.plan.launch import Launch
from minigen.cuda.plan.tiles import multiprocessors
from minigen.cuda.tools.explain import training_of
from minigen.cuda.tools.measure import H100
from minigen.cuda.tools.report import ARCHITECTURES, MODELS
from ptx.code import Code
from ptx.executor import PtxExecutor

SCHEDULERS = 4


@dataclass(frozen=True)
class Profile:
    """A launch, its code, and ``executed[instructions, programs]``: how many times a program's warps ran each.

    The launch is for ``models`` models, each of which has these programs.
    """

    launch: Launch
    code: Code
    executed: np.ndarray
    architecture: int
    models: int = 1

    @property
    def issue(self) -> int:
        """Instructions of the busiest multiprocessor over its schedulers."""
        instructions = np.repeat(self.executed.sum(0), self.models)
        places = np.arange(len(instructions)) % multiprocessors(self.architecture)
        return -(-int(np.bincount(places, instructions).max()) // SCHEDULERS)

    @property
    def longest(self) -> int:
        """Instructions of a warp of the longest program, in the mean."""
        return int(self.executed.sum(0).max()) // self.launch.num_warps

    def lines(self, most: int) -> list[tuple[str, int]]:
        """Of the longest program the lines with the most instructions, such as ``dense.py:80``, and how many a warp."""
        counts: Counter[str] = Counter()
        executed = self.executed[:, self.executed.sum(0).argmax()]
        for instruction, times in zip(self.code.instructions, executed, strict=True):
            counts[instruction.line] += int(times)
        return [(line, times // self.launch.num_warps) for line, times in counts.most_common(most)]


def profiles(
    model: str,
    architecture: int,
    precision: str,
    columns: int,
    settings: dict[str, Any],
    models: int = 1,
    exact: bool = False,
) -> Iterator[Profile]:
    """Each launch of one step of a model, or of several, on random pictures of ``columns`` pixels."""
    executor = PtxExecutor(architecture)
    ops = CudaBackend(executor=executor, precision=precision)
    ops.target = replace(ops.target, models=models, exact=exact)
    rows = np.random.default_rng(0).integers(0, 256, (512, columns), np.uint8)
    steps = []
    for seed in range(min(models, 2)):
        training = training_of(model, ops, rows, settings | {"seed": seed})
        steps.append(ops.schedule(lambda step=training.step: step.compute(step.batch_size)).launches)
    if models == 1:
        for launch in steps[0]:
            yield Profile(launch, *executor.execute(launch), architecture)
        return
    for launch in many.together(steps, executor):
        mine = 1 + 2 * np.arange(launch.grid[0])  # the second model's of two
        code, executed = executor.execute(launch, mine)
        yield Profile(launch, code, executed[:, mine], architecture, models)


def source(place: str) -> str:
    """The text of a kernel's line; of others, such as Triton's own library, nothing."""
    file, _, line = place.partition(":")
    path = Path(minigen.cuda.kernels.__path__[0]) / file
    return path.read_text().splitlines()[int(line) - 1].strip() if path.exists() and line != "0" else ""


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m ptx.profile", description=__doc__)
    parser.add_argument("model", choices=MODELS)
    parser.add_argument("--architecture", type=int, default=90, choices=ARCHITECTURES)
    parser.add_argument("--precision", default="tf32x3", choices=PRECISIONS)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--hidden", type=int, nargs="+", help="widths of the hidden layers, other than the default's")
    parser.add_argument("--columns", type=int, default=784, help="pixels of a picture")
    parser.add_argument("--models", type=int, default=1, help="how many, launched together")
    parser.add_argument("--exact", action="store_true", help="with the order of sums, and so the bits, of one model")
    parser.add_argument("--lines", type=int, default=0, help="of each launch, those with the most instructions")
    chosen = parser.parse_args()
    settings = MODELS[chosen.model] | {"batch_size": chosen.batch}
    settings |= {"hidden": tuple(chosen.hidden)} if chosen.hidden else {}
    found = []
    print(f"  issue      us longest programs  kernel                    (us: issue at {H100.clock / 1e9:.2f} GHz)")
    for p in profiles(
        chosen.model, chosen.architecture, chosen.precision, chosen.columns, settings, chosen.models, chosen.exact
    ):
        found.append(p)
        counts = f"{p.issue:7,} {1e6 * p.issue / H100.clock:7.2f} {p.longest:7,}"
        print(f"{counts} {p.launch.grid[0]:5}x{p.launch.num_warps:<2}  {p.launch.name}  {p.launch.tile}")
        for line, times in p.lines(chosen.lines):
            print(f"        {times:6,} {line:22} {source(line)}")
    issue, longest = sum(p.issue for p in found), sum(p.longest for p in found)
    print(f"{issue:7,} {1e6 * issue / H100.clock:7.2f} {longest:7,} {len(found)} launches")
    if chosen.models > 1:
        each = 1e6 * issue / H100.clock / chosen.models
        print(f"{each:.2f} us of issue a model-step, {chosen.models} models at once")


if __name__ == "__main__":
    main()
