"""Tile choices: how a matrix product is cut into programs, by its shape, operation and architecture.

A product has ``rows x columns`` results, each a sum of ``depth`` terms. At large sizes a tile should be reused often,
at the article's batch of 128 each multiprocessor should have one, and no second:

========  ==========================================  ===============================================
class     how many                                    tiles are chosen
========  ==========================================  ===============================================
``few``   a 32 x 128 tile a multiprocessor at most    for each shape, by :func:`small`
``some``  under four 64 x 64 tiles a multiprocessor   from a table, to fill them once or twice
``many``  more                                        from a table, to read as little as possible
========  ==========================================  ===============================================

No tile has been measured on a GPU (``measured=False``). Those of small products follow from counts of instructions
(``tests/ptx/profile.py``), the table's from the registers and shared memory that the compiler reports. ``minigen tune``
measures others and keeps them in a file, which :func:`load_measured` puts before these.
"""

from __future__ import annotations

import functools
import importlib.metadata
import itertools
import json
import re
import warnings
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from minigen.paths import cache_folder

MULTIPROCESSORS = {80: 108, 86: 84, 89: 128, 90: 132, 100: 148, 103: 148, 120: 170}
"""Of the largest card of an architecture (A100, RTX 3090, RTX 4090, H100 SXM, B200, B300, RTX 5090)."""

SHARED = {80: 163, 86: 99, 87: 163, 89: 99, 90: 227, 100: 227, 103: 227}
"""KiB of shared memory that a block can have (CUDA programming guide, table of compute capabilities); others: 99."""

ASYNCHRONOUS = (90, 100, 103)
"""Whose tensor cores read their factors from shared memory: elsewhere these lie in registers beside the sums."""

OTHER_SHARED = 1024  # bytes of shared memory that a product takes for other things than its loop's factors
OPERATIONS = ("forward", "dgrad", "wgrad")
LEAST_BK = 16  # terms that the tensor cores take at once in every precision
MOST_RESULTS = 32 * 32  # of a warp, where an epilogue holds several tiles in registers
WORK_OF_SIDES = 48  # what a row or column of a program's factors takes, in results: see widened


@dataclass(frozen=True)
class Tile:
    """``BM x BN`` results a program, ``BK`` terms at a time; ``warps`` and pipeline ``stages`` of the launch.

    Rows of GROUP tiles are worked on together, so that they find their inputs in the L2 cache. With SPLIT > 1 a program
    works on SPLIT chunks of BK terms at once: see :mod:`minigen.cuda.kernels.matmul`.
    """

    BM: int
    BN: int
    BK: int
    warps: int
    stages: int
    GROUP: int = 8
    SPLIT: int = 1
    measured: bool = False


SMALL = ((16, 16), (16, 32), (32, 32), (32, 64), (32, 128))
"""Sides of the tiles of small products."""

TABLE: dict[tuple[str, str], Tile] = {
    ("forward", "some"): Tile(64, 64, 32, 4, 3),
    ("forward", "many"): Tile(128, 128, 32, 8, 3),
    ("dgrad", "some"): Tile(64, 64, 32, 4, 3),
    ("dgrad", "many"): Tile(128, 128, 32, 8, 3),
    ("wgrad", "some"): Tile(32, 64, 32, 4, 3),
    ("wgrad", "many"): Tile(64, 128, 32, 8, 3),
}
"""By (operation, class), for every architecture."""

EXCEPTIONS: dict[tuple[int, str, str, str], dict[str, Any]] = {
    (120, "tf32", "wgrad", "some"): {"stages": 2},
    (120, "bf16x6", "forward", "many"): {"stages": 2},
    (120, "bf16x3", "forward", "many"): {"stages": 2},
}
"""By (architecture, precision, operation, class): what is not the table's, where a Triton spills registers."""

_measured: dict[tuple[int, str, str, str], Tile] = {}  # by architecture, precision, operation, and class: see kind_of


def multiprocessors(architecture: int) -> int:
    """How many an architecture's largest card has; for an unknown one, as many as the H100."""
    return MULTIPROCESSORS.get(architecture, 132)


def filled(rows: int, columns: int, architecture: int, models: int = 1) -> float:
    """How many 64 x 64 tiles each multiprocessor gets if ``models`` models compute such a result in one launch."""
    return models * -(-rows // 64) * -(-columns // 64) / multiprocessors(architecture)


def fits_once(sides: tuple[int, int], rows: int, columns: int, architecture: int, models: int = 1) -> bool:
    """Whether there are at most as many tiles of these sides as multiprocessors; ``models`` as in :func:`filled`."""
    BM, BN = sides
    return models * -(-rows // BM) * -(-columns // BN) <= multiprocessors(architecture)


def shape_class(rows: int, columns: int, architecture: int, models: int = 1) -> str:
    """``few``, ``some`` or ``many``; ``models`` as in :func:`filled`.

    Products of several models are ``few`` only if less than half of the multiprocessors would have work: with more
    tiles than that, the total work of a multiprocessor decides the time, not the length of one program.
    """
    full = filled(rows, columns, architecture, models)
    if fits_once(SMALL[-1], rows, columns, architecture, models) and (models == 1 or full < 0.5):
        return "few"
    return "some" if full < 4 else "many"


def kind_of(rows: int, columns: int, depth: int, architecture: int, models: int = 1) -> str:
    """The key of a measured tile: the class, or for ``few`` the shape itself, such as ``256x784x128``.

    With several ``models`` in one launch their number follows: ``256x784x128x16``.
    """
    kind = shape_class(rows, columns, architecture, models)
    several = f"x{models}" if models > 1 else ""
    return f"{rows}x{columns}x{depth}{several}" if kind == "few" else kind


def choose(
    operation: str,
    rows: int,
    columns: int,
    depth: int,
    architecture: int,
    precision: str,
    width: int | None = None,
    models: int = 1,
) -> Tile:
    """The tile for one product. ``operation`` is forward, dgrad or wgrad; ``width`` as in :func:`staged_bytes`.

    ``models`` as in :func:`filled`.
    """
    kind = kind_of(rows, columns, depth, architecture, models)
    measured = _measured.get((architecture, precision, operation, kind))
    tile = measured or default(operation, kind, architecture, precision)
    return _fit(tile, rows, columns, depth, architecture, width)


def default(operation: str, kind: str, architecture: int, precision: str) -> Tile:
    """The tile of a class, or of the shape of a small product, where none was measured."""
    if (operation, kind) not in TABLE:
        rows, columns, _, *models = map(int, kind.split("x"))
        return small(rows, columns, architecture, precision, *models)
    tile = TABLE[operation, kind] if architecture in ASYNCHRONOUS else narrowed(TABLE[operation, kind])
    if precision != "ieee" and (operation, kind) == ("wgrad", "some"):
        tile = replace(tile, warps=8)  # a step's gradients are one launch if their warps are as many
    return replace(tile, **EXCEPTIONS.get((architecture, precision, operation, kind), {}))


def small(rows: int, columns: int, architecture: int, precision: str, models: int = 1) -> Tile:
    """The tile of a small product: the smallest of :data:`SMALL` that gives no multiprocessor two.

    A program has its multiprocessor to itself. Eight warps, two for each scheduler, shorten the chain of products that
    wait for each other and still issue side by side. A tile of 32 x 64 has work for all of them; of a smaller one each
    warp takes a chunk of the terms, a quarter of them at most: adding up more sums costs more than it saves, at every
    depth from 100 to 800. In float32 a thread has several sums under way as it is.

    Triton before 3.9 does not divide a chunk among warps: two or four compute the same, in twice the registers. There
    each warp has a chunk of its own, and the launch two stages instead of three: eight chunks take more shared memory.
    """
    once = (sides for sides in SMALL if fits_once(sides, rows, columns, architecture, models))
    BM, BN = next(once, SMALL[-1])
    split = min(4, max(1, 32 * 64 // (BM * BN)))
    if precision == "ieee":
        return Tile(BM, BN, 32, 8, 3)
    if split > 1 and not divides_chunks():
        return Tile(BM, BN, 32, 8, 2, SPLIT=8)
    return Tile(BM, BN, 64 if split < 4 else 32, 8, 3, SPLIT=split)


@functools.cache
def divides_chunks() -> bool:
    """Whether this Triton gives a chunk of a product with SPLIT > 1 to several warps, a part to each."""
    major, minor = map(int, importlib.metadata.version("triton").split(".")[:2])
    return (major, minor) >= (3, 9)


def order_of_sums(tile: Tile, operation: str, architecture: int, second: bool = False) -> tuple[object, ...]:
    """What the bits of a product's results depend on: tiles that have it in common give the same bits.

    A result is a sum of chunks of BK terms, of which SPLIT are worked on at once and added up in the end. Which warp
    adds up what follows from SPLIT and the number of warps, as it does in the sums of columns that share the launch.
    Within a chunk the tensor cores add up; those of Hopper and Blackwell may do so in another order where they read
    shared memory by themselves, of 64 rows or more, and without SPLIT or in a ``second`` product behind the loop.
    Neither BM and BN nor the stages cut a sum.
    """
    rows = tile.BN if operation == "wgrad" else tile.BM  # of the factor on the left: wgrad makes the transpose
    reads_memory = architecture in ASYNCHRONOUS and rows >= 64 and (tile.SPLIT == 1 or second)
    return tile.BK, tile.SPLIT, tile.warps, reads_memory


def widened(
    tile: Tile, operation: str, rows: int, columns: int, architecture: int, width: int | None, models: int
) -> Tile:
    """The tile for ``models`` products in one launch: of the order of ``tile``, that for a single one, but larger.

    It is the one with the least work for the multiprocessor that has the most. A program's work grows with its results
    and, as its factors are loaded and rounded, with its sides. A kernel with a ``width`` has a second product behind
    its loop.
    """
    second = width is not None

    def work(other: Tile) -> int:
        most = -(-models * programs(other, rows, columns) // multiprocessors(architecture))
        return most * (other.BM * other.BN + WORK_OF_SIDES * (other.BM + other.BN))

    found, order = [tile], order_of_sums(tile, operation, architecture, second)
    for BM, BN in itertools.product(*([side << i for i in range(4)] for side in (tile.BM, tile.BN))):
        other = replace(tile, BM=BM, BN=BN)
        while other.stages > 2 and staged_bytes(other, architecture, width) > shared_memory(architecture):
            other = replace(other, stages=other.stages - 1)
        sums = BM * BN if second else BM * BN * max(1, tile.SPLIT // 2)  # those of a small second product are few
        fits = sums <= MOST_RESULTS * tile.warps and BM < 2 * max(16, rows) and BN < 2 * max(16, columns)
        fits = fits and staged_bytes(other, architecture, width) <= shared_memory(architecture)
        if fits and order_of_sums(other, operation, architecture, second) == order:
            found.append(other)
    return min(found, key=work)


def prefer(architecture: int, precision: str, operation: str, kind: str, tile: Tile) -> None:
    """Use ``tile``, which was measured, in place of the table's."""
    if (operation, kind) not in TABLE and not (operation in OPERATIONS and re.fullmatch(r"\d+(x\d+){2,3}", kind)):
        known = ", ".join(f"{o} {k}" for o, k in TABLE)
        raise ValueError(f"operation and kind must be one of {known}, or a shape; not {operation} {kind}")
    _measured[architecture, precision, operation, kind] = replace(tile, measured=True)


def measured_file(architecture: int) -> Path:
    """Where ``minigen tune`` keeps an architecture's measured tiles."""
    return cache_folder() / f"tiles-sm_{architecture}.json"


def load_measured(architecture: int) -> list[dict[str, Any]]:
    """Prefer the tiles of :func:`measured_file`, each in its precision, and return its entries.

    Where it is missing there are none, and where it is damaged, which a warning tells.
    """
    path = measured_file(architecture)
    try:
        entries = json.loads(path.read_text())["entries"]
        for e in entries:
            prefer(architecture, str(e["precision"]), e["operation"], e["kind"], Tile(**e["tile"]))
        return list(entries)
    except FileNotFoundError:
        return []
    except (OSError, ValueError, KeyError, TypeError) as error:
        forget_measured(architecture)
        warnings.warn(f"{path} cannot be used ({error}); run minigen tune again", stacklevel=2)
        return []


def forget_measured(architecture: int) -> None:
    """Go back to the table."""
    for key in [key for key in _measured if key[0] == architecture]:
        del _measured[key]


def programs(tile: Tile, rows: int, columns: int) -> int:
    """Tiles of a result."""
    return -(-rows // tile.BM) * -(-columns // tile.BN)


def batch_slices(tile: Tile, rows: int, columns: int, depth: int, architecture: int, models: int = 1) -> int:
    """Into how many parts a weight gradient's batch of ``depth`` rows is cut, each a partial sum for a second pass.

    The second pass is a launch, so it must pay: only where most multiprocessors would wait for a long sum.
    """
    idle = multiprocessors(architecture) // max(1, models * programs(tile, rows, columns))
    return max(1, min(idle, depth // 1024))


def narrowed(tile: Tile) -> Tile:
    """``tile`` narrowed to 32 results a thread, for an epilogue that holds several tiles in registers."""
    while tile.BM * tile.BN > MOST_RESULTS * tile.warps and tile.BN > 16:
        tile = replace(tile, BN=tile.BN // 2)
    return tile


def power_of_two(n: int) -> int:
    """The smallest that is at least ``n``."""
    return 1 << max(0, n - 1).bit_length()


def shared_memory(architecture: int) -> int:
    """Bytes of shared memory that a block can have."""
    return 1024 * SHARED.get(architecture, 99)


def staged_bytes(tile: Tile, architecture: int, width: int | None = None) -> int:
    """Bytes of shared memory that a product takes.

    The right factors that a stage of its loop loads are ``width`` columns wide in all, where that is not BN. A stage's
    memory is free again as soon as its factors are in registers, so that the stage being worked on needs none; tensor
    cores that read shared memory by themselves (with SPLIT they do not) need that stage's too. A left factor that is
    computed goes through memory once more.
    """
    reads_memory = architecture in ASYNCHRONOUS and tile.SPLIT == 1
    buffers = tile.stages if reads_memory else max(1, tile.stages - 1)
    columns = buffers * (tile.BN if width is None else width) + (buffers + 1) * tile.BM
    return OTHER_SHARED + 4 * columns * tile.SPLIT * tile.BK


def with_less_memory(tile: Tile) -> Tile | None:
    """What to try where ``tile`` takes too much shared memory: one stage less, or of one stage half the terms.

    BM and BN stay, because other buffers and jobs depend on them. None where there is nothing left to reduce.
    """
    if tile.stages > 1:
        return replace(tile, stages=tile.stages - 1)
    if tile.SPLIT > 1:
        return replace(tile, SPLIT=tile.SPLIT // 2)
    return replace(tile, BK=tile.BK // 2) if tile.BK > LEAST_BK else None


def _fit(tile: Tile, rows: int, columns: int, depth: int, architecture: int, width: int | None) -> Tile:
    """No wider than the problem (though at least 16, which the tensor cores want), no more stages than memory holds."""
    BM = min(tile.BM, max(16, power_of_two(rows)))
    BN = min(tile.BN, max(16, power_of_two(columns)))
    BK = min(tile.BK, max(LEAST_BK, power_of_two(depth)))
    SPLIT = tile.SPLIT
    while SPLIT > 1 and SPLIT // 2 * BK >= depth:
        SPLIT //= 2
    tile = replace(tile, BM=BM, BN=BN, BK=BK, SPLIT=SPLIT)
    while staged_bytes(tile, architecture, width) > shared_memory(architecture):
        smaller = with_less_memory(tile)
        if smaller is None:
            break
        tile = smaller
    return tile
