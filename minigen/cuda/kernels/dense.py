"""dense: ``y = act(x W + b)`` and its gradients. :mod:`minigen.reference.dense` derives them.

Each program computes one tile ``[BM, BN]``: of ``y`` in forward, of ``dx`` in dgrad, of ``dW`` in wgrad, see
:mod:`minigen.cuda.kernels.matmul`. N_IN and N_OUT are the layer's widths ``I`` and ``O``.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import triton
import triton.language as tl

from minigen.backend import Array
from minigen.cuda.kernels.activations import activate, differentiate
from minigen.cuda.kernels.batch import affine_arguments, gather_tile, order_of, rows_of_step
from minigen.cuda.kernels.gan_loss import delta, delta_transposed, hidden_arguments
from minigen.cuda.kernels.matmul import (
    dot,
    left_offsets,
    load,
    load_left,
    load_right,
    product,
    reduce_split_k,
    split_left,
    store,
    store_shares,
    tile_of,
    transpose,
    zero_acc,
)
from minigen.cuda.kernels.optimizer import NO_UPDATE, update, update_arguments
from minigen.cuda.kernels.random import noise_arguments, normal_tile
from minigen.cuda.plan import tiles
from minigen.cuda.plan.launch import Job
from minigen.cuda.plan.lowering import BLOCK, Target, blocks, job, lowers, ordering_tile, product_tile, tile_arguments
from minigen.step.record import Operation


class Head(NamedTuple):
    """The one-output layer behind a layer: its weights and bias, and where the shares of its logit go."""

    w: Any
    b: Any
    scores: Any


@triton.jit
def epilogue(
    total, b, head, rows, columns, tile_n, y, B, N_OUT: tl.constexpr, ACTIVATION: tl.constexpr, WIDE: tl.constexpr
):
    """Bias, activation, and the store; with a ``head`` (:class:`Head`) also the logit's shares of WIDE columns each."""
    if b is not None:
        total += tl.load(b + columns, mask=columns < N_OUT, other=0.0)[None, :]
    out = activate(total, ACTIVATION)
    store(y, rows, columns, B, N_OUT, out)
    if head is not None:
        weighted = out * tl.load(head.w + columns, mask=columns < N_OUT, other=0.0)[None, :]
        store_shares(head.scores, rows, B, tile_n, weighted, tl.load(head.b), N_OUT, WIDE)


@triton.jit
def forward(
    pid, x, W, b, y, head, B,
    N_IN: tl.constexpr, N_OUT: tl.constexpr, ACTIVATION: tl.constexpr, WIDE: tl.constexpr,
    BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr, SPLIT: tl.constexpr, GROUP: tl.constexpr,
    PRECISION: tl.constexpr,
):  # fmt: skip
    """``y[B,O] = act(x[B,I] W + b)``."""
    tile_m, tile_n = tile_of(pid, tl.cdiv(B, BM), (N_OUT + BN - 1) // BN, GROUP)
    rows = (tile_m * BM + tl.arange(0, BM)).to(tl.int64)
    columns = tile_n * BN + tl.arange(0, BN)
    total = product(x, W, rows, columns, B, N_IN, N_OUT, BM, BN, BK, SPLIT, PRECISION)
    epilogue(total, b, head, rows, columns, tile_n, y, B, N_OUT, ACTIVATION, WIDE)


@triton.jit
def forward_of_noise(
    pid, noise, step, seed, stream, W, b, y, head, B,
    N_IN: tl.constexpr, N_OUT: tl.constexpr, ACTIVATION: tl.constexpr, WIDE: tl.constexpr, STEPS_AHEAD: tl.constexpr,
    BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr, SPLIT: tl.constexpr, GROUP: tl.constexpr,
    PRECISION: tl.constexpr,
):  # fmt: skip
    """:func:`forward` of normals drawn here. Every column of tiles draws them, the first one stores ``noise[B,I]``."""
    tile_m, tile_n = tile_of(pid, tl.cdiv(B, BM), (N_OUT + BN - 1) // BN, GROUP)
    rows = (tile_m * BM + tl.arange(0, BM)).to(tl.int64)
    columns = tile_n * BN + tl.arange(0, BN)
    now = tl.load(step) - STEPS_AHEAD
    total = zero_acc(BM, BN, SPLIT)
    for k in range(0, N_IN, SPLIT * BK):
        inner = k + tl.arange(0, SPLIT * BK)
        drawn = normal_tile(seed, stream, now, tile_m * BM, k, N_IN, BM, SPLIT * BK)
        if noise is not None:
            store(noise, rows, inner, tl.where(tile_n == 0, B, 0), N_IN, drawn)
        a = split_left(tl.where((inner < N_IN)[None, :], drawn, 0.0), BM, BK, SPLIT)
        total = dot(a, load_right(W, k, columns, N_IN, N_OUT, BK, SPLIT), total, PRECISION)
    epilogue(reduce_split_k(total, SPLIT), b, head, rows, columns, tile_n, y, B, N_OUT, ACTIVATION, WIDE)


@triton.jit
def forward_of_batch(
    pid, data, x, step, n, order, scale, shift, W, b, y, head, B,
    N_IN: tl.constexpr, N_OUT: tl.constexpr, ACTIVATION: tl.constexpr, WIDE: tl.constexpr, STEPS_AHEAD: tl.constexpr,
    BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr, SPLIT: tl.constexpr, GROUP: tl.constexpr,
    PRECISION: tl.constexpr,
):  # fmt: skip
    """:func:`forward` of the step's batch, gathered from ``data[n,I]``; the first column of tiles stores ``x[B,I]``.

    ``order`` is a :class:`minigen.cuda.kernels.batch.Order`.
    """
    tile_m, tile_n = tile_of(pid, tl.cdiv(B, BM), (N_OUT + BN - 1) // BN, GROUP)
    positions = tile_m * BM + tl.arange(0, BM)
    rows = positions.to(tl.int64)
    columns = tile_n * BN + tl.arange(0, BN)
    now = tl.load(step) - STEPS_AHEAD
    chosen = rows_of_step(positions, n, order, now)
    total = zero_acc(BM, BN, SPLIT)
    for k in range(0, N_IN, SPLIT * BK):
        inner = k + tl.arange(0, SPLIT * BK)
        values = gather_tile(data, chosen, inner, n, scale, shift, N_IN)
        if x is not None:
            store(x, rows, inner, tl.where(tile_n == 0, B, 0), N_IN, values)
        a = split_left(values, BM, BK, SPLIT)
        total = dot(a, load_right(W, k, columns, N_IN, N_OUT, BK, SPLIT), total, PRECISION)
    epilogue(reduce_split_k(total, SPLIT), b, head, rows, columns, tile_n, y, B, N_OUT, ACTIVATION, WIDE)


@triton.jit
def incoming_transposed(
    dz, hidden, first, columns, B,
    N_OUT: tl.constexpr, HIDDEN: tl.constexpr, LOSS: tl.constexpr, PARTS: tl.constexpr, WIDTH: tl.constexpr,
    BK: tl.constexpr, SPLIT: tl.constexpr,
):  # fmt: skip
    """The transpose of BK rows of ``dz[B,O]`` from ``first`` on, ``[BN, BK]``, or SPLIT of them, ``[SPLIT, BN, BK]``.

    It is loaded as the left factor that it will be, not transposed afterwards: only so does the compiler copy 16
    bytes at a time to shared memory. Where ``dz`` is None it is computed from the one-output head behind this layer.
    """
    if dz is None:
        tile = delta_transposed(hidden, first, columns, B, N_OUT, HIDDEN, LOSS, PARTS, WIDTH, BK, SPLIT)
    else:
        rows, columns = left_offsets(first, columns, BK, SPLIT)
        tile = tl.load(dz + rows * N_OUT + columns, mask=(rows < B) & (columns < N_OUT), other=0.0)
    return tile


@triton.jit
def product_transposed(
    dz, hidden, W, rows, columns, B,
    N_IN: tl.constexpr, N_OUT: tl.constexpr, HIDDEN: tl.constexpr, LOSS: tl.constexpr, PARTS: tl.constexpr,
    WIDTH: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr, SPLIT: tl.constexpr,
    PRECISION: tl.constexpr,
):  # fmt: skip
    """Tile of ``dz[B,O] W[I,O]^T``."""
    total = zero_acc(BM, BN, SPLIT)
    for k in range(0, N_OUT, SPLIT * BK):
        if dz is None:
            inner = k + tl.arange(0, SPLIT * BK)
            computed = delta(hidden, rows, inner, B, N_OUT, HIDDEN, LOSS, PARTS, WIDTH)
            d = split_left(computed, BM, BK, SPLIT)
        else:
            d = load_left(dz, rows, k, B, N_OUT, BK, SPLIT)
        w = transpose(load_left(W, columns, k, N_IN, N_OUT, BK, SPLIT), SPLIT)
        total = dot(d, w, total, PRECISION)
    return reduce_split_k(total, SPLIT)


@triton.jit
def dgrad(
    pid, dz, hidden, W, dx, x, B,
    N_IN: tl.constexpr, N_OUT: tl.constexpr, ACTIVATION: tl.constexpr,
    HIDDEN: tl.constexpr, LOSS: tl.constexpr, PARTS: tl.constexpr, WIDTH: tl.constexpr,
    BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr, SPLIT: tl.constexpr, GROUP: tl.constexpr,
    PRECISION: tl.constexpr,
):  # fmt: skip
    """``dx[B,I] = (dz[B,O] W^T) * act'(z_before)``, from ``x = act(z_before)``.

    HIDDEN, LOSS, PARTS, WIDTH: of :func:`incoming_transposed`.
    """
    tile_m, tile_n = tile_of(pid, tl.cdiv(B, BM), (N_IN + BN - 1) // BN, GROUP)
    rows = (tile_m * BM + tl.arange(0, BM)).to(tl.int64)
    columns = tile_n * BN + tl.arange(0, BN)
    total = product_transposed(
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

    With an OPTIMIZER they update ``weights`` and ``bias`` (:class:`~minigen.cuda.kernels.optimizer.Parameters`) at
    once, in their own elements, and are never stored. Else they are stored, and may be partial: rows ``s * chunk`` to
    ``(s + 1) * chunk`` give slice ``s`` of ``dW[S,I,O]`` and ``db[S,O]``, which :func:`sum_slices` adds up in order.
    DB_ROWS and SPLIT * BK divide chunk.
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
        store_or_update(sums, db, part * N_OUT, bias, rule, outs, outs < N_OUT, OPTIMIZER, STEPS_AHEAD)
    else:
        tile_m, tile_n = tile_of(place - columns, tiles_m, tiles_n, GROUP)
        ins = tile_m * BM + tl.arange(0, BM)
        cols = tile_n * BN + tl.arange(0, BN)
        total = zero_acc(BN, BM, SPLIT)
        for r in range(begin, end, SPLIT * BK):
            row = tl.cast(r, tl.int64)
            d = incoming_transposed(dz, hidden, row, cols, B, N_OUT, HIDDEN, LOSS, PARTS, WIDTH, BK, SPLIT)
            total = dot(d, load_right(x, row, ins, B, N_IN, BK, SPLIT), total, PRECISION)
        gradient = tl.trans(reduce_split_k(total, SPLIT))
        inside = (ins < N_IN)[:, None] & (cols < N_OUT)[None, :]
        first = part.to(tl.int64) * N_IN * N_OUT
        offsets = ins[:, None] * N_OUT + cols[None, :]
        store_or_update(gradient, dW, first, weights, rule, offsets, inside, OPTIMIZER, STEPS_AHEAD)


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
        sums += incoming_transposed(dz, hidden, row, columns, B, N_OUT, HIDDEN, LOSS, PARTS, WIDTH, ROWS, 1)
    return tl.sum(sums, axis=1)


@triton.jit
def store_or_update(g, out, first, params, rule, offsets, mask, OPTIMIZER: tl.constexpr, STEPS_AHEAD: tl.constexpr):
    """Store a gradient ``g`` (a tile) at ``out + first + offsets``, or with an OPTIMIZER update ``params`` there."""
    if OPTIMIZER is not None:
        update(params, rule, offsets, mask, g, OPTIMIZER, STEPS_AHEAD)
    else:
        tl.store(out + first + offsets, g, mask=mask)


@triton.jit
def sum_slices(
    pid, slices, out, params, rule, n,
    SLICES: tl.constexpr, ACCUMULATE: tl.constexpr, OPTIMIZER: tl.constexpr, STEPS_AHEAD: tl.constexpr,
    BLOCK: tl.constexpr,
):  # fmt: skip
    """The ordered second pass: ``out[n]``, or with an OPTIMIZER the update, from the sum of ``slices[SLICES,n]``.

    With ACCUMULATE, ``out`` plus that sum.
    """
    i = pid.to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    total = tl.load(out + i, mask=i < n, other=0.0) if ACCUMULATE else tl.zeros([BLOCK], tl.float32)
    for s in range(SLICES):
        total += tl.load(slices + s * n.to(tl.int64) + i, mask=i < n, other=0.0)
    store_or_update(total, out, 0, params, rule, i, i < n, OPTIMIZER, STEPS_AHEAD)


# --- lowering -----------------------------------------------------------------------------------------


@lowers("dense_forward", "dense_forward_of_noise", "dense_forward_of_batch")
def lower_forward(op: Operation, target: Target) -> list[Job]:
    (n_in, n_out), B = op["W"].shape, len(op["y"])
    order, tile = (choose("forward", B, n_out, n_in, target) for choose in (ordering_tile, product_tile))
    function, source = input_of(op)
    head = None if op["scores"] is None else Head(op["head_w"], op["head_b"], op["scores"])
    arguments = {
        "W": op["W"],
        "b": op["b"],
        "y": op["y"],
        "head": head,
        "B": B,
        "N_IN": n_in,
        "N_OUT": n_out,
        "ACTIVATION": op["activation"],
        "WIDE": order.BN,
        **tile_arguments(tile, target),
        **source,
    }
    return [job(op, function, tiles.programs(tile, B, n_out), arguments, 2 * B * n_in * n_out, tile=tile)]


def input_of(op: Operation) -> tuple[Any, dict[str, Any]]:
    """The kernel of a forward and its arguments for the input: memory, noise, or the data."""
    if op.name == "dense_forward":
        return forward, {"x": op["x"]}
    if op.name == "dense_forward_of_noise":
        return forward_of_noise, noise_arguments(op) | {"noise": op["x"]}
    source = {"step": op["step"], "STEPS_AHEAD": op["steps_ahead"], "data": op["data"], "x": op["x"], "n": op["n"]}
    return forward_of_batch, source | {"order": order_of(op), **affine_arguments(op)}


@lowers("dense_dgrad")
def lower_dgrad(op: Operation, target: Target) -> list[Job]:
    (n_in, n_out), B = op["W"].shape, len(op["dx"])
    tile = product_tile("dgrad", B, n_in, n_out, target)
    arguments = {
        "dz": op["dz"],
        "W": op["W"],
        "dx": op["dx"],
        "x": op["x"],
        "B": B,
        "N_IN": n_in,
        "N_OUT": n_out,
        "ACTIVATION": op["activation"],
        **hidden_arguments(op),
        **tile_arguments(tile, target),
    }
    return [job(op, dgrad, tiles.programs(tile, B, n_in), arguments, 2 * B * n_in * n_out, tile=tile)]


@lowers("dense_wgrad")
def lower_wgrad(op: Operation, target: Target) -> list[Job]:
    """One job, or with a long batch and few tiles, partial sums and then their ordered sum."""
    dz = op["h"] if op["dz"] is None else op["dz"]
    (B, n_in), n_out = op["x"].shape, dz.shape[1]
    order, tile = (choose("wgrad", n_in, n_out, B, target) for choose in (ordering_tile, product_tile))
    slices = tiles.batch_slices(order, n_in, n_out, B, target.architecture, target.deciding)
    db_rows, db_columns = min(256, max(16, tiles.power_of_two(B))), 32  # many rows at once, so that db is done early
    unit = max(db_rows, tile.SPLIT * tile.BK)
    chunk = blocks(blocks(B, slices), unit) * unit
    arguments = {
        "x": op["x"],
        "dz": op["dz"],
        "B": B,
        "chunk": chunk,
        "N_IN": n_in,
        "N_OUT": n_out,
        **hidden_arguments(op),
        **tile_arguments(tile, target),
        "DB_ROWS": db_rows,
        "DB_COLS": db_columns,
    }
    programs = tiles.programs(tile, n_in, n_out) + blocks(n_out, db_columns)  # dW's, db's
    flops = 2 * B * n_in * n_out
    with_bias = "lr" in op.buffers or "db" in op.buffers
    if slices == 1 and not op["accumulate"] and with_bias:
        stored = {"dW": op["dW"], "db": op["db"], **update_arguments(op)}
        return [job(op, wgrad, programs, arguments | stored, flops, tile=tile)]
    parts_W, parts_b = (target.empty((slices, *shape), np.float32) for shape in ((n_in, n_out), (n_out,)))
    partial = {"dW": parts_W, "db": parts_b, **NO_UPDATE}
    reads = [op.buffers[name] for name in ("x", "dz", "h", "scores", "head_w") if name in op.buffers]
    written = parts_W, parts_b
    first = job(op, wgrad, programs * slices, arguments | partial, flops, reads=reads, writes=written, tile=tile)
    sums = [(parts_W, "W"), *[(parts_b, "b")] * with_bias]
    return [first, *(sum_slices_job(op, *part) for part in sums)]


def sum_slices_job(op: Operation, slices: Array, name: str) -> Job:
    n = slices[0].size
    updates = update_arguments(op)
    params, out = updates["weights" if name == "W" else "bias"], op[f"d{name}"]
    arguments = {
        "slices": slices,
        "out": out,
        "params": params,
        "rule": updates["rule"],
        "n": n,
        "SLICES": len(slices),
        "ACCUMULATE": bool(op["accumulate"]),
        "OPTIMIZER": updates["OPTIMIZER"],
        "STEPS_AHEAD": updates["STEPS_AHEAD"],
        "BLOCK": BLOCK,
    }
    written = (out,) if params is None else tuple(buffer for buffer in params if buffer is not None)
    inputs = (op.buffers[name] for name in ("lr", "step") if name in op.buffers)
    reads = (slices, *inputs, *(written if params is not None or op["accumulate"] else ()))
    return job(op, sum_slices, blocks(n, BLOCK), arguments, n * len(slices), reads=reads, writes=written, fuses=())
