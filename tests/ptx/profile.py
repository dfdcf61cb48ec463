"""How many instructions the longest program of each launch of a step executes, and which lines they come from.

``cd tests && python -m ptx.profile gan --architecture 90 --precision tf32x3 --lines 12``. A step of small products is
bound by what one warp does from a launch's beginning to its end, so this is a guide where no GPU is at hand; it is no
time. Conflicts in shared memory, caches and waiting are not in it, and ``ptxas`` may make several instructions of one.
"""

from __future__ import annotations

import argparse
from collections import Counter
from pathlib import Path

import numpy as np

import minigen.cuda.kernels
from minigen.cuda.backend import PRECISIONS, CudaBackend
from minigen.cuda.tools.explain import training_of
from minigen.cuda.tools.report import ARCHITECTURES, MODELS
from ptx.executor import PtxExecutor


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m ptx.profile", description=__doc__)
    parser.add_argument("model", choices=MODELS)
    parser.add_argument("--architecture", type=int, default=90, choices=ARCHITECTURES)
    parser.add_argument("--precision", default="tf32x3", choices=PRECISIONS)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--lines", type=int, default=0, help="of each launch, those with the most instructions")
    chosen = parser.parse_args()
    executor = PtxExecutor(chosen.architecture)
    ops = CudaBackend(executor=executor, precision=chosen.precision)
    rows = np.random.default_rng(0).integers(0, 256, (4 * chosen.batch, 784), np.uint8)
    training = training_of(chosen.model, ops, rows, MODELS[chosen.model] | {"batch_size": chosen.batch})
    total = 0
    for launch in ops.schedule(lambda: training.step.compute(chosen.batch)).launches:
        code, executed = executor.execute(launch, together=1)
        longest = max(executed, key=np.sum)
        total += longest.sum()
        programs = f"{launch.grid[0]:4} programs of {launch.num_warps} warps"
        print(f"{longest.sum():7,} instructions, {programs}  {launch.name}")
        by_line: Counter[str] = Counter()
        for instruction, times in zip(code.instructions, longest, strict=True):
            by_line[instruction.line] += int(times)
        for line, times in by_line.most_common(chosen.lines):
            print(f"        {times:6,} {line:22} {source(line)}")
    print(f"{total:7,} in all, one program after the other")


def source(place: str) -> str:
    """The text of a kernel's line; of others, such as Triton's own library, nothing."""
    file, _, line = place.partition(":")
    path = Path(minigen.cuda.kernels.__path__[0]) / file
    return path.read_text().splitlines()[int(line) - 1].strip() if path.exists() and line != "0" else ""


if __name__ == "__main__":
    main()
