"""random: Philox4x32-10 and the numbers made from it, a pure function of (seed, stream, step, element).

:mod:`minigen.reference.random` derives the method. Four neighbouring elements share a block of Philox, so the kernels
draw ``quads``: four normals or uniforms a block, interleaved to the order of the elements.
"""

from __future__ import annotations

from typing import Any

import triton
import triton.language as tl

from minigen.cuda.kernels.elementary import log, sine_cosine_of_turn
from minigen.cuda.plan.launch import Job
from minigen.cuda.plan.lowering import BLOCK, Target, blocks, int32, job, lowers
from minigen.step.record import Operation

UNIT: tl.constexpr = tl.constexpr(2.0**-24)


@triton.jit
def philox(seed, stream, step, block):
    """The four uint32 words of each ``block`` (uint32, any shape), key (seed, stream), at ``step`` (uint64)."""
    c2 = block.to(tl.uint32)
    c0 = (step & 0xFFFFFFFF).to(tl.uint32) + c2 * 0  # the shape of block
    c1 = (step >> 32).to(tl.uint32) + c2 * 0
    c3 = c2 * 0
    k0 = seed.to(tl.uint32)
    k1 = stream.to(tl.uint32)
    for _ in tl.static_range(10):
        high0 = tl.umulhi(c0, 0xD2511F53)
        low0 = c0 * 0xD2511F53
        high1 = tl.umulhi(c2, 0xCD9E8D57)
        low1 = c2 * 0xCD9E8D57
        c0 = high1 ^ c1 ^ k0
        c1 = low1
        c2 = high0 ^ c3 ^ k1
        c3 = low0
        k0 += 0x9E3779B9
        k1 += 0xBB67AE85
    return c0, c1, c2, c3


@triton.jit
def unit_interval(word):
    """The upper 24 bits as a number in [0, 1), exactly."""
    return (word >> 8).to(tl.int32).to(tl.float32) * UNIT


@triton.jit
def box_muller(word_a, word_b):
    """Two independent standard normals."""
    radius = tl.sqrt_rn(-2.0 * log(unit_interval(word_a) + UNIT))
    sine, cosine = sine_cosine_of_turn(unit_interval(word_b))
    return radius * cosine, radius * sine


@triton.jit
def interleave(a, b, c, d, SHAPE: tl.constexpr):
    """Elements a0 b0 c0 d0 a1 b1 ... along the last axis, as a tensor of SHAPE."""
    return tl.reshape(tl.join(tl.join(a, c), tl.join(b, d)), SHAPE)


@triton.jit
def normal_quads(seed, stream, step, block, SHAPE: tl.constexpr):
    """The standard normals of the elements of each ``block``: four times as many along the last axis, as SHAPE."""
    w0, w1, w2, w3 = philox(seed, stream, step, block)
    a, b = box_muller(w0, w1)
    c, d = box_muller(w2, w3)
    return interleave(a, b, c, d, SHAPE)


@triton.jit
def uniform_quads(seed, stream, step, block, SHAPE: tl.constexpr):
    """The uniforms of the elements of each ``block``, as :func:`normal_quads`."""
    w0, w1, w2, w3 = philox(seed, stream, step, block)
    return interleave(unit_interval(w0), unit_interval(w1), unit_interval(w2), unit_interval(w3), SHAPE)


@triton.jit
def normal_elements(seed, stream, step, element):
    """The standard normal of each ``element``: where rows do not begin with a block, at four times the work."""
    w0, w1, w2, w3 = philox(seed, stream, step, element >> 2)
    later = (element & 2) != 0
    even, odd = box_muller(tl.where(later, w2, w0), tl.where(later, w3, w1))
    return tl.where((element & 1) != 0, odd, even)


@triton.jit
def normal_tile(
    seed, stream, step, first_row, first_column, WIDTH: tl.constexpr, ROWS: tl.constexpr, COLS: tl.constexpr
):
    """Tile [ROWS, COLS] of a buffer of normals with WIDTH columns (first_column and COLS are multiples of 4)."""
    rows = (first_row + tl.arange(0, ROWS)).to(tl.int64)[:, None]
    if WIDTH % 4 == 0:
        columns = (first_column // 4 + tl.arange(0, COLS // 4))[None, :]
        tile = normal_quads(seed, stream, step, rows * (WIDTH // 4) + columns, [ROWS, COLS])
    else:
        columns = (first_column + tl.arange(0, COLS))[None, :]
        tile = normal_elements(seed, stream, step, rows * WIDTH + columns)
    return tile


@triton.jit
def fill(pid, out, step, n, seed, stream, KIND: tl.constexpr, STEPS_AHEAD: tl.constexpr, BLOCK: tl.constexpr):
    """``out[n]`` in C order. ``STEPS_AHEAD`` is how far the schedule has moved ``step[0]`` on already."""
    now = tl.load(step) - STEPS_AHEAD
    quad = pid.to(tl.int64) * (BLOCK // 4) + tl.arange(0, BLOCK // 4)
    if KIND == "normal":
        values = normal_quads(seed, stream, now, quad, [BLOCK])
    else:
        values = uniform_quads(seed, stream, now, quad, [BLOCK])
    i = pid.to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    tl.store(out + i, values, mask=i < n)


@triton.jit
def add_noise(
    pid, x, noise, out, step, n, std, steps, DECAYS: tl.constexpr, STEPS_AHEAD: tl.constexpr, BLOCK: tl.constexpr
):
    """``out[n] = x + std noise``; where it DECAYS, ``std`` falls linearly to 0 at step ``steps``. ``out`` may be x."""
    i = pid.to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    if DECAYS:
        left = steps.to(tl.float32) - (tl.load(step) - STEPS_AHEAD).to(tl.float32)
        std = std * (tl.where(left > 0.0, left, 0.0) / steps.to(tl.float32))
    values = tl.load(x + i, mask=i < n, other=0.0) + std * tl.load(noise + i, mask=i < n, other=0.0)
    tl.store(out + i, values, mask=i < n)


# --- lowering -----------------------------------------------------------------------------------------


def noise_arguments(op: Operation) -> dict[str, Any]:
    """Arguments for noise that is drawn in the kernel, or their absence."""
    if op["seed"] is None:
        return {"step": None, "seed": None, "stream": None, "STEPS_AHEAD": 0}
    key = {"seed": int32(op["seed"]), "stream": int32(op["stream"])}
    return {"step": op["step"], **key, "STEPS_AHEAD": op["steps_ahead"]}


@lowers("random_uniform", "random_normal")
def lower_random(op: Operation, target: Target) -> list[Job]:
    n = op["out"].size
    arguments = {
        "out": op["out"],
        "n": n,
        **noise_arguments(op),
        "KIND": op.name.removeprefix("random_"),
        "BLOCK": BLOCK,
    }
    return [job(op, fill, blocks(n, BLOCK), arguments, 30 * n)]


@lowers("add_noise")
def lower_add_noise(op: Operation, target: Target) -> list[Job]:
    n, steps = op["out"].size, op["steps"]
    settings = {"std": op["std"], "steps": max(1, steps), "DECAYS": steps > 0, "STEPS_AHEAD": op["steps_ahead"]}
    return [job(op, add_noise, blocks(n, BLOCK), {**op.buffers, "n": n, **settings, "BLOCK": BLOCK}, 2 * n)]
