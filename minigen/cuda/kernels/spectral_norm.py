"""spectral_norm: ``W / sigma`` and its gradient. :mod:`minigen.reference.spectral_norm` derives both.

A product of a matrix and a vector needs many programs, a length one: the jobs of an operation take turns, and vectors
that are not normalised yet lie in memory of their own.
"""

from __future__ import annotations

import numpy as np
import triton
import triton.language as tl

from minigen.cuda.kernels.matmul import load, store
from minigen.cuda.plan.launch import Job
from minigen.cuda.plan.lowering import Target, blocks, job, lowers
from minigen.cuda.plan.tiles import power_of_two
from minigen.step.record import Operation

SMALLEST_NORM: tl.constexpr = tl.constexpr(1e-12)


@triton.jit
def from_right(pid, W, u, out, HEIGHT, WIDTH: tl.constexpr, ROWS: tl.constexpr, COLS: tl.constexpr):
    """``out[I] = W[I,O] u[O]``."""
    rows = (pid * ROWS + tl.arange(0, ROWS)).to(tl.int64)
    total = tl.zeros([ROWS], tl.float32)
    for c in range(0, WIDTH, COLS):
        columns = c + tl.arange(0, COLS)
        factor = tl.load(u + columns, mask=columns < WIDTH, other=0.0)
        total += tl.sum(load(W, rows, columns, HEIGHT, WIDTH) * factor[None, :], axis=1)
    tl.store(out + rows, total, mask=rows < HEIGHT)


@triton.jit
def from_left(pid, v, W, out, HEIGHT, WIDTH: tl.constexpr, ROWS: tl.constexpr, COLS: tl.constexpr):
    """``out[O] = v[I] W[I,O]``."""
    columns = pid * COLS + tl.arange(0, COLS)
    total = tl.zeros([COLS], tl.float32)
    for r in range(0, HEIGHT, ROWS):
        rows = (r + tl.arange(0, ROWS)).to(tl.int64)
        factor = tl.load(v + rows, mask=rows < HEIGHT, other=0.0)
        total += tl.sum(load(W, rows, columns, HEIGHT, WIDTH) * factor[:, None], axis=0)
    tl.store(out + columns, total, mask=columns < WIDTH)


@triton.jit
def normalize(pid, x, out, norm, n, BLOCK: tl.constexpr):
    """``out[n] = x[n] / |x|``, and ``norm[0] = |x|`` where it is given. One program."""
    squares = tl.zeros([BLOCK], tl.float32)
    for first in range(0, n, BLOCK):
        i = pid + first + tl.arange(0, BLOCK)
        value = tl.load(x + i, mask=i < n, other=0.0)
        squares += value * value
    length = tl.maximum(tl.sqrt_rn(tl.sum(squares, axis=0)), SMALLEST_NORM)
    for first in range(0, n, BLOCK):
        i = pid + first + tl.arange(0, BLOCK)
        tl.store(out + i, tl.load(x + i, mask=i < n, other=0.0) / length, mask=i < n)
    if norm is not None:
        tl.store(norm, length)


@triton.jit
def divide(pid, W, sigma, out, n, BLOCK: tl.constexpr):
    """``out[n] = W[n] / sigma[0]``."""
    i = pid.to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    tl.store(out + i, tl.load(W + i, mask=i < n, other=0.0) / tl.load(sigma), mask=i < n)


@triton.jit
def row_products(pid, a, b, out, HEIGHT, WIDTH: tl.constexpr, ROWS: tl.constexpr, COLS: tl.constexpr):
    """``out[I]``, the sum of ``a[I,O] * b[I,O]`` over the columns."""
    rows = (pid * ROWS + tl.arange(0, ROWS)).to(tl.int64)
    total = tl.zeros([ROWS], tl.float32)
    for c in range(0, WIDTH, COLS):
        columns = c + tl.arange(0, COLS)
        total += tl.sum(load(a, rows, columns, HEIGHT, WIDTH) * load(b, rows, columns, HEIGHT, WIDTH), axis=1)
    tl.store(out + rows, total, mask=rows < HEIGHT)


@triton.jit
def backward(
    pid, dnormalized, products, u, v, sigma, dW, HEIGHT,
    WIDTH: tl.constexpr, ROWS: tl.constexpr, COLS: tl.constexpr, BLOCK: tl.constexpr,
    ACCUMULATE: tl.constexpr,
):  # fmt: skip
    """``dW[I,O]``, or with ACCUMULATE added; each program adds up the ``products[I]`` of the rows for itself."""
    tiles = (WIDTH + COLS - 1) // COLS
    rows = ((pid // tiles) * ROWS + tl.arange(0, ROWS)).to(tl.int64)
    columns = (pid % tiles) * COLS + tl.arange(0, COLS)
    sums = tl.zeros([BLOCK], tl.float32)
    for first in range(0, HEIGHT, BLOCK):
        i = first + tl.arange(0, BLOCK)
        sums += tl.load(products + i, mask=i < HEIGHT, other=0.0)
    share = tl.sum(sums, axis=0) * tl.load(v + rows, mask=rows < HEIGHT, other=0.0)
    along = share[:, None] * tl.load(u + columns, mask=columns < WIDTH, other=0.0)[None, :]
    gradient = (load(dnormalized, rows, columns, HEIGHT, WIDTH) - along) / tl.load(sigma)
    if ACCUMULATE:
        gradient += load(dW, rows, columns, HEIGHT, WIDTH)
    tl.debug_barrier()  # several threads may hold an element: all have read before one of them writes
    store(dW, rows, columns, HEIGHT, WIDTH, gradient)


# --- lowering -----------------------------------------------------------------------------------------


def _tile(WIDTH: int) -> dict[str, int]:
    columns = min(128, max(16, power_of_two(WIDTH)))
    return {"ROWS": 2048 // columns, "COLS": columns}


@lowers("spectral_norm")
def lower_spectral_norm(op: Operation, target: Target) -> list[Job]:
    W, u, v, sigma, normalized = (op[name] for name in ("W", "u", "v", "sigma", "normalized"))
    shape = {"HEIGHT": W.shape[0], "WIDTH": W.shape[1]}
    tile, long, n = _tile(W.shape[1]), target.empty(v.shape, np.float32), W.size
    arguments = {"W": W, "u": u, "out": long, **shape, **tile}
    programs = blocks(len(v), tile["ROWS"])
    jobs = [
        job(op, from_right, programs, arguments, 2 * n, reads=(W, u), writes=(long,)),
        _normalize(op, long, v, None if op["iterate"] else sigma),
    ]
    if op["iterate"]:
        wide = target.empty(u.shape, np.float32)
        arguments = {"v": v, "W": W, "out": wide, **shape, "ROWS": 64, "COLS": 32}
        programs = blocks(len(u), 32)
        jobs.append(job(op, from_left, programs, arguments, 2 * n, reads=(v, W), writes=(wide,), fuses=()))
        jobs.append(_normalize(op, wide, u, sigma))
    arguments = {"W": W, "sigma": sigma, "out": normalized, "n": n, "BLOCK": 1024}
    jobs.append(job(op, divide, blocks(n, 1024), arguments, n, reads=(W, sigma), writes=(normalized,), fuses=()))
    return jobs


def _normalize(op: Operation, x: object, out: object, norm: object) -> Job:
    arguments = {"x": x, "out": out, "norm": norm, "n": x.size, "BLOCK": 1024}  # type: ignore[attr-defined]
    written = (out,) if norm is None else (out, norm)
    return job(op, normalize, 1, arguments, reads=(x,), writes=written, fuses=())


@lowers("spectral_norm_backward")
def lower_backward(op: Operation, target: Target) -> list[Job]:
    (HEIGHT, WIDTH), gradient, tile = op["dW"].shape, op["dnormalized"], _tile(op["dW"].shape[1])
    products = target.empty((HEIGHT,), np.float32)
    inner = {"a": gradient, "b": op["normalized"], "out": products, "HEIGHT": HEIGHT, "WIDTH": WIDTH, **tile}
    outer = {name: op[name] for name in ("u", "v", "sigma", "dW")}
    outer |= {"dnormalized": gradient, "products": products, "HEIGHT": HEIGHT, "WIDTH": WIDTH, **tile, "BLOCK": 256}
    outer["ACCUMULATE"] = op["accumulate"]
    programs = blocks(HEIGHT, tile["ROWS"])
    reads = (gradient, products, op["u"], op["v"], op["sigma"])
    return [
        job(
            op,
            row_products,
            programs,
            inner,
            2 * HEIGHT * WIDTH,
            reads=(gradient, op["normalized"]),
            writes=(products,),
        ),
        job(op, backward, programs * blocks(WIDTH, tile["COLS"]), outer, 3 * HEIGHT * WIDTH, reads=reads, fuses=()),
    ]
