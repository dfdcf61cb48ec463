"""batch: which rows of the data a step takes, and their values. :mod:`minigen.reference.batch` derives the permutation.

A kernel cannot raise. Where the host floors do (a step past the end of the epoch, an index outside of the data), the
index is -1 and the row NaN, which the training loop finds.
"""

from __future__ import annotations

import triton
import triton.language as tl

from minigen.cuda.kernels.random import philox


@triton.jit
def fmix32(h):
    """The finalizer of MurmurHash3 on uint32."""
    h = h ^ (h >> 16)
    h = h * 0x85EBCA6B
    h = h ^ (h >> 13)
    h = h * 0xC2B2AE35
    return h ^ (h >> 16)


@triton.jit
def feistel(x, keys_a, keys_b, high_bits, low_bits):
    """One pass through the network, a bijection of 0 .. 2^(high_bits + low_bits) - 1; keys in two tuples of four."""
    shift = low_bits.to(tl.uint32)
    high_mask = ((high_bits * 0 + 1) << high_bits).to(tl.uint32) - 1
    low_mask = ((low_bits * 0 + 1) << low_bits).to(tl.uint32) - 1
    high = x >> shift
    low = x & low_mask
    for keys in tl.static_range(2):
        k0, k1, k2, k3 = keys_a if keys == 0 else keys_b
        high = high ^ (fmix32(low ^ k0) & high_mask)
        low = low ^ (fmix32(high ^ k1) & low_mask)
        high = high ^ (fmix32(low ^ k2) & high_mask)
        low = low ^ (fmix32(high ^ k3) & low_mask)
    return (high << shift) | low


@triton.jit
def rows_of_step(rows, n, seed, stream, step, batch_size, steps_per_epoch, high_bits, low_bits):
    """The row of the data, int32, for each of ``rows`` (int32, its place in the batch of ``step``, uint64)."""
    steps = steps_per_epoch.to(tl.uint64)
    epoch = step // steps
    position = (step - epoch * steps).to(tl.int64) * batch_size + rows
    inside = position < n
    # Block 0 and 1 of Philox, at the epoch in place of the step, are the eight keys.
    keys_a = philox(seed, stream, epoch, seed * 0)
    keys_b = philox(seed, stream, epoch, seed * 0 + 1)
    x = tl.where(inside, position, 0).to(tl.uint32)
    limit = n.to(tl.uint32)
    x = feistel(x, keys_a, keys_b, high_bits, low_bits)
    # Cycle walking: those that fell outside go through again, until none is left.
    while tl.max((x >= limit).to(tl.int32), axis=0) > 0:
        x = tl.where(x >= limit, feistel(x, keys_a, keys_b, high_bits, low_bits), x)
    return tl.where(inside, x.to(tl.int32), -1)


@triton.jit
def indices(
    pid, out, step, B, n, seed, stream, batch_size, steps_per_epoch, high_bits, low_bits,
    STEPS_AHEAD: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """``out[B]`` (int32): the rows of the data that the step takes."""
    rows = pid * BLOCK + tl.arange(0, BLOCK)
    now = tl.load(step) - STEPS_AHEAD
    chosen = rows_of_step(rows, n, seed, stream, now, batch_size, steps_per_epoch, high_bits, low_bits)
    tl.store(out + rows, chosen, mask=rows < B)


@triton.jit
def gather_tile(data, chosen, columns, N, scale, shift, WIDTH: tl.constexpr):
    """``data[chosen] * scale + shift``; NaN for a row that is not in ``data[N, WIDTH]``, else 0 beyond WIDTH."""
    there = (chosen >= 0) & (chosen < N)
    wanted = there[:, None] & (columns < WIDTH)[None, :]
    raw = tl.load(data + chosen.to(tl.int64)[:, None] * WIDTH + columns[None, :], mask=wanted, other=0)
    # What is not there is 0 * NaN + shift or 0 * scale + 0: chosen once a row and once a column, not once an element.
    row_scale = tl.where(there, scale, float("nan"))
    column_shift = tl.where(columns < WIDTH, shift, 0.0)
    return raw.to(tl.float32) * row_scale[:, None] + column_shift[None, :]


@triton.jit
def gather(
    pid, data, chosen, out, B, N, scale, shift,
    D: tl.constexpr, ROWS: tl.constexpr, COLS: tl.constexpr,
):  # fmt: skip
    """``out[B,D] = data[chosen] * scale + shift``, ``data[N,D]`` uint8 or float32, ``chosen[B]`` int32."""
    tiles = (D + COLS - 1) // COLS
    rows = (pid // tiles) * ROWS + tl.arange(0, ROWS)
    columns = (pid % tiles) * COLS + tl.arange(0, COLS)
    values = gather_tile(data, tl.load(chosen + rows, mask=rows < B, other=-1), columns, N, scale, shift, D)
    wanted = (rows < B)[:, None] & (columns < D)[None, :]
    tl.store(out + rows.to(tl.int64)[:, None] * D + columns[None, :], values, mask=wanted)


@triton.jit
def take(
    pid, data, out, step, B, n, seed, stream, batch_size, steps_per_epoch, high_bits, low_bits, scale, shift,
    D: tl.constexpr, STEPS_AHEAD: tl.constexpr, ROWS: tl.constexpr, COLS: tl.constexpr,
):  # fmt: skip
    """:func:`indices` and :func:`gather` in one: each program computes the indices of its rows anew."""
    tiles = (D + COLS - 1) // COLS
    rows = (pid // tiles) * ROWS + tl.arange(0, ROWS)
    columns = (pid % tiles) * COLS + tl.arange(0, COLS)
    now = tl.load(step) - STEPS_AHEAD
    chosen = rows_of_step(rows, n, seed, stream, now, batch_size, steps_per_epoch, high_bits, low_bits)
    wanted = (rows < B)[:, None] & (columns < D)[None, :]
    values = gather_tile(data, chosen, columns, n, scale, shift, D)
    tl.store(out + rows.to(tl.int64)[:, None] * D + columns[None, :], values, mask=wanted)
