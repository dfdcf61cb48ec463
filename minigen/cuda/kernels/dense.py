"""dense: ``y = act(x W + b)`` and its gradients. :mod:`minigen.reference.dense` derives them.

Each program computes one tile ``[BM, BN]``: of ``y`` in forward, of ``dx`` in dgrad, of ``dW`` in wgrad. N_IN and N_OUT
are the layer's widths ``I`` and ``O``. Sums run in one order, so that results repeat bit for bit. Tiles begin at
multiples of their size; rows and columns beyond a buffer are loaded as 0.

At small batches a sum of several hundred terms is a long chain of products that wait for each other, in a program that
has its multiprocessor to itself. With SPLIT > 1 the program works on SPLIT stretches of BK terms at once, as one
product of three-dimensional tiles, of which each warp takes a share; their sums are added at the end, in one order.

Storage and sums are float32; PRECISION is how the products are taken:

======  ==============================================================================================
ieee    float32 products, on the ordinary cores
tf32x3  each factor as a sum of two tf32 numbers, three products of the four: float32's accuracy on the tensor cores
tf32    factors cut off after 11 bits (the tensor cores do not look at the others)
bf16    factors rounded to 8 bits
======  ==============================================================================================
"""

from __future__ import annotations

import triton
import triton.language as tl

from minigen.cuda.kernels.activations import activate, differentiate
from minigen.cuda.kernels.batch import gather_tile, rows_of_step
from minigen.cuda.kernels.gan_loss import delta, delta_turned
from minigen.cuda.kernels.optimizer import update
from minigen.cuda.kernels.places import left_places, right_places
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
def load_across(base, rows, first, height, WIDTH: tl.constexpr, BK: tl.constexpr, SPLIT: tl.constexpr):
    """Tile ``[BM, BK]`` of ``base[height, WIDTH]`` at column ``first``, or SPLIT of them, ``[SPLIT, BM, BK]``."""
    columns, rows = left_places(first, rows, BK, SPLIT)
    return tl.load(base + rows * WIDTH + columns, mask=(rows < height) & (columns < WIDTH), other=0.0)


@triton.jit
def load_down(base, first, columns, height, WIDTH: tl.constexpr, BK: tl.constexpr, SPLIT: tl.constexpr):
    """Tile ``[BK, BN]`` of ``base[height, WIDTH]`` at row ``first``, or SPLIT of them, ``[SPLIT, BK, BN]``."""
    rows, columns = right_places(first, columns, BK, SPLIT)
    return tl.load(base + rows * WIDTH + columns, mask=(rows < height) & (columns < WIDTH), other=0.0)


@triton.jit
def split_across(tile, BM: tl.constexpr, BK: tl.constexpr, SPLIT: tl.constexpr):
    """A computed tile ``[BM, SPLIT * BK]`` as :func:`load_across` gives one."""
    return tl.permute(tl.reshape(tile, [BM, SPLIT, BK]), (1, 0, 2)) if SPLIT > 1 else tile


@triton.jit
def turned(tile, SPLIT: tl.constexpr):
    """The transpose of each of SPLIT tiles."""
    return tl.permute(tile, (0, 2, 1)) if SPLIT > 1 else tl.trans(tile)


@triton.jit
def nothing(BM: tl.constexpr, BN: tl.constexpr, SPLIT: tl.constexpr):
    """Where the sums of a tile begin."""
    return tl.zeros([SPLIT, BM, BN], tl.float32) if SPLIT > 1 else tl.zeros([BM, BN], tl.float32)


@triton.jit
def together(total, SPLIT: tl.constexpr):
    """The tile from its SPLIT partial sums."""
    return tl.sum(total, axis=0) if SPLIT > 1 else total


@triton.jit
def product(
    x, W, rows, columns, B,
    N_IN: tl.constexpr, N_OUT: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr,
    SPLIT: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Tile of ``x[B,I] W[I,O]``."""
    total = nothing(BM, BN, SPLIT)
    for k in range(0, N_IN, SPLIT * BK):
        a = load_across(x, rows, k, B, N_IN, BK, SPLIT)
        total = dot(a, load_down(W, k, columns, N_IN, N_OUT, BK, SPLIT), total, PRECISION)
    return together(total, SPLIT)


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
    BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr, SPLIT: tl.constexpr, GROUP: tl.constexpr,
    PRECISION: tl.constexpr,
):  # fmt: skip
    """``y[B,O] = act(x[B,I] W + b)``."""
    tile_m, tile_n = tile_of(pid, tl.cdiv(B, BM), (N_OUT + BN - 1) // BN, GROUP)
    rows = (tile_m * BM + tl.arange(0, BM)).to(tl.int64)
    columns = tile_n * BN + tl.arange(0, BN)
    total = product(x, W, rows, columns, B, N_IN, N_OUT, BM, BN, BK, SPLIT, PRECISION)
    finish(total, b, head, rows, columns, tile_n, y, B, N_OUT, ACTIVATION, PARTS)


@triton.jit
def forward_of_noise(
    pid, noise, step, seed, stream, W, b, y, head, B,
    N_IN: tl.constexpr, N_OUT: tl.constexpr, ACTIVATION: tl.constexpr, PARTS: tl.constexpr, STEPS_AHEAD: tl.constexpr,
    BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr, SPLIT: tl.constexpr, GROUP: tl.constexpr,
    PRECISION: tl.constexpr,
):  # fmt: skip
    """:func:`forward` of normals drawn here. Every column of tiles draws them, the first one stores ``noise[B,I]``."""
    tile_m, tile_n = tile_of(pid, tl.cdiv(B, BM), (N_OUT + BN - 1) // BN, GROUP)
    rows = (tile_m * BM + tl.arange(0, BM)).to(tl.int64)
    columns = tile_n * BN + tl.arange(0, BN)
    now = tl.load(step) - STEPS_AHEAD
    total = nothing(BM, BN, SPLIT)
    for k in range(0, N_IN, SPLIT * BK):
        inner = k + tl.arange(0, SPLIT * BK)
        drawn = normal_tile(seed, stream, now, tile_m * BM, k, N_IN, BM, SPLIT * BK)
        if noise is not None:
            store(noise, rows, inner, tl.where(tile_n == 0, B, 0), N_IN, drawn)
        a = split_across(tl.where((inner < N_IN)[None, :], drawn, 0.0), BM, BK, SPLIT)
        total = dot(a, load_down(W, k, columns, N_IN, N_OUT, BK, SPLIT), total, PRECISION)
    finish(together(total, SPLIT), b, head, rows, columns, tile_n, y, B, N_OUT, ACTIVATION, PARTS)


@triton.jit
def forward_of_batch(
    pid, data, x, step, n, order, scale, shift, W, b, y, head, B,
    N_IN: tl.constexpr, N_OUT: tl.constexpr, ACTIVATION: tl.constexpr, PARTS: tl.constexpr, STEPS_AHEAD: tl.constexpr,
    BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr, SPLIT: tl.constexpr, GROUP: tl.constexpr,
    PRECISION: tl.constexpr,
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
    total = nothing(BM, BN, SPLIT)
    for k in range(0, N_IN, SPLIT * BK):
        inner = k + tl.arange(0, SPLIT * BK)
        values = gather_tile(data, chosen, inner, n, scale, shift, N_IN)
        if x is not None:
            store(x, rows, inner, tl.where(tile_n == 0, B, 0), N_IN, values)
        a = split_across(values, BM, BK, SPLIT)
        total = dot(a, load_down(W, k, columns, N_IN, N_OUT, BK, SPLIT), total, PRECISION)
    finish(together(total, SPLIT), b, head, rows, columns, tile_n, y, B, N_OUT, ACTIVATION, PARTS)


@triton.jit
def incoming_turned(
    dz, hidden, first, columns, B,
    N_OUT: tl.constexpr, HIDDEN: tl.constexpr, LOSS: tl.constexpr, PARTS: tl.constexpr, WIDTH: tl.constexpr,
    BK: tl.constexpr, SPLIT: tl.constexpr,
):  # fmt: skip
    """The transpose of BK rows of ``dz[B,O]`` from ``first`` on, ``[BN, BK]``, or SPLIT of them, ``[SPLIT, BN, BK]``.

    It is loaded as the left factor that it will be, not turned afterwards: only so does the compiler copy 16 bytes at
    a time to shared memory. Where ``dz`` is None it is computed from the one-output head behind this layer.
    """
    if dz is None:
        tile = delta_turned(hidden, first, columns, B, N_OUT, HIDDEN, LOSS, PARTS, WIDTH, BK, SPLIT)
    else:
        rows, columns = left_places(first, columns, BK, SPLIT)
        tile = tl.load(dz + rows * N_OUT + columns, mask=(rows < B) & (columns < N_OUT), other=0.0)
    return tile


@triton.jit
def back_product(
    dz, hidden, W, rows, columns, B,
    N_IN: tl.constexpr, N_OUT: tl.constexpr, HIDDEN: tl.constexpr, LOSS: tl.constexpr, PARTS: tl.constexpr,
    WIDTH: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr, SPLIT: tl.constexpr,
    PRECISION: tl.constexpr,
):  # fmt: skip
    """Tile of ``dz[B,O] W[I,O]^T``."""
    total = nothing(BM, BN, SPLIT)
    for k in range(0, N_OUT, SPLIT * BK):
        if dz is None:
            inner = k + tl.arange(0, SPLIT * BK)
            computed = delta(hidden, rows, inner, B, N_OUT, HIDDEN, LOSS, PARTS, WIDTH)
            d = split_across(computed, BM, BK, SPLIT)
        else:
            d = load_across(dz, rows, k, B, N_OUT, BK, SPLIT)
        w = turned(load_across(W, columns, k, N_IN, N_OUT, BK, SPLIT), SPLIT)
        total = dot(d, w, total, PRECISION)
    return together(total, SPLIT)


@triton.jit
def dgrad(
    pid, dz, hidden, W, dx, x, B,
    N_IN: tl.constexpr, N_OUT: tl.constexpr, ACTIVATION: tl.constexpr,
    HIDDEN: tl.constexpr, LOSS: tl.constexpr, PARTS: tl.constexpr, WIDTH: tl.constexpr,
    BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr, SPLIT: tl.constexpr, GROUP: tl.constexpr,
    PRECISION: tl.constexpr,
):  # fmt: skip
    """``dx[B,I] = (dz[B,O] W^T) * act'(x)``. HIDDEN, LOSS, PARTS, WIDTH: of :func:`incoming_turned`."""
    tile_m, tile_n = tile_of(pid, tl.cdiv(B, BM), (N_IN + BN - 1) // BN, GROUP)
    rows = (tile_m * BM + tl.arange(0, BM)).to(tl.int64)
    columns = tile_n * BN + tl.arange(0, BN)
    total = back_product(
        dz, hidden, W, rows, columns, B, N_IN, N_OUT, HIDDEN, LOSS, PARTS, WIDTH, BM, BN, BK, SPLIT, PRECISION
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
    BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr, SPLIT: tl.constexpr, GROUP: tl.constexpr,
    PRECISION: tl.constexpr, DB_ROWS: tl.constexpr, DB_COLS: tl.constexpr,
):  # fmt: skip
    """``dW[I,O] = x[B,I]^T dz[B,O]``, and ``db[O]``, the column sums of dz.

    The first programs make DB_COLS elements of db each, from DB_ROWS rows at a time; each of the others makes a tile of
    dW, as the transpose of ``dz^T x``: of two factors whose columns lie side by side a tensor core can take only the
    right one as it is, and dz is the one that is computed, or narrow.

    With an OPTIMIZER they update ``weights`` and ``bias`` (each p, m, v) at once, in their own elements, and are
    never stored. Else they are stored, and may be partial: rows ``s * chunk`` to ``(s + 1) * chunk`` give slice ``s``
    of ``dW[S,I,O]`` and ``db[S,O]``, which :func:`sum_slices` adds up in order. DB_ROWS and SPLIT * BK divide chunk.
    """
    tiles_m: tl.constexpr = (N_IN + BM - 1) // BM
    tiles_n: tl.constexpr = (N_OUT + BN - 1) // BN
    columns: tl.constexpr = (N_OUT + DB_COLS - 1) // DB_COLS
    part = pid // (tiles_m * tiles_n + columns)
    place = pid % (tiles_m * tiles_n + columns)
    begin, end = part * chunk, tl.minimum(B, (part + 1) * chunk)
    if place < columns:
        outs = place * DB_COLS + tl.arange(0, DB_COLS)
        sums = column_sums(begin, end, dz, hidden, outs, B, N_OUT, HIDDEN, LOSS, PARTS, WIDTH, DB_ROWS, DB_COLS)
        finish_gradient(sums, db, part * N_OUT, bias, rule, outs, outs < N_OUT, OPTIMIZER, STEPS_AHEAD)
    else:
        tile_m, tile_n = tile_of(place - columns, tiles_m, tiles_n, GROUP)
        ins = tile_m * BM + tl.arange(0, BM)
        cols = tile_n * BN + tl.arange(0, BN)
        total = nothing(BN, BM, SPLIT)
        for r in range(begin, end, SPLIT * BK):
            row = tl.cast(r, tl.int64)
            d = incoming_turned(dz, hidden, row, cols, B, N_OUT, HIDDEN, LOSS, PARTS, WIDTH, BK, SPLIT)
            total = dot(d, load_down(x, row, ins, B, N_IN, BK, SPLIT), total, PRECISION)
        gradient = tl.trans(together(total, SPLIT))
        inside = (ins < N_IN)[:, None] & (cols < N_OUT)[None, :]
        first = part.to(tl.int64) * N_IN * N_OUT
        places = ins[:, None] * N_OUT + cols[None, :]
        finish_gradient(gradient, dW, first, weights, rule, places, inside, OPTIMIZER, STEPS_AHEAD)


@triton.jit
def column_sums(
    begin, end, dz, hidden, columns, B,
    N_OUT: tl.constexpr, HIDDEN: tl.constexpr, LOSS: tl.constexpr, PARTS: tl.constexpr, WIDTH: tl.constexpr,
    ROWS: tl.constexpr, COLS: tl.constexpr,
):  # fmt: skip
    """The sums of some ``columns`` of dz over the rows from ``begin`` to ``end``."""
    sums = tl.zeros([COLS, ROWS], tl.float32)
    for r in range(begin, end, ROWS):
        row = tl.cast(r, tl.int64)
        sums += incoming_turned(dz, hidden, row, columns, B, N_OUT, HIDDEN, LOSS, PARTS, WIDTH, ROWS, 1)
    return tl.sum(sums, axis=1)


@triton.jit
def finish_gradient(g, out, first, state, rule, places, mask, OPTIMIZER: tl.constexpr, STEPS_AHEAD: tl.constexpr):
    """Store a gradient ``g`` (a tile) at ``out + first + places``, or with an OPTIMIZER update ``state`` at places."""
    if OPTIMIZER is not None:
        update(state, rule, places, mask, g, OPTIMIZER, STEPS_AHEAD)
    else:
        tl.store(out + first + places, g, mask=mask)


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
    finish_gradient(total, out, 0, state, rule, i, i < n, OPTIMIZER, STEPS_AHEAD)
