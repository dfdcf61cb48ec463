"""``minigen tune``: measure tile choices on this GPU and keep the best ones on disk.

Without it the choices of :mod:`minigen.cuda.plan.tiles` hold. Nothing is measured behind the user's back: a first
training compiles its kernels and runs.
"""

from __future__ import annotations

import itertools
import json
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from minigen.cuda.backend import CudaBackend
from minigen.cuda.plan import tiles
from minigen.cuda.plan.launch import Launch
from minigen.cuda.plan.tiles import Tile
from minigen.cuda.tools import measure
from minigen.files import write_atomically
from minigen.gradcheck import relative_error


def sides_of(operation: str, B: int, n_in: int, n_out: int) -> str:
    """Rows, columns and depth of a layer's product."""
    shape = {"forward": (B, n_out, n_in), "dgrad": (B, n_in, n_out), "wgrad": (n_in, n_out, B)}[operation]
    return "x".join(map(str, shape))


SMALL = {
    "forward": ((256, 128, 784), (256, 784, 128), (256, 100, 128), (128, 784, 128), (128, 784, 400), (128, 400, 784)),
    "dgrad": ((128, 784, 128), (128, 128, 784), (128, 400, 784)),
    "wgrad": ((256, 784, 128), (128, 128, 784), (128, 100, 128), (128, 784, 400), (128, 400, 784)),
}
"""(B, I, O) of the products of the default GAN and VAE, each with a tile of its own."""

SHAPES = {(operation, sides_of(operation, *shape)): shape for operation in SMALL for shape in SMALL[operation]} | {
    (operation, kind): (width, width, width)
    for kind, width in (("some", 1024), ("many", 4096))
    for operation in tiles.OPERATIONS
}
"""(B, I, O) to measure for each (operation, kind), with :func:`minigen.cuda.plan.tiles.kind_of`'s kinds."""

SIDES = {"some": (32, 64, 128), "many": (64, 128, 256)}  # a small product's: (16, 32, 64, 128)
LARGEST = 128 * 256  # sums of a tile: more do not fit the registers
AT_ONCE = 8  # candidates that are compiled side by side
WORTH = 0.97  # a tile must take at most so much of the table's time to replace it: less is noise
DIFFERENT = 1e-4  # largest relative error between two tiles' results: they differ in the order of the sums alone
COMPARED = 256  # rows of the results


def candidates(operation: str, kind: str, architecture: int, precision: str) -> list[Tile]:
    """Tiles worth measuring, those whose stages fit in shared memory; the table's own first, then what is like it."""
    table = tiles.default(operation, kind, architecture, precision)
    room = tiles.shared_memory(architecture)
    sides = SIDES.get(kind, (16, 32, 64, 128))
    splits = (1,) if kind in SIDES else (1, 2, 4, 8)
    found = [
        replace(table, BM=BM, BN=BN, BK=BK, SPLIT=SPLIT, stages=stages)
        for BM, BN, BK, SPLIT, stages in itertools.product(sides, sides, (32, 64), splits, (2, 3, 4))
    ]
    found = [replace(tile, warps=8) if tile.BM * tile.BN >= 128 * 128 else tile for tile in found]
    found = [tile for tile in found if tile.SPLIT * tile.BM * tile.BN <= LARGEST]
    found = [tile for tile in found if tiles.staged_bytes(tile, architecture) <= room]

    def unlike(tile: Tile) -> float:
        pairs = ((tile.BM, table.BM), (tile.BN, table.BN), (tile.BK, table.BK), (tile.SPLIT, table.SPLIT))
        return sum(abs(math.log2(a / b)) for a, b in pairs) + abs(tile.stages - table.stages)

    return [table, *sorted((tile for tile in found if tile != table), key=unlike)]


def tune(
    device: str = "cuda", precision: str = "tf32x3", minutes: float = 10, report: Callable[[str], None] = print
) -> Path:
    """Measure tiles for every operation and class of shapes, and write the best ones to the returned file.

    They hold for the architecture of ``device`` and this precision in every later process, a small product's for its
    shape alone; what was measured in other precisions stays. Each gets its share of ``minutes``, and ``report`` a line
    for it. A tile whose result differs from the table's is not taken. Raises DeviceError where the GPU cannot be used.
    """
    backend = CudaBackend(int(device.partition(":")[2] or 0), precision=precision)
    architecture = backend.executor.architecture
    entries = [entry for entry in tiles.load_measured(architecture) if entry["precision"] != precision]
    tiles.forget_measured(architecture)
    for (operation, kind), shape in SHAPES.items():
        entry = best(backend, operation, kind, shape, 60 * minutes / len(SHAPES))
        entries.append(entry)
        tile = Tile(**entry["tile"])
        sides = f"{tile.BM} x {tile.BN} x {tile.BK}, {tile.warps} warps, {tile.stages} stages"
        took = f"{entry['seconds'] * 1e6:10.2f} us (table {entry['table_seconds'] * 1e6:.2f})"
        report(f"{operation:8} {kind:11} {took}: {sides}, best of {entry['measured']}")
    path = tiles.measured_file(architecture)
    facts = {"architecture": architecture, "entries": entries}
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, json.dumps(facts, indent=1).encode())
    tiles.load_measured(architecture)
    return path


def best(
    backend: CudaBackend, operation: str, kind: str, shape: tuple[int, int, int], seconds: float
) -> dict[str, Any]:
    """The fastest tile for one class that was found in about ``seconds``, its time and the table's (medians)."""
    executor: Any = backend.executor
    make, output = product(backend, operation, shape)
    tried = candidates(operation, kind, executor.architecture, backend.precision)
    table = tried[0]
    times: dict[Tile, float] = {}
    reference = None
    end = time.monotonic() + seconds
    for first in range(0, len(tried), AT_ONCE):
        if times and time.monotonic() > end:
            break
        some = {tile: launches_with(tile, backend, operation, kind, make) for tile in tried[first : first + AT_ONCE]}
        compiled = iter(executor.compile([launch for launches in some.values() for launch in launches]))
        for tile, launches in some.items():
            used = [next(compiled)[0] for _ in launches]
            if any(fitting is not asked for fitting, asked in zip(used, launches, strict=True)):
                if tile != table:
                    continue  # the card has too little shared memory for it, and what fits is a candidate itself
                table = tile = used[0].jobs[0].tile
            got = result(executor, launches, output)
            reference = got if reference is None else reference
            if relative_error(got, reference) <= DIFFERENT:
                times[tile] = median_seconds(executor, launches)
    fastest = min(times, key=times.__getitem__)
    if times[fastest] > WORTH * times[table]:
        fastest = table
    tiles.forget_measured(executor.architecture)
    return {
        "precision": backend.precision,
        "operation": operation,
        "kind": kind,
        "shape": shape,
        "tile": asdict(fastest),
        "seconds": times[fastest],
        "table_seconds": times[table],
        "measured": len(times),
    }


def median_seconds(executor: Any, launches: Sequence[Launch], copies: int = 10) -> float:
    """Median seconds of the launches, in a graph that repeats them."""
    calls = executor.prepare(launches)  # held until the end: they may own scratch memory
    graph = executor.record(calls, copies)
    return float(np.median(measure.samples(executor, lambda: graph.launch(executor.stream), 20))) / copies


def product(backend: CudaBackend, operation: str, shape: tuple[int, int, int]) -> tuple[Callable[[], None], Any]:
    """A call of the operation on random data, and its main output."""
    B, n_in, n_out = shape
    rng = np.random.default_rng()

    def draw(*size: int) -> Any:
        return backend.upload(rng.standard_normal(size, np.float32))

    if operation == "forward":
        x, W, b, y = draw(B, n_in), draw(n_in, n_out), draw(n_out), backend.empty((B, n_out))
        return lambda: backend.dense_forward(x, W, b, y, "relu"), y
    if operation == "dgrad":
        dz, W, dx, x = draw(B, n_out), draw(n_in, n_out), backend.empty((B, n_in)), draw(B, n_in)
        return lambda: backend.dense_dgrad(dz, W, dx, x, "relu"), dx
    x, dz, dW, db = draw(B, n_in), draw(B, n_out), backend.empty((n_in, n_out)), backend.empty((n_out,))
    return lambda: backend.dense_wgrad(x, dz, dW, db), dW


def launches_with(
    tile: Tile, backend: CudaBackend, operation: str, kind: str, make: Callable[[], None]
) -> tuple[Launch, ...]:
    """The launches of a call with this tile in place of the table's."""
    tiles.prefer(backend.executor.architecture, backend.precision, operation, kind, tile)
    return backend.schedule(make, fuse=False).launches


def result(executor: Any, launches: tuple[Launch, ...], output: Any) -> np.ndarray:
    """The last rows of what the launches write into a poisoned ``output``."""
    executor.upload(np.full(output.shape, np.nan, output.dtype), out=output)
    for launch in launches:
        executor.run(launch)
    return executor.download(output[-COMPARED:])
