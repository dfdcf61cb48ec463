"""vae_loss: the reconstruction term in nats and its gradient. :mod:`minigen.reference.vae_loss` derives both.

A row's loss is a sum over the columns, which lie in several tiles. Each tile stores its share, ``parts[B,PARTS]``, and
:func:`finish_rows` adds the shares in order: no atomics, so that the loss repeats bit for bit.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import triton
import triton.language as tl

from minigen.backend import Array
from minigen.cuda.kernels.elementary import exp_negative, expm1, log, log1p_unit
from minigen.cuda.kernels.matmul import load, product, store, store_shares, tile_of
from minigen.cuda.plan import tiles
from minigen.cuda.plan.launch import Job
from minigen.cuda.plan.lowering import BLOCK, Target, blocks, job, lowers, ordering_tile, product_tile, tile_arguments
from minigen.step.record import Operation


@triton.jit
def continuous_bernoulli(logit, x):
    """log((1 - e^-a) / a) with a = |logit|, and the mean at -a, by their power series where a < 1."""
    a = tl.abs(logit)
    near = a < 1.0
    s = tl.where(near, a * a, 0.0)
    far = tl.where(near, 1.0, a)
    over = 1.0 / far
    rest = -expm1(-far)  # 1 - e^-a
    log_series = 5.51146384e-6 - s * 1.03339372e-7
    log_series = s * (4.16666667e-2 + s * (-3.47222222e-4 + s * log_series)) + (0.5 - x) * logit
    log_plain = (tl.where(logit < 0.0, 0.0, logit) - x * logit) + log(rest * over)
    series = 3.30687831e-5 - s * 8.26719577e-7
    series = 0.5 - a * (8.33333333e-2 + s * (-1.38888889e-3 + s * series))
    smaller = tl.where(near, series, over - (1.0 - rest) / rest)
    loss = tl.where(near, log_series, log_plain)
    return loss, tl.where(logit < 0.0, smaller - x, (1.0 - x) - smaller)


@triton.jit
def terms(output, x, half_precision, LIKELIHOOD: tl.constexpr):
    """Loss and derivative by ``output``: logits, or means (``"gaussian"``) with 1 / (2 variance)."""
    if LIKELIHOOD == "bernoulli":
        e = exp_negative(-tl.abs(output))
        linear = tl.where(output < 0.0, 0.0, output) - x * output  # large terms cancel exactly
        loss = linear + log1p_unit(e)
        wrong = e / (1.0 + e)
        slope = tl.where(output < 0.0, wrong - x, (1.0 - x) - wrong)  # no cancelling where the prediction is right
    elif LIKELIHOOD == "continuous_bernoulli":
        loss, slope = continuous_bernoulli(output, x)
    else:
        tl.static_assert(LIKELIHOOD == "gaussian")
        error = output - x
        loss = error * error * half_precision
        slope = 2.0 * error * half_precision
    return loss, slope


@triton.jit
def share(
    output, x, doutput, parts, rows, columns, tile_n, B, half_precision,
    D: tl.constexpr, LIKELIHOOD: tl.constexpr, WIDE: tl.constexpr,
):  # fmt: skip
    """Store one tile's gradient and its shares, of WIDE columns each, of the rows' loss."""
    loss, slope = terms(output, load(x, rows, columns, B, D), half_precision, LIKELIHOOD)
    store(doutput, rows, columns, B, D, slope / B.to(tl.float32))
    loss = tl.where((columns < D)[None, :], loss, 0.0)
    store_shares(parts, rows, B, tile_n, loss, None, D, WIDE)


@triton.jit
def from_output(
    pid, output, x, doutput, parts, B, half_precision,
    D: tl.constexpr, LIKELIHOOD: tl.constexpr, PARTS: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr,
):  # fmt: skip
    """``parts[B,PARTS]`` and ``doutput[B,D]`` from a stored ``output[B,D]``, PARTS tiles of BN columns wide."""
    rows = ((pid // PARTS) * BM + tl.arange(0, BM)).to(tl.int64)
    columns = (pid % PARTS) * BN + tl.arange(0, BN)
    values = load(output, rows, columns, B, D)
    share(values, x, doutput, parts, rows, columns, pid % PARTS, B, half_precision, D, LIKELIHOOD, BN)


@triton.jit
def forward(
    pid, h, W, b, x, doutput, parts, B, half_precision,
    N_IN: tl.constexpr, D: tl.constexpr, LIKELIHOOD: tl.constexpr, WIDE: tl.constexpr,
    BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr, SPLIT: tl.constexpr, GROUP: tl.constexpr,
    PRECISION: tl.constexpr,
):  # fmt: skip
    """The decoder's last layer ``h[B,I] W + b`` with the loss in its epilogue: the output itself is not stored."""
    tile_m, tile_n = tile_of(pid, tl.cdiv(B, BM), (D + BN - 1) // BN, GROUP)
    rows = (tile_m * BM + tl.arange(0, BM)).to(tl.int64)
    columns = tile_n * BN + tl.arange(0, BN)
    output = product(h, W, rows, columns, B, N_IN, D, BM, BN, BK, SPLIT, PRECISION)
    output += tl.load(b + columns, mask=columns < D, other=0.0)[None, :]
    share(output, x, doutput, parts, rows, columns, tile_n, B, half_precision, D, LIKELIHOOD, WIDE)


@triton.jit
def finish_rows(pid, parts, rows, loss, constant, B, PARTS: tl.constexpr, WIDTH: tl.constexpr, BLOCK: tl.constexpr):
    """``rows[B] = constant + sum of parts[B,PARTS]`` (where ``rows`` is not None) and ``loss[0]`` their mean.

    One program, which adds everything up in order. WIDTH is the power of two that holds PARTS.
    """
    columns = tl.arange(0, WIDTH)
    total = tl.zeros([BLOCK], tl.float32)
    for r in range(0, B, BLOCK):
        i = (pid + r + tl.arange(0, BLOCK)).to(tl.int64)
        mask = (i < B)[:, None] & (columns < PARTS)[None, :]
        row = tl.sum(tl.load(parts + i[:, None] * PARTS + columns[None, :], mask=mask, other=0.0), axis=1) + constant
        if rows is not None:
            tl.store(rows + i, row, mask=i < B)
        total += tl.where(i < B, row, 0.0)
    tl.store(loss, tl.sum(total, axis=0) / B.to(tl.float32))


# --- lowering -----------------------------------------------------------------------------------------


@lowers("vae_loss")
def lower_loss(op: Operation, target: Target) -> list[Job]:
    B, D = op["x"].shape
    BN = min(128, max(16, tiles.power_of_two(D)))
    parts = target.empty((B, blocks(D, BN)), np.float32)
    arguments = {
        "output": op["output"],
        "x": op["x"],
        "doutput": op["doutput"],
        "parts": parts,
        "B": B,
        **likelihood_arguments(op),
        "D": D,
        "PARTS": parts.shape[1],
        "BM": 16,
        "BN": BN,
    }
    programs = blocks(B, 16) * parts.shape[1]
    first = job(op, from_output, programs, arguments, 10 * B * D, writes=(op["doutput"], parts))
    return [first, finish_rows_job(op, parts, op["rows"], normalisation(op, D))]


@lowers("dense_forward_reconstruction")
def lower_forward(op: Operation, target: Target) -> list[Job]:
    (n_in, D), B = op["W"].shape, len(op["h"])
    order, tile = (tiles.narrowed(choose("forward", B, D, n_in, target)) for choose in (ordering_tile, product_tile))
    parts = target.empty((B, blocks(D, order.BN)), np.float32)
    arguments = {
        "h": op["h"],
        "W": op["W"],
        "b": op["b"],
        "x": op["x"],
        "doutput": op["doutput"],
        "parts": parts,
        "B": B,
        **likelihood_arguments(op),
        "N_IN": n_in,
        "D": D,
        "WIDE": order.BN,
        **tile_arguments(tile, target),
    }
    written, flops = (op["doutput"], parts), 2 * B * n_in * D
    first = job(op, forward, tiles.programs(tile, B, D), arguments, flops, writes=written, tile=tile)
    return [first, finish_rows_job(op, parts, op["rows"], normalisation(op, D))]


def likelihood_arguments(op: Operation) -> dict[str, Any]:
    return {"half_precision": 0.5 / op["variance"], "LIKELIHOOD": op["likelihood"]}


def normalisation(op: Operation, D: int) -> float:
    """What is added to the sum of a row's terms: the Gaussian's normalisation."""
    return D * math.log(2 * math.pi * op["variance"]) / 2 if op["likelihood"] == "gaussian" else 0.0


def finish_rows_job(op: Operation, parts: Array, rows: Array | None, constant: float) -> Job:
    """Rows' losses and their mean from the shares that another job stores."""
    B, count = parts.shape
    width = tiles.power_of_two(count)
    arguments = {
        "parts": parts,
        "rows": rows,
        "loss": op["loss"],
        "constant": constant,
        "B": B,
        "PARTS": count,
        "WIDTH": width,
        "BLOCK": min(max(16, 8192 // width), max(16, tiles.power_of_two(B)), BLOCK),
    }
    written = (op["loss"],) if rows is None else (rows, op["loss"])
    return job(op, finish_rows, 1, arguments, B * count, reads=(parts,), writes=written, fuses=())
