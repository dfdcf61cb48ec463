"""condition: what a label, or numbers beside a row, add to a layer, and the projection discriminator.

:mod:`minigen.reference.condition` derives them. Every sum has one order: a program adds its rows, or columns, a tile at
a time, and no two programs add to one number.
"""

from __future__ import annotations

import triton
import triton.language as tl

from minigen.cuda.kernels.activations import activate, differentiate
from minigen.cuda.plan.launch import Job
from minigen.cuda.plan.lowering import BLOCK, Target, blocks, job, lowers
from minigen.cuda.plan.tiles import power_of_two
from minigen.step.record import Operation


@triton.jit
def sum_forward(pid, a, b, y, n, ACTIVATION: tl.constexpr, BLOCK: tl.constexpr):
    """``y[n] = act(a[n] + b[n])``. ``y`` may be ``a`` or ``b``: each element is read and written by one program."""
    i = pid.to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    z = tl.load(a + i, mask=i < n, other=0.0) + tl.load(b + i, mask=i < n, other=0.0)
    tl.store(y + i, activate(z, ACTIVATION), mask=i < n)


@triton.jit
def class_sums(
    pid, x, labels, sums, B, WIDTH: tl.constexpr, ACCUMULATE: tl.constexpr, ROWS: tl.constexpr, COLS: tl.constexpr
):
    """``sums[N,O]``: a program adds, for COLS columns of one class, the rows of ``x[B,O]`` that have its label."""
    tiles = (WIDTH + COLS - 1) // COLS
    label = pid // tiles
    columns = (pid % tiles) * COLS + tl.arange(0, COLS)
    total = tl.zeros([COLS], tl.float32)
    for r in range(0, B, ROWS):
        rows = (r + tl.arange(0, ROWS)).to(tl.int64)
        mine = tl.load(labels + rows, mask=rows < B, other=-1) == label
        wanted = mine[:, None] & (columns < WIDTH)[None, :]
        total += tl.sum(tl.load(x + rows[:, None] * WIDTH + columns[None, :], mask=wanted, other=0.0), axis=0)
    at = sums + label.to(tl.int64) * WIDTH + columns
    if ACCUMULATE:
        total += tl.load(at, mask=columns < WIDTH, other=0.0)
        tl.debug_barrier()  # a block smaller than its threads: all must have read before one of them writes
    tl.store(at, total, mask=columns < WIDTH)


@triton.jit
def projection_forward(pid, x, e, y, B, WIDTH: tl.constexpr, ROWS: tl.constexpr, COLS: tl.constexpr):
    """``y[B,1] += x[r] . e[r]``, ROWS rows a program."""
    rows = (pid * ROWS + tl.arange(0, ROWS)).to(tl.int64)
    total = tl.zeros([ROWS], tl.float32)
    for first in range(0, WIDTH, COLS):
        columns = first + tl.arange(0, COLS)
        mask = (rows < B)[:, None] & (columns < WIDTH)[None, :]
        at = rows[:, None] * WIDTH + columns[None, :]
        total += tl.sum(tl.load(x + at, mask=mask, other=0.0) * tl.load(e + at, mask=mask, other=0.0), axis=1)
    before = tl.load(y + rows, mask=rows < B, other=0.0)
    tl.store(y + rows, before + total, mask=rows < B)


@triton.jit
def tile_of_rows(pid, B, WIDTH: tl.constexpr, ROWS: tl.constexpr, COLS: tl.constexpr):
    """The program's rows, where its tile of ``[B, WIDTH]`` lies in memory, and which of that is inside."""
    tiles = (WIDTH + COLS - 1) // COLS
    rows = ((pid // tiles) * ROWS + tl.arange(0, ROWS)).to(tl.int64)
    columns = (pid % tiles) * COLS + tl.arange(0, COLS)
    return rows, rows[:, None] * WIDTH + columns[None, :], (rows < B)[:, None] & (columns < WIDTH)[None, :]


@triton.jit
def projection_dgrad(
    pid, dz, e, x, dx, B, WIDTH: tl.constexpr, ACTIVATION: tl.constexpr, ROWS: tl.constexpr, COLS: tl.constexpr
):
    """``dx[r] += dz[r] e[r] * act'(z)``; ``x`` may be None with a linear activation."""
    rows, at, mask = tile_of_rows(pid, B, WIDTH, ROWS, COLS)
    de = tl.load(dz + rows, mask=rows < B, other=0.0)[:, None] * tl.load(e + at, mask=mask, other=0.0)
    if x is not None:
        de = differentiate(de, tl.load(x + at, mask=mask, other=0.0), ACTIVATION)
    tl.store(dx + at, tl.load(dx + at, mask=mask, other=0.0) + de, mask=mask)


@triton.jit
def projection_wgrad(pid, x, dz, de, B, WIDTH: tl.constexpr, ROWS: tl.constexpr, COLS: tl.constexpr):
    """``de[r] = dz[r] x[r]``."""
    rows, at, mask = tile_of_rows(pid, B, WIDTH, ROWS, COLS)
    value = tl.load(dz + rows, mask=rows < B, other=0.0)[:, None] * tl.load(x + at, mask=mask, other=0.0)
    tl.store(de + at, value, mask=mask)


# --- lowering -----------------------------------------------------------------------------------------


def columns_of(width: int) -> int:
    """COLS of a program on rows of this width."""
    return min(128, max(16, power_of_two(width)))


@lowers("activation_of_sum")
def lower_sum(op: Operation, target: Target) -> list[Job]:
    n = op["y"].size
    arguments = {**op.buffers, "n": n, "ACTIVATION": op["activation"], "BLOCK": BLOCK}
    return [job(op, sum_forward, blocks(n, BLOCK), arguments, 2 * n)]


@lowers("class_sums")
def lower_class_sums(op: Operation, target: Target) -> list[Job]:
    (B, width), N = op["x"].shape, len(op["sums"])
    columns = columns_of(width)
    settings = {"ACCUMULATE": op["accumulate"], "ROWS": 32, "COLS": columns}
    arguments = {**op.buffers, "B": B, "WIDTH": width, **settings}
    return [job(op, class_sums, N * blocks(width, columns), arguments, B * width)]


TILE = 16  # rows of a projection's tile


@lowers("projection_forward")
def lower_projection(op: Operation, target: Target) -> list[Job]:
    B, width = op["x"].shape
    arguments = {**op.buffers, "B": B, "WIDTH": width, "ROWS": TILE, "COLS": columns_of(width)}
    return [job(op, projection_forward, blocks(B, TILE), arguments, 2 * B * width)]


@lowers("projection_dgrad")
def lower_projection_dgrad(op: Operation, target: Target) -> list[Job]:
    (B, width), buffers = op["dx"].shape, {name: op[name] for name in ("dz", "e", "x", "dx")}
    sides = {"ROWS": TILE, "COLS": columns_of(width)}
    arguments = {**buffers, "B": B, "WIDTH": width, "ACTIVATION": op["activation"], **sides}
    return [job(op, projection_dgrad, _tiles(B, width), arguments, 3 * B * width)]


@lowers("projection_wgrad")
def lower_projection_wgrad(op: Operation, target: Target) -> list[Job]:
    B, width = op["de"].shape
    arguments = {**op.buffers, "B": B, "WIDTH": width, "ROWS": TILE, "COLS": columns_of(width)}
    return [job(op, projection_wgrad, _tiles(B, width), arguments, B * width)]


def _tiles(B: int, width: int) -> int:
    return blocks(B, TILE) * blocks(width, columns_of(width))
