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
def from_right(pid, W, u, out, I, O: tl.constexpr, ROWS: tl.constexpr, COLS: tl.constexpr):
    """``out[I] = W[I,O] u[O]``."""
    rows = (pid * ROWS + tl.arange(0, ROWS)).to(tl.int64)
    total = tl.zeros([ROWS], tl.float32)
    for c in range(0, O, COLS):
        columns = c + tl.arange(0, COLS)
        factor = tl.load(u + columns, mask=columns < O, other=0.0)
        total += tl.sum(load(W, rows, columns, I, O) * factor[None, :], axis=1)
    tl.store(out + rows, total, mask=rows < I)


@triton.jit
def from_left(pid, v, W, out, I, O: tl.constexpr, ROWS: tl.constexpr, COLS: tl.constexpr):
    """``out[O] = v[I] W[I,O]``."""
    columns = pid * COLS + tl.arange(0, COLS)
    total = tl.zeros([COLS], tl.float32)
    for r in range(0, I, ROWS):
        rows = (r + tl.arange(0, ROWS)).to(tl.int64)
        factor = tl.load(v + rows, mask=rows < I, other=0.0)
        total += tl.sum(load(W, rows, columns, I, O) * factor[:, None], axis=0)
    tl.store(out + columns, total, mask=columns < O)


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
def row_products(pid, a, b, out, I, O: tl.constexpr, ROWS: tl.constexpr, COLS: tl.constexpr):
    """``out[I]``, the sum of ``a[I,O] * b[I,O]`` over the columns."""
    rows = (pid * ROWS + tl.arange(0, ROWS)).to(tl.int64)
    total = tl.zeros([ROWS], tl.float32)
    for c in range(0, O, COLS):
        columns = c + tl.arange(0, COLS)
        total += tl.sum(load(a, rows, columns, I, O) * load(b, rows, columns, I, O), axis=1)
    tl.store(out + rows, total, mask=rows < I)


@triton.jit
def backward(
    pid, dnormalized, products, u, v, sigma, dW, I,
    O: tl.constexpr, ROWS: tl.constexpr, COLS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """``dW[I,O]``; each program adds up the ``products[I]`` of the rows for itself, in the same order."""
    tiles = (O + COLS - 1) // COLS
    rows = ((pid // tiles) * ROWS + tl.arange(0, ROWS)).to(tl.int64)
    columns = (pid % tiles) * COLS + tl.arange(0, COLS)
    sums = tl.zeros([BLOCK], tl.float32)
    for first in range(0, I, BLOCK):
        i = first + tl.arange(0, BLOCK)
        sums += tl.load(products + i, mask=i < I, other=0.0)
    share = tl.sum(sums, axis=0) * tl.load(v + rows, mask=rows < I, other=0.0)
    along = share[:, None] * tl.load(u + columns, mask=columns < O, other=0.0)[None, :]
    store(dW, rows, columns, I, O, (load(dnormalized, rows, columns, I, O) - along) / tl.load(sigma))


# --- lowering -----------------------------------------------------------------------------------------


def _tile(O: int) -> dict[str, int]:
    columns = min(128, max(16, power_of_two(O)))
    return {"ROWS": 2048 // columns, "COLS": columns}


@lowers("spectral_norm")
def lower_spectral_norm(op: Operation, target: Target) -> list[Job]:
    (I, O), W, u, v, sigma = op["W"].shape, op["W"], op["u"], op["v"], op["sigma"]
    tile, long = _tile(O), target.empty((I,), np.float32)
    iterate, left = op["iterate"], {"ROWS": 64, "COLS": 32}
    jobs = [
        job(op, from_right, blocks(I, tile["ROWS"]), {"W": W, "u": u, "out": long, "I": I, "O": O, **tile}, 2 * I * O,
            reads=(W, u), writes=(long,)),
        _normalize(op, long, v, None if iterate else sigma),
    ]  # fmt: skip
    if iterate:
        wide = target.empty((O,), np.float32)
        arguments = {"v": v, "W": W, "out": wide, "I": I, "O": O, **left}
        jobs += [
            job(op, from_left, blocks(O, 32), arguments, 2 * I * O, reads=(v, W), writes=(wide,), fuses=()),
            _normalize(op, wide, u, sigma),
        ]
    arguments = {"W": W, "sigma": sigma, "out": op["normalized"], "n": I * O, "BLOCK": 1024}
    last = job(
        op, divide, blocks(I * O, 1024), arguments, I * O, reads=(W, sigma), writes=(op["normalized"],), fuses=()
    )
    return [*jobs, last]


def _normalize(op: Operation, x: object, out: object, norm: object) -> Job:
    arguments = {"x": x, "out": out, "norm": norm, "n": x.size, "BLOCK": 1024}  # type: ignore[attr-defined]
    written = (out,) if norm is None else (out, norm)
    return job(op, normalize, 1, arguments, reads=(x,), writes=written, fuses=())


@lowers("spectral_norm_backward")
def lower_backward(op: Operation, target: Target) -> list[Job]:
    (I, O), gradient, tile = op["dW"].shape, op["dnormalized"], _tile(op["dW"].shape[1])
    products = target.empty((I,), np.float32)
    inner = {"a": gradient, "b": op["normalized"], "out": products, "I": I, "O": O, **tile}
    outer = {name: op[name] for name in ("u", "v", "sigma", "dW")}
    outer |= {"dnormalized": gradient, "products": products, "I": I, "O": O, **tile, "BLOCK": 256}
    programs = blocks(I, tile["ROWS"])
    reads = (gradient, products, op["u"], op["v"], op["sigma"])
    return [
        job(op, row_products, programs, inner, 2 * I * O, reads=(gradient, op["normalized"]), writes=(products,)),
        job(op, backward, programs * blocks(O, tile["COLS"]), outer, 3 * I * O, reads=reads, fuses=()),
    ]
