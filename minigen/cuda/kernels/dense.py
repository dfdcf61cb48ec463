"""dense: ``y = act(x W + b)`` and its gradients. :mod:`minigen.reference.dense` derives them.

Each program computes one tile ``[BM, BN]``: of ``y`` in forward, of ``dx`` in dgrad, of ``dW`` in wgrad. N_IN and N_OUT
are the layer's widths ``I`` and ``O``. Sums run in one order, so that results repeat bit for bit. Tiles begin at
multiples of their size; rows and columns beyond a buffer are loaded as 0. Storage and sums are float32; PRECISION is
how the products are taken:

======  ==============================================================================================
ieee    float32 products, on the ordinary cores
tf32x3  each factor as a sum of two tf32 numbers, three products of the four: float32's accuracy on the tensor cores
tf32    factors rounded to 11 bits
bf16    factors rounded to 8 bits
======  ==============================================================================================
"""

from __future__ import annotations

import triton
import triton.language as tl

from minigen.cuda.kernels.activations import activate, differentiate
from minigen.cuda.kernels.batch import gather_tile, rows_of_step
from minigen.cuda.kernels.gan_loss import delta
from minigen.cuda.kernels.optimizer import update
from minigen.cuda.kernels.random import normal_tile


@triton.jit
def tile_of(pid, tiles_m, tiles_n, GROUP: tl.constexpr):
    """The tile (row, column) of a program: down GROUP rows, then the next column, so that neighbours share inputs."""
    band = pid // (GROUP * tiles_n)
    within = pid - band * (GROUP * tiles_n)
    height = tl.minimum(tiles_m - band * GROUP, GROUP)
    return band * GROUP + within % height, within // height


@triton.jit
def load(base, rows, columns, height, WIDTH: tl.constexpr):
    """Tile of the row-major ``base[height, WIDTH]``, 0 outside."""
    mask = (rows < height)[:, None] & (columns < WIDTH)[None, :]
    return tl.load(base + rows[:, None] * WIDTH + columns[None, :], mask=mask, other=0.0)


@triton.jit
def store(base, rows, columns, height, WIDTH: tl.constexpr, tile):
    """Write what :func:`load` reads."""
    mask = (rows < height)[:, None] & (columns < WIDTH)[None, :]
    tl.store(base + rows[:, None] * WIDTH + columns[None, :], tile, mask=mask)


@triton.jit
def dot(a, b, total, PRECISION: tl.constexpr):
    """``total + a b``."""
    if PRECISION == "bf16":
        total = tl.dot(a.to(tl.bfloat16), b.to(tl.bfloat16), total)
    else:
        total = tl.dot(a, b, total, input_precision=PRECISION)
    return total


@triton.jit
def product(
    x, W, rows, columns, B,
    N_IN: tl.constexpr, N_OUT: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr,
    PRECISION: tl.constexpr,
):  # fmt: skip
    """Tile of ``x[B,I] W[I,O]``."""
    total = tl.zeros([BM, BN], tl.float32)
    for k in range(0, N_IN, BK):
        inner = k + tl.arange(0, BK)
        total = dot(load(x, rows, inner, B, N_IN), load(W, inner, columns, N_IN, N_OUT), total, PRECISION)
    return total


@triton.jit
def finish(
    total, b, head, rows, columns, tile_n, y, B, N_OUT: tl.constexpr, ACTIVATION: tl.constexpr, PARTS: tl.constexpr
):
    """Bias, activation, and the store; with a ``head`` (w, its bias, scores) also this tile's share of the logit."""
    out = activate(total + tl.load(b + columns, mask=columns < N_OUT, other=0.0)[None, :], ACTIVATION)
    store(y, rows, columns, B, N_OUT, out)
    if PARTS > 0:
        w, head_bias, scores = head
        share = tl.sum(out * tl.load(w + columns, mask=columns < N_OUT, other=0.0)[None, :], axis=1)
        share += tl.where(tile_n == 0, tl.load(head_bias), 0.0)
        tl.store(scores + rows * PARTS + tile_n, share, mask=rows < B)


@triton.jit
def forward(
    pid, x, W, b, y, head, B,
    N_IN: tl.constexpr, N_OUT: tl.constexpr, ACTIVATION: tl.constexpr, PARTS: tl.constexpr,
    BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr, GROUP: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """``y[B,O] = act(x[B,I] W + b)``."""
    tile_m, tile_n = tile_of(pid, tl.cdiv(B, BM), (N_OUT + BN - 1) // BN, GROUP)
    rows = (tile_m * BM + tl.arange(0, BM)).to(tl.int64)
    columns = tile_n * BN + tl.arange(0, BN)
    total = product(x, W, rows, columns, B, N_IN, N_OUT, BM, BN, BK, PRECISION)
    finish(total, b, head, rows, columns, tile_n, y, B, N_OUT, ACTIVATION, PARTS)


@triton.jit
def forward_of_noise(
    pid, noise, step, seed, stream, W, b, y, head, B,
    N_IN: tl.constexpr, N_OUT: tl.constexpr, ACTIVATION: tl.constexpr, PARTS: tl.constexpr, STEPS_AHEAD: tl.constexpr,
    BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr, GROUP: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """:func:`forward` of normals drawn here. Every column of tiles draws them, the first one stores ``noise[B,I]``."""
    tile_m, tile_n = tile_of(pid, tl.cdiv(B, BM), (N_OUT + BN - 1) // BN, GROUP)
    rows = (tile_m * BM + tl.arange(0, BM)).to(tl.int64)
    columns = tile_n * BN + tl.arange(0, BN)
    now = tl.load(step) - STEPS_AHEAD
    total = tl.zeros([BM, BN], tl.float32)
    for k in range(0, N_IN, BK):
        inner = k + tl.arange(0, BK)
        drawn = normal_tile(seed, stream, now, tile_m * BM, k, N_IN, BM, BK)
        if noise is not None:
            store(noise, rows, inner, tl.where(tile_n == 0, B, 0), N_IN, drawn)
        drawn = tl.where((inner < N_IN)[None, :], drawn, 0.0)
        total = dot(drawn, load(W, inner, columns, N_IN, N_OUT), total, PRECISION)
    finish(total, b, head, rows, columns, tile_n, y, B, N_OUT, ACTIVATION, PARTS)


@triton.jit
def forward_of_batch(
    pid, data, x, step, n, order, scale, shift, W, b, y, head, B,
    N_IN: tl.constexpr, N_OUT: tl.constexpr, ACTIVATION: tl.constexpr, PARTS: tl.constexpr, STEPS_AHEAD: tl.constexpr,
    BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr, GROUP: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """:func:`forward` of the step's batch, gathered from ``data[n,I]``; the first column of tiles stores ``x[B,I]``.

    ``order`` is (seed, stream, batch_size, steps_per_epoch, high_bits, low_bits), see
    :func:`minigen.cuda.kernels.batch.rows_of_step`.
    """
    tile_m, tile_n = tile_of(pid, tl.cdiv(B, BM), (N_OUT + BN - 1) // BN, GROUP)
    places = tile_m * BM + tl.arange(0, BM)
    rows = places.to(tl.int64)
    columns = tile_n * BN + tl.arange(0, BN)
    seed, stream, batch_size, steps_per_epoch, high_bits, low_bits = order
    now = tl.load(step) - STEPS_AHEAD
    chosen = rows_of_step(places, n, seed, stream, now, batch_size, steps_per_epoch, high_bits, low_bits)
    total = tl.zeros([BM, BN], tl.float32)
    for k in range(0, N_IN, BK):
        inner = k + tl.arange(0, BK)
        values = gather_tile(data, chosen, inner, n, scale, shift, N_IN)
        if x is not None:
            store(x, rows, inner, tl.where(tile_n == 0, B, 0), N_IN, values)
        total = dot(values, load(W, inner, columns, N_IN, N_OUT), total, PRECISION)
    finish(total, b, head, rows, columns, tile_n, y, B, N_OUT, ACTIVATION, PARTS)


@triton.jit
def incoming(
    dz, hidden, rows, columns, B,
    N_OUT: tl.constexpr, HIDDEN: tl.constexpr, LOSS: tl.constexpr, PARTS: tl.constexpr, WIDTH: tl.constexpr,
):  # fmt: skip
    """Tile of ``dz[B,O]``: stored, or where ``dz`` is None computed from the one-output head behind this layer."""
    if dz is None:
        tile = delta(hidden, rows, columns, B, N_OUT, HIDDEN, LOSS, PARTS, WIDTH)
    else:
        tile = load(dz, rows, columns, B, N_OUT)
    return tile


@triton.jit
def back_product(
    dz, hidden, W, rows, columns, B,
    N_IN: tl.constexpr, N_OUT: tl.constexpr, HIDDEN: tl.constexpr, LOSS: tl.constexpr, PARTS: tl.constexpr,
    WIDTH: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Tile of ``dz[B,O] W[I,O]^T``."""
    total = tl.zeros([BM, BN], tl.float32)
    for k in range(0, N_OUT, BK):
        inner = k + tl.arange(0, BK)
        d = incoming(dz, hidden, rows, inner, B, N_OUT, HIDDEN, LOSS, PARTS, WIDTH)
        total = dot(d, tl.trans(load(W, columns, inner, N_IN, N_OUT)), total, PRECISION)
    return total


@triton.jit
def dgrad(
    pid, dz, hidden, W, dx, x, B,
    N_IN: tl.constexpr, N_OUT: tl.constexpr, ACTIVATION: tl.constexpr,
    HIDDEN: tl.constexpr, LOSS: tl.constexpr, PARTS: tl.constexpr, WIDTH: tl.constexpr,
    BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr, GROUP: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """``dx[B,I] = (dz[B,O] W^T) * act'(x)``. HIDDEN, LOSS, PARTS, WIDTH: of :func:`incoming`."""
    tile_m, tile_n = tile_of(pid, tl.cdiv(B, BM), (N_IN + BN - 1) // BN, GROUP)
    rows = (tile_m * BM + tl.arange(0, BM)).to(tl.int64)
    columns = tile_n * BN + tl.arange(0, BN)
    total = back_product(
        dz, hidden, W, rows, columns, B, N_IN, N_OUT, HIDDEN, LOSS, PARTS, WIDTH, BM, BN, BK, PRECISION
    )
    if ACTIVATION != "linear":
        total = differentiate(total, load(x, rows, columns, B, N_IN), ACTIVATION)
    store(dx, rows, columns, B, N_IN, total)


@triton.jit
def wgrad(
    pid, x, dz, hidden, dW, db, weights, bias, rule, B, chunk,
    N_IN: tl.constexpr, N_OUT: tl.constexpr,
    HIDDEN: tl.constexpr, LOSS: tl.constexpr, PARTS: tl.constexpr, WIDTH: tl.constexpr,
    OPTIMIZER: tl.constexpr, STEPS_AHEAD: tl.constexpr,
    BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr, GROUP: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """``dW[I,O] = x[B,I]^T dz[B,O]`` and ``db[O]``, the column sums of dz, from the first row of tiles.

    With an OPTIMIZER they update ``weights`` and ``bias`` (each p, m, v) at once, in the tile's own elements, and are
    never stored. Else they are stored, and may be partial: rows ``s * chunk`` to ``(s + 1) * chunk`` give slice ``s``
    of ``dW[S,I,O]`` and ``db[S,O]``, which :func:`sum_slices` adds up in order.
    """
    tiles_m: tl.constexpr = (N_IN + BM - 1) // BM
    tiles_n: tl.constexpr = (N_OUT + BN - 1) // BN
    part = pid // (tiles_m * tiles_n)
    tile_m, tile_n = tile_of(pid % (tiles_m * tiles_n), tiles_m, tiles_n, GROUP)
    ins = tile_m * BM + tl.arange(0, BM)
    outs = tile_n * BN + tl.arange(0, BN)
    total = tl.zeros([BM, BN], tl.float32)
    bias_total = tl.zeros([BN], tl.float32)
    for r in range(part * chunk, tl.minimum(B, (part + 1) * chunk), BK):
        rows = (r + tl.arange(0, BK)).to(tl.int64)
        d = incoming(dz, hidden, rows, outs, B, N_OUT, HIDDEN, LOSS, PARTS, WIDTH)
        total = dot(tl.trans(load(x, rows, ins, B, N_IN)), d, total, PRECISION)
        bias_total += tl.sum(d, axis=0)
    inside = (ins < N_IN)[:, None] & (outs < N_OUT)[None, :]
    mine = outs < tl.where(tile_m == 0, N_OUT, 0)
    if OPTIMIZER is not None:
        update(weights, rule, ins[:, None] * N_OUT + outs[None, :], inside, total, OPTIMIZER, STEPS_AHEAD)
        update(bias, rule, outs, mine, bias_total, OPTIMIZER, STEPS_AHEAD)
    else:
        first = part.to(tl.int64) * N_IN * N_OUT
        tl.store(dW + first + ins[:, None] * N_OUT + outs[None, :], total, mask=inside)
        tl.store(db + part * N_OUT + outs, bias_total, mask=mine)


@triton.jit
def sum_slices(
    pid, slices, out, state, rule, n,
    SLICES: tl.constexpr, OPTIMIZER: tl.constexpr, STEPS_AHEAD: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """The ordered second pass: ``out[n]``, or with an OPTIMIZER the update, from the sum of ``slices[SLICES,n]``."""
    i = pid.to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    total = tl.zeros([BLOCK], tl.float32)
    for s in range(SLICES):
        total += tl.load(slices + s * n.to(tl.int64) + i, mask=i < n, other=0.0)
    if OPTIMIZER is not None:
        update(state, rule, i, i < n, total, OPTIMIZER, STEPS_AHEAD)
    else:
        tl.store(out + i, total, mask=i < n)
