"""batch: which rows of the data a step takes, and their values. :mod:`minigen.reference.batch` derives the permutation.

A kernel cannot raise. Where the backends on the host do (a step past the end of the epoch, an index outside of the
data), the index is -1 and the row NaN, which the training loop finds.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import triton
import triton.language as tl

from minigen.cuda.kernels.random import philox
from minigen.cuda.plan.launch import Job
from minigen.cuda.plan.lowering import BLOCK, Target, blocks, int32, job, lowers
from minigen.cuda.plan.tiles import power_of_two
from minigen.step.record import Operation


class Order(NamedTuple):
    """The order of the rows in an epoch, and how batches are cut from it: Philox's key, sizes, and how many bits each
    half of the Feistel network has."""

    seed: int
    stream: int
    batch_size: int
    steps_per_epoch: int
    high_bits: int
    low_bits: int


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
def rows_of_step(rows, n, order, step):
    """The row of the data, int32, for each of ``rows`` (int32, its number in the batch of ``step``, uint64)."""
    seed = order.seed
    steps = order.steps_per_epoch.to(tl.uint64)
    epoch = step // steps
    position = (step - epoch * steps).to(tl.int64) * order.batch_size + rows
    inside = position < n
    # Block 0 and 1 of Philox, at the epoch in place of the step, are the eight keys.
    keys_a = philox(seed, order.stream, epoch, seed * 0)
    keys_b = philox(seed, order.stream, epoch, seed * 0 + 1)
    x = tl.where(inside, position, 0).to(tl.uint32)
    limit = n.to(tl.uint32)
    x = feistel(x, keys_a, keys_b, order.high_bits, order.low_bits)
    # Cycle walking: those that fell outside go through again, until none is left.
    while tl.max((x >= limit).to(tl.int32), axis=0) > 0:
        x = tl.where(x >= limit, feistel(x, keys_a, keys_b, order.high_bits, order.low_bits), x)
    return tl.where(inside, x.to(tl.int32), -1)


@triton.jit
def indices(pid, out, step, B, n, order, STEPS_AHEAD: tl.constexpr, BLOCK: tl.constexpr):
    """``out[B]`` (int32): the rows of the data that the step takes."""
    rows = pid * BLOCK + tl.arange(0, BLOCK)
    now = tl.load(step) - STEPS_AHEAD
    chosen = rows_of_step(rows, n, order, now)
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
def gather(pid, data, chosen, out, B, N, scale, shift, D: tl.constexpr, ROWS: tl.constexpr, COLS: tl.constexpr):
    """``out[B,D] = data[chosen] * scale + shift``, ``data[N,D]`` uint8 or float32, ``chosen[B]`` int32."""
    tiles = (D + COLS - 1) // COLS
    rows = (pid // tiles) * ROWS + tl.arange(0, ROWS)
    columns = (pid % tiles) * COLS + tl.arange(0, COLS)
    values = gather_tile(data, tl.load(chosen + rows, mask=rows < B, other=-1), columns, N, scale, shift, D)
    wanted = (rows < B)[:, None] & (columns < D)[None, :]
    tl.store(out + rows.to(tl.int64)[:, None] * D + columns[None, :], values, mask=wanted)


@triton.jit
def labels_of(pid, labels, chosen, out, B, N, BLOCK: tl.constexpr):
    """``out[B] = labels[chosen]``, int32; -1 for a row that is not in ``labels[N]``."""
    rows = pid * BLOCK + tl.arange(0, BLOCK)
    row = tl.load(chosen + rows, mask=rows < B, other=-1)
    there = (row >= 0) & (row < N)
    tl.store(out + rows, tl.load(labels + row, mask=there, other=-1), mask=rows < B)


@triton.jit
def take(
    pid, data, out, step, B, n, order, scale, shift,
    D: tl.constexpr, STEPS_AHEAD: tl.constexpr, ROWS: tl.constexpr, COLS: tl.constexpr,
):  # fmt: skip
    """:func:`indices` and :func:`gather` in one: each program computes the indices of its rows."""
    tiles = (D + COLS - 1) // COLS
    rows = (pid // tiles) * ROWS + tl.arange(0, ROWS)
    columns = (pid % tiles) * COLS + tl.arange(0, COLS)
    now = tl.load(step) - STEPS_AHEAD
    chosen = rows_of_step(rows, n, order, now)
    wanted = (rows < B)[:, None] & (columns < D)[None, :]
    values = gather_tile(data, chosen, columns, n, scale, shift, D)
    tl.store(out + rows.to(tl.int64)[:, None] * D + columns[None, :], values, mask=wanted)


# --- lowering -----------------------------------------------------------------------------------------


def order_of(op: Operation) -> Order:
    """A network of high_bits + low_bits covers ``n``."""
    bits = max(2, (op["n"] - 1).bit_length())
    key = int32(op["seed"]), int32(op["stream"])
    return Order(*key, op["batch_size"], op["steps_per_epoch"], high_bits=bits // 2, low_bits=bits - bits // 2)


def affine_arguments(op: Operation) -> dict[str, float]:
    return {"scale": op["scale"], "shift": op["shift"]}


def gather_block(D: int) -> dict[str, int]:
    """ROWS and COLS of a program of a gather."""
    columns = min(BLOCK, max(16, power_of_two(D)))
    return {"ROWS": 4096 // columns if columns < 512 else 4, "COLS": columns}


@lowers("batch_indices")
def lower_indices(op: Operation, target: Target) -> list[Job]:
    B = len(op["indices"])
    arguments = {
        "out": op["indices"],
        "step": op["step"],
        "B": B,
        "n": op["n"],
        "order": order_of(op),
        "STEPS_AHEAD": op["steps_ahead"],
        "BLOCK": 128,
    }
    return [job(op, indices, blocks(B, 128), arguments)]


@lowers("batch_gather")
def lower_gather(op: Operation, target: Target) -> list[Job]:
    B, D = op["out"].shape
    block = gather_block(D)
    arguments: dict[str, Any] = {
        "data": op["data"],
        "chosen": op["indices"],
        "out": op["out"],
        "B": B,
        "N": len(op["data"]),
        **affine_arguments(op),
        "D": D,
        **block,
    }
    programs = blocks(B, block["ROWS"]) * blocks(D, block["COLS"])
    return [job(op, gather, programs, arguments, 2 * B * D)]


@lowers("batch_labels")
def lower_labels(op: Operation, target: Target) -> list[Job]:
    B, N = len(op["out"]), len(op["labels"])
    arguments = {"labels": op["labels"], "chosen": op["indices"], "out": op["out"], "B": B, "N": N, "BLOCK": 128}
    return [job(op, labels_of, blocks(B, 128), arguments)]


@lowers("batch_take")
def lower_take(op: Operation, target: Target) -> list[Job]:
    B, D = op["x"].shape
    block = gather_block(D)
    arguments: dict[str, Any] = {
        "data": op["data"],
        "out": op["x"],
        "step": op["step"],
        "B": B,
        "n": op["n"],
        "order": order_of(op),
        **affine_arguments(op),
        "D": D,
        "STEPS_AHEAD": op["steps_ahead"],
        **block,
    }
    programs = blocks(B, block["ROWS"]) * blocks(D, block["COLS"])
    return [job(op, take, programs, arguments, 2 * B * D)]
