"""What the modules of kernels share when they turn an operation into jobs.

Each module of :mod:`minigen.cuda.kernels` has its kernels and, beside them, functions marked :func:`lowers` that take
an operation and a :class:`Target` and give the jobs that do it, in an order that respects what they read and write.
Most need one. Nothing here imports Triton.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from minigen.backend import Array
from minigen.cuda.plan import tiles
from minigen.cuda.plan.launch import Job
from minigen.step.record import Operation

BLOCK = 1024  # elements a program of the elementwise kernels


@dataclass(frozen=True)
class Target:
    """What jobs are made for: ``architecture`` such as 90, matmul ``precision``, and ``empty(shape, dtype)`` memory.

    ``models`` is how many models share one launch; tiles are chosen for as many products. With ``exact``, only such as
    leave the bits that a single model has.
    """

    architecture: int
    precision: str
    empty: Callable[[tuple[int, ...], Any], Array]
    models: int = 1
    exact: bool = True

    @property
    def deciding(self) -> int:
        """The number of models by which all is decided that results' bits depend on."""
        return 1 if self.exact else self.models


Lowering = Callable[[Operation, Target], list[Job]]
LOWERINGS: dict[str, Lowering] = {}
"""By the operation's name; the modules of :mod:`minigen.cuda.kernels` fill it when they are imported."""


def lowers(*operations: str) -> Callable[[Lowering], Lowering]:
    """Marks the function that turns these operations into jobs."""

    def register(lowering: Lowering) -> Lowering:
        LOWERINGS.update(dict.fromkeys(operations, lowering))
        return lowering

    return register


def job(op: Operation, function: Any, programs: int, arguments: dict[str, Any], flops: int = 0, **how: Any) -> Job:
    """A job of ``op``; it reads, writes and fuses what ``op`` does, unless ``how`` says otherwise."""
    reads = tuple(how.pop("reads", op.reads()))
    writes = tuple(how.pop("writes", op.writes()))
    traffic = tuple(_traffic(op, buffer) for buffer in (*reads, *writes))
    fuses = how.pop("fuses", op.fuses)
    return Job(function, programs, arguments, reads, writes, fuses, flops, traffic, **how)


def _traffic(op: Operation, buffer: Array) -> int:
    """Bytes of ``buffer`` that are touched: all, but of the data set only the batch's rows."""
    if buffer is not op["data"]:
        return int(buffer.nbytes)
    rows = next(op[name] for name in ("out", "x", "y") if op[name] is not None)
    return int(buffer[: len(rows)].nbytes)


def blocks(n: int, size: int) -> int:
    """Programs of ``size`` elements each that cover ``n``."""
    return -(-n // size)


def int32(word: int) -> int:
    """A uint32 as the int32 of the same bits: kernels take no other integer."""
    return word - 2**32 if word >= 2**31 else word


def ordering_tile(
    operation: str, rows: int, columns: int, depth: int, target: Target, width: int | None = None
) -> tiles.Tile:
    """The tile whose order the sums of a product have; arguments as in :func:`minigen.cuda.plan.tiles.choose`."""
    shape = rows, columns, depth
    return tiles.choose(operation, *shape, target.architecture, target.precision, width, models=target.deciding)


def product_tile(
    operation: str, rows: int, columns: int, depth: int, target: Target, width: int | None = None
) -> tiles.Tile:
    """The tile of a product: that of :func:`ordering_tile`, or a larger one of the same order for several models."""
    tile = ordering_tile(operation, rows, columns, depth, target, width)
    if target.models == target.deciding:
        return tile
    return tiles.widened(tile, operation, rows, columns, target.architecture, width, target.models)


def tile_arguments(tile: tiles.Tile, target: Target) -> dict[str, Any]:
    """The arguments that all matrix products take."""
    sides = {"BM": tile.BM, "BN": tile.BN, "BK": tile.BK, "SPLIT": tile.SPLIT}
    return {**sides, "GROUP": tile.GROUP, "PRECISION": target.precision}
