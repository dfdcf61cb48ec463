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
def class_sums(pid, x, labels, sums, B, WIDTH: tl.constexpr, ROWS: tl.constexpr, COLS: tl.constexpr):
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
    tl.store(sums + label.to(tl.int64) * WIDTH + columns, total, mask=columns < WIDTH)


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
def projection_dgrad(
    pid, dz, e, x, dx, n, WIDTH: tl.constexpr, ACTIVATION: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """``dx[r] += dz[r] e[r] * act'`` for the ``n = B I`` elements; ``x`` may be None with a linear activation."""
    i = pid.to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    de = tl.load(dz + i // WIDTH, mask=i < n, other=0.0) * tl.load(e + i, mask=i < n, other=0.0)
    if x is not None:
        de = differentiate(de, tl.load(x + i, mask=i < n, other=0.0), ACTIVATION)
    tl.store(dx + i, tl.load(dx + i, mask=i < n, other=0.0) + de, mask=i < n)


@triton.jit
def projection_wgrad(pid, x, dz, de, n, WIDTH: tl.constexpr, BLOCK: tl.constexpr):
    """``de[r] = dz[r] x[r]`` for the ``n = B I`` elements."""
    i = pid.to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    value = tl.load(dz + i // WIDTH, mask=i < n, other=0.0) * tl.load(x + i, mask=i < n, other=0.0)
    tl.store(de + i, value, mask=i < n)


# --- lowering -----------------------------------------------------------------------------------------


@lowers("activation_of_sum")
def lower_sum(op: Operation, target: Target) -> list[Job]:
    n = op["y"].size
    arguments = {**op.buffers, "n": n, "ACTIVATION": op["activation"], "BLOCK": BLOCK}
    return [job(op, sum_forward, blocks(n, BLOCK), arguments, 2 * n)]


@lowers("class_sums")
def lower_class_sums(op: Operation, target: Target) -> list[Job]:
    (B, width), N = op["x"].shape, len(op["sums"])
    columns = min(128, max(16, power_of_two(width)))
    arguments = {**op.buffers, "B": B, "WIDTH": width, "ROWS": 32, "COLS": columns}
    return [job(op, class_sums, N * blocks(width, columns), arguments, B * width)]


@lowers("projection_forward")
def lower_projection(op: Operation, target: Target) -> list[Job]:
    B, width = op["x"].shape
    columns = min(128, max(16, power_of_two(width)))
    arguments = {**op.buffers, "B": B, "WIDTH": width, "ROWS": 16, "COLS": columns}
    return [job(op, projection_forward, blocks(B, 16), arguments, 2 * B * width)]


@lowers("projection_dgrad")
def lower_projection_dgrad(op: Operation, target: Target) -> list[Job]:
    n, width = op["dx"].size, op["dx"].shape[1]
    buffers = {name: op[name] for name in ("dz", "e", "x", "dx")}
    arguments = {**buffers, "n": n, "WIDTH": width, "ACTIVATION": op["activation"], "BLOCK": BLOCK}
    return [job(op, projection_dgrad, blocks(n, BLOCK), arguments, 3 * n)]


@lowers("projection_wgrad")
def lower_projection_wgrad(op: Operation, target: Target) -> list[Job]:
    n, width = op["de"].size, op["de"].shape[1]
    arguments = {**op.buffers, "n": n, "WIDTH": width, "BLOCK": BLOCK}
    return [job(op, projection_wgrad, blocks(n, BLOCK), arguments, n)]
