"""normalization: of batches and of layers, and their gradients. :mod:`minigen.reference.normalization` derives both.

Of a batch a program has some columns and all their rows, of a layer some rows and all their columns: it adds up its own
numbers in one order, so that results repeat bit for bit.
"""

from __future__ import annotations

from typing import Any

import triton
import triton.language as tl

from minigen.cuda.kernels.activations import activate
from minigen.cuda.kernels.matmul import load, store
from minigen.cuda.plan.launch import Job
from minigen.cuda.plan.lowering import Target, blocks, job, lowers
from minigen.cuda.plan.tiles import power_of_two
from minigen.step.record import Operation


@triton.jit
def column_mean(x, mean, columns, first, R, WIDTH: tl.constexpr, ROWS: tl.constexpr, COLS: tl.constexpr):
    """Of the ``R`` rows of ``x`` from ``first`` on, or of their squared distance from ``mean``."""
    total = tl.zeros([COLS], tl.float32)
    for r in range(0, R, ROWS):
        rows = (r + tl.arange(0, ROWS)).to(tl.int64)
        values = load(x, first + rows, columns, first + R, WIDTH)
        if mean is not None:
            values = tl.where((rows < R)[:, None], values - mean[None, :], 0.0)
            values = values * values
        total += tl.sum(values, axis=0)
    return total * (1.0 / R.to(tl.float32))  # a vector divided would spill


@triton.jit
def batch_forward(
    pid, x, gamma, beta, y, mean, inv_std, running_mean, running_var, G, R, momentum, eps, unbiased,
    WIDTH: tl.constexpr, ACTIVATION: tl.constexpr, ROWS: tl.constexpr, COLS: tl.constexpr,
):  # fmt: skip
    """``y[G,R,O]`` and the statistics, ``mean`` and ``inv_std[G,O]``, by which the running ones are moved in turn."""
    columns = pid * COLS + tl.arange(0, COLS)
    there = columns < WIDTH
    scale = tl.load(gamma + columns, mask=there, other=0.0)
    shift = tl.load(beta + columns, mask=there, other=0.0)
    kept_mean = tl.load(running_mean + columns, mask=there, other=0.0)
    kept_var = tl.load(running_var + columns, mask=there, other=0.0)
    for g in range(0, G):
        first = g * R
        m = column_mean(x, None, columns, first, R, WIDTH, ROWS, COLS)
        variance = column_mean(x, m, columns, first, R, WIDTH, ROWS, COLS)
        s = 1.0 / tl.sqrt_rn(variance + eps)
        kept_mean = (1.0 - momentum) * kept_mean + momentum * m
        kept_var = (1.0 - momentum) * kept_var + momentum * (unbiased * variance)
        tl.store(mean + g * WIDTH + columns, m, mask=there)
        tl.store(inv_std + g * WIDTH + columns, s, mask=there)
        for r in range(0, R, ROWS):
            rows = (r + tl.arange(0, ROWS)).to(tl.int64)
            h = (load(x, first + rows, columns, first + R, WIDTH) - m[None, :]) * s[None, :]
            store(y, first + rows, columns, first + R, WIDTH, activate(h * scale[None, :] + shift[None, :], ACTIVATION))
    tl.debug_barrier()  # a block smaller than its threads: all must have read the running statistics
    tl.store(running_mean + columns, kept_mean, mask=there)
    tl.store(running_var + columns, kept_var, mask=there)


@triton.jit
def batch_infer(
    pid, x, gamma, beta, running_mean, running_var, y, B, eps,
    WIDTH: tl.constexpr, ACTIVATION: tl.constexpr, ROWS: tl.constexpr, COLS: tl.constexpr,
):  # fmt: skip
    """``y[B,O]`` by the running statistics."""
    tiles = (WIDTH + COLS - 1) // COLS
    rows = ((pid // tiles) * ROWS + tl.arange(0, ROWS)).to(tl.int64)
    columns = (pid % tiles) * COLS + tl.arange(0, COLS)
    there = columns < WIDTH
    s = 1.0 / tl.sqrt_rn(tl.load(running_var + columns, mask=there, other=1.0) + eps)
    m = tl.load(running_mean + columns, mask=there, other=0.0)
    h = (load(x, rows, columns, B, WIDTH) - m[None, :]) * s[None, :]
    scale = tl.load(gamma + columns, mask=there, other=0.0)
    shift = tl.load(beta + columns, mask=there, other=0.0)
    store(y, rows, columns, B, WIDTH, activate(h * scale[None, :] + shift[None, :], ACTIVATION))


@triton.jit
def column_sums(dz, x, m, s, columns, first, R, WIDTH: tl.constexpr, ROWS: tl.constexpr, COLS: tl.constexpr):
    """The sums over rows of ``dz`` and of ``dz h``."""
    total = tl.zeros([COLS], tl.float32)
    products = tl.zeros([COLS], tl.float32)
    for r in range(0, R, ROWS):
        rows = (r + tl.arange(0, ROWS)).to(tl.int64)
        gradient = load(dz, first + rows, columns, first + R, WIDTH)
        h = (load(x, first + rows, columns, first + R, WIDTH) - m[None, :]) * s[None, :]
        total += tl.sum(gradient, axis=0)
        products += tl.sum(gradient * h, axis=0)
    return total, products


@triton.jit
def batch_dgrad(
    pid, dz, x, gamma, mean, inv_std, dx, G, R, WIDTH: tl.constexpr, ROWS: tl.constexpr, COLS: tl.constexpr
):
    """``dx[G,R,O]``."""
    columns = pid * COLS + tl.arange(0, COLS)
    there = columns < WIDTH
    scale = tl.load(gamma + columns, mask=there, other=0.0)
    height = R.to(tl.float32)
    for g in range(0, G):
        first = g * R
        m = tl.load(mean + g * WIDTH + columns, mask=there, other=0.0)
        s = tl.load(inv_std + g * WIDTH + columns, mask=there, other=0.0)
        total, products = column_sums(dz, x, m, s, columns, first, R, WIDTH, ROWS, COLS)
        for r in range(0, R, ROWS):
            rows = (r + tl.arange(0, ROWS)).to(tl.int64)
            h = (load(x, first + rows, columns, first + R, WIDTH) - m[None, :]) * s[None, :]
            centred = load(dz, first + rows, columns, first + R, WIDTH) - (total / height)[None, :]
            gradient = (scale * s)[None, :] * (centred - h * (products / height)[None, :])
            store(dx, first + rows, columns, first + R, WIDTH, gradient)


@triton.jit
def batch_wgrad(
    pid, dz, x, mean, inv_std, dgamma, dbeta, G, R, WIDTH: tl.constexpr, ROWS: tl.constexpr, COLS: tl.constexpr
):
    """``dgamma[O]`` and ``dbeta[O]``."""
    columns = pid * COLS + tl.arange(0, COLS)
    there = columns < WIDTH
    total = tl.zeros([COLS], tl.float32)
    products = tl.zeros([COLS], tl.float32)
    for g in range(0, G):
        m = tl.load(mean + g * WIDTH + columns, mask=there, other=0.0)
        s = tl.load(inv_std + g * WIDTH + columns, mask=there, other=0.0)
        one_sum, one_product = column_sums(dz, x, m, s, columns, g * R, R, WIDTH, ROWS, COLS)
        total += one_sum
        products += one_product
    tl.store(dgamma + columns, products, mask=there)
    tl.store(dbeta + columns, total, mask=there)


# --- layer normalization ------------------------------------------------------------------------------


@triton.jit
def layer_forward(
    pid, x, gamma, beta, y, mean, inv_std, B, eps,
    WIDTH: tl.constexpr, ACTIVATION: tl.constexpr, ROWS: tl.constexpr, COLS: tl.constexpr,
):  # fmt: skip
    """``y[B,O]``, ``mean[B]`` and ``inv_std[B]``."""
    rows = (pid * ROWS + tl.arange(0, ROWS)).to(tl.int64)
    total = tl.zeros([ROWS], tl.float32)
    for c in range(0, WIDTH, COLS):
        total += tl.sum(load(x, rows, c + tl.arange(0, COLS), B, WIDTH), axis=1)
    m = total / WIDTH
    squares = tl.zeros([ROWS], tl.float32)
    for c in range(0, WIDTH, COLS):
        columns = c + tl.arange(0, COLS)
        off = tl.where((columns < WIDTH)[None, :], load(x, rows, columns, B, WIDTH) - m[:, None], 0.0)
        squares += tl.sum(off * off, axis=1)
    s = 1.0 / tl.sqrt_rn(squares / WIDTH + eps)
    tl.store(mean + rows, m, mask=rows < B)
    tl.store(inv_std + rows, s, mask=rows < B)
    for c in range(0, WIDTH, COLS):
        columns = c + tl.arange(0, COLS)
        h = (load(x, rows, columns, B, WIDTH) - m[:, None]) * s[:, None]
        scale = tl.load(gamma + columns, mask=columns < WIDTH, other=0.0)
        shift = tl.load(beta + columns, mask=columns < WIDTH, other=0.0)
        store(y, rows, columns, B, WIDTH, activate(h * scale[None, :] + shift[None, :], ACTIVATION))


@triton.jit
def layer_dgrad(pid, dz, x, gamma, mean, inv_std, dx, B, WIDTH: tl.constexpr, ROWS: tl.constexpr, COLS: tl.constexpr):
    """``dx[B,O]``."""
    rows = (pid * ROWS + tl.arange(0, ROWS)).to(tl.int64)
    m = tl.load(mean + rows, mask=rows < B, other=0.0)
    s = tl.load(inv_std + rows, mask=rows < B, other=0.0)
    total = tl.zeros([ROWS], tl.float32)
    products = tl.zeros([ROWS], tl.float32)
    for c in range(0, WIDTH, COLS):
        columns = c + tl.arange(0, COLS)
        g = load(dz, rows, columns, B, WIDTH) * tl.load(gamma + columns, mask=columns < WIDTH, other=0.0)[None, :]
        h = (load(x, rows, columns, B, WIDTH) - m[:, None]) * s[:, None]
        total += tl.sum(g, axis=1)
        products += tl.sum(g * h, axis=1)
    for c in range(0, WIDTH, COLS):
        columns = c + tl.arange(0, COLS)
        g = load(dz, rows, columns, B, WIDTH) * tl.load(gamma + columns, mask=columns < WIDTH, other=0.0)[None, :]
        h = (load(x, rows, columns, B, WIDTH) - m[:, None]) * s[:, None]
        gradient = s[:, None] * (g - (total / WIDTH)[:, None] - h * (products / WIDTH)[:, None])
        store(dx, rows, columns, B, WIDTH, gradient)


@triton.jit
def row_means(t, x, m, s, rows, B, WIDTH: tl.constexpr, ROWS: tl.constexpr, COLS: tl.constexpr):
    """The means of ``t`` and of ``t h`` over each row."""
    total = tl.zeros([ROWS], tl.float32)
    products = tl.zeros([ROWS], tl.float32)
    for c in range(0, WIDTH, COLS):
        columns = c + tl.arange(0, COLS)
        moved = load(t, rows, columns, B, WIDTH)
        h = (load(x, rows, columns, B, WIDTH) - m[:, None]) * s[:, None]
        total += tl.sum(moved, axis=1)
        products += tl.sum(moved * h, axis=1)
    return total / WIDTH, products / WIDTH


@triton.jit
def layer_tangent(
    pid, x_tangent, x, gamma, mean, inv_std, z_tangent, B, WIDTH: tl.constexpr, ROWS: tl.constexpr, COLS: tl.constexpr
):
    """``z_tangent[B,O] = gamma s (t - mean t - h mean(h t))``."""
    rows = (pid * ROWS + tl.arange(0, ROWS)).to(tl.int64)
    m = tl.load(mean + rows, mask=rows < B, other=0.0)
    s = tl.load(inv_std + rows, mask=rows < B, other=0.0)
    of_t, of_th = row_means(x_tangent, x, m, s, rows, B, WIDTH, ROWS, COLS)
    for c in range(0, WIDTH, COLS):
        columns = c + tl.arange(0, COLS)
        h = (load(x, rows, columns, B, WIDTH) - m[:, None]) * s[:, None]
        moved = s[:, None] * (load(x_tangent, rows, columns, B, WIDTH) - of_t[:, None] - h * of_th[:, None])
        scale = tl.load(gamma + columns, mask=columns < WIDTH, other=0.0)
        store(z_tangent, rows, columns, B, WIDTH, moved * scale[None, :])


@triton.jit
def layer_tangent_wgrad(
    pid, dz, x_tangent, x, mean, inv_std, dgamma, B, WIDTH: tl.constexpr, ROWS: tl.constexpr, COLS: tl.constexpr
):
    """``dgamma[O]`` plus the sum of ``dz h'``; each program takes the means of all rows for itself."""
    columns = pid * COLS + tl.arange(0, COLS)
    total = tl.load(dgamma + columns, mask=columns < WIDTH, other=0.0)
    for r in range(0, B, ROWS):
        rows = (r + tl.arange(0, ROWS)).to(tl.int64)
        m = tl.load(mean + rows, mask=rows < B, other=0.0)
        s = tl.load(inv_std + rows, mask=rows < B, other=0.0)
        of_t, of_th = row_means(x_tangent, x, m, s, rows, B, WIDTH, ROWS, COLS)
        h = (load(x, rows, columns, B, WIDTH) - m[:, None]) * s[:, None]
        moved = s[:, None] * (load(x_tangent, rows, columns, B, WIDTH) - of_t[:, None] - h * of_th[:, None])
        total += tl.sum(load(dz, rows, columns, B, WIDTH) * moved, axis=0)
    tl.debug_barrier()  # several threads may hold an element: all have read before one of them writes
    tl.store(dgamma + columns, total, mask=columns < WIDTH)


@triton.jit
def centred(t, of_t, rows, columns, B, WIDTH: tl.constexpr):
    """``t`` less the mean of its row; 0 outside."""
    return tl.where((columns < WIDTH)[None, :], load(t, rows, columns, B, WIDTH) - of_t[:, None], 0.0)


@triton.jit
def layer_curvature(
    pid, dz, x_tangent, x, gamma, mean, inv_std, dx, B,
    WIDTH: tl.constexpr, ROWS: tl.constexpr, COLS: tl.constexpr, ACCUMULATE: tl.constexpr,
):  # fmt: skip
    """``dx[B,O] = -s^2 (b g + a t + (c - 3 a b) h)``, or with ACCUMULATE added, in the names of the derivation."""
    rows = (pid * ROWS + tl.arange(0, ROWS)).to(tl.int64)
    m = tl.load(mean + rows, mask=rows < B, other=0.0)
    s = tl.load(inv_std + rows, mask=rows < B, other=0.0)
    of_g = tl.zeros([ROWS], tl.float32)
    of_t = tl.zeros([ROWS], tl.float32)
    for k in range(0, WIDTH, COLS):
        columns = k + tl.arange(0, COLS)
        scale = tl.load(gamma + columns, mask=columns < WIDTH, other=0.0)
        of_g += tl.sum(load(dz, rows, columns, B, WIDTH) * scale[None, :], axis=1)
        of_t += tl.sum(load(x_tangent, rows, columns, B, WIDTH), axis=1)
    of_g = of_g / WIDTH
    of_t = of_t / WIDTH
    a = tl.zeros([ROWS], tl.float32)
    b = tl.zeros([ROWS], tl.float32)
    c = tl.zeros([ROWS], tl.float32)
    for k in range(0, WIDTH, COLS):
        columns = k + tl.arange(0, COLS)
        scale = tl.load(gamma + columns, mask=columns < WIDTH, other=0.0)
        h = (load(x, rows, columns, B, WIDTH) - m[:, None]) * s[:, None]
        g = load(dz, rows, columns, B, WIDTH) * scale[None, :] - of_g[:, None]
        t = centred(x_tangent, of_t, rows, columns, B, WIDTH)
        g = tl.where((columns < WIDTH)[None, :], g, 0.0)
        a += tl.sum(h * g, axis=1)
        b += tl.sum(h * t, axis=1)
        c += tl.sum(g * t, axis=1)
    a = a / WIDTH
    b = b / WIDTH
    along = c / WIDTH - 3.0 * a * b
    for k in range(0, WIDTH, COLS):
        columns = k + tl.arange(0, COLS)
        scale = tl.load(gamma + columns, mask=columns < WIDTH, other=0.0)
        h = (load(x, rows, columns, B, WIDTH) - m[:, None]) * s[:, None]
        g = load(dz, rows, columns, B, WIDTH) * scale[None, :] - of_g[:, None]
        t = centred(x_tangent, of_t, rows, columns, B, WIDTH)
        bent = -(s * s)[:, None] * (b[:, None] * g + a[:, None] * t + along[:, None] * h)
        if ACCUMULATE:
            bent += load(dx, rows, columns, B, WIDTH)
        tl.debug_barrier()  # several threads may hold an element: all have read before one of them writes
        store(dx, rows, columns, B, WIDTH, bent)


@triton.jit
def layer_wgrad(
    pid, dz, x, mean, inv_std, dgamma, dbeta, B,
    WIDTH: tl.constexpr, ROWS: tl.constexpr, COLS: tl.constexpr, ACCUMULATE: tl.constexpr,
):  # fmt: skip
    """``dgamma[O]`` and ``dbeta[O]``, or with ACCUMULATE added."""
    columns = pid * COLS + tl.arange(0, COLS)
    total = tl.zeros([COLS], tl.float32)
    products = tl.zeros([COLS], tl.float32)
    for r in range(0, B, ROWS):
        rows = (r + tl.arange(0, ROWS)).to(tl.int64)
        m = tl.load(mean + rows, mask=rows < B, other=0.0)
        s = tl.load(inv_std + rows, mask=rows < B, other=0.0)
        gradient = load(dz, rows, columns, B, WIDTH)
        h = (load(x, rows, columns, B, WIDTH) - m[:, None]) * s[:, None]
        total += tl.sum(gradient, axis=0)
        products += tl.sum(gradient * h, axis=0)
    if ACCUMULATE:
        products += tl.load(dgamma + columns, mask=columns < WIDTH, other=0.0)
        total += tl.load(dbeta + columns, mask=columns < WIDTH, other=0.0)
    tl.debug_barrier()  # several threads may hold an element: all have read before one of them writes
    tl.store(dgamma + columns, products, mask=columns < WIDTH)
    tl.store(dbeta + columns, total, mask=columns < WIDTH)


# --- lowering -----------------------------------------------------------------------------------------

FUNCTIONS: dict[str, Any] = {
    "batch_norm_forward": batch_forward,
    "batch_norm_dgrad": batch_dgrad,
    "batch_norm_wgrad": batch_wgrad,
    "layer_norm_forward": layer_forward,
    "layer_norm_dgrad": layer_dgrad,
    "layer_norm_wgrad": layer_wgrad,
    "layer_norm_tangent": layer_tangent,
    "layer_norm_tangent_wgrad": layer_tangent_wgrad,
    "layer_norm_curvature": layer_curvature,
}


@lowers("batch_norm_forward", "batch_norm_dgrad", "batch_norm_wgrad")
def lower_batch(op: Operation, target: Target) -> list[Job]:
    G, R, WIDTH = op["x"].shape
    columns = 32  # a cache line of 128 bytes
    rows = min(64, max(16, power_of_two(R)))
    arguments = {**op.buffers, "G": G, "R": R, "WIDTH": WIDTH, "ROWS": rows, "COLS": columns}
    if op.name == "batch_norm_forward":
        arguments |= {"momentum": op["momentum"], "eps": op["eps"], "unbiased": R / max(R - 1, 1)}
        arguments["ACTIVATION"] = op["activation"]
    return [job(op, FUNCTIONS[op.name], blocks(WIDTH, columns), arguments, 10 * G * R * WIDTH)]


@lowers("batch_norm_infer")
def lower_infer(op: Operation, target: Target) -> list[Job]:
    B, WIDTH = op["x"].shape
    columns = min(128, max(16, power_of_two(WIDTH)))
    rows = 2048 // columns
    arguments = {**op.buffers, "B": B, "eps": op["eps"], "WIDTH": WIDTH, "ACTIVATION": op["activation"]}
    programs = blocks(B, rows) * blocks(WIDTH, columns)
    return [job(op, batch_infer, programs, arguments | {"ROWS": rows, "COLS": columns}, 5 * B * WIDTH)]


@lowers(*(name for name in FUNCTIONS if name.startswith("layer")))
def lower_layer(op: Operation, target: Target) -> list[Job]:
    B, WIDTH = op["x"].shape
    by_columns = op.name.endswith("wgrad")
    columns = 32 if by_columns else min(512, max(16, power_of_two(WIDTH)))
    rows = min(64, max(16, power_of_two(B))) if by_columns else max(1, 1024 // columns)
    arguments = {**op.buffers, "B": B, "WIDTH": WIDTH, "ROWS": rows, "COLS": columns}
    if op.name == "layer_norm_forward":
        arguments |= {"eps": op["eps"], "ACTIVATION": op["activation"]}
    if "accumulate" in op.settings:
        arguments["ACCUMULATE"] = op["accumulate"]
    programs = blocks(WIDTH, columns) if by_columns else blocks(B, rows)
    return [job(op, FUNCTIONS[op.name], programs, arguments, 10 * B * WIDTH)]
