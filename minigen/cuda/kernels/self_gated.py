"""self_gated: ``y = z s(p(z))`` and its gradient, from ``z``. :mod:`minigen.reference.self_gated` derives both."""

from __future__ import annotations

import triton
import triton.language as tl

from minigen.cuda.kernels.activations import softplus_sigmoid
from minigen.cuda.plan.launch import Job
from minigen.cuda.plan.lowering import BLOCK, Target, blocks, job, lowers
from minigen.reference.self_gated import CUBE as GELU_CUBE
from minigen.reference.self_gated import SCALE as GELU_SCALE
from minigen.step.record import Operation

SCALE: tl.constexpr = tl.constexpr(GELU_SCALE)
CUBE: tl.constexpr = tl.constexpr(GELU_CUBE)


@triton.jit
def gate_argument(z, ACTIVATION: tl.constexpr):
    """p(z), p'(z) and p''(z); gelu's of a z that is at most 100 from 0."""
    if ACTIVATION == "gelu":
        low = tl.where(z < -100.0, -100.0, z)
        near = tl.where(low > 100.0, 100.0, low)
        square = CUBE * near * near
        p = SCALE * (near + near * square)
        slope = SCALE * (1.0 + 3.0 * square)
        bend = (6.0 * SCALE * CUBE) * near
    else:
        tl.static_assert(ACTIVATION == "silu")
        p = z
        slope = 1.0
        bend = 0.0
    return p, slope, bend


@triton.jit
def forward(pid, z, y, n, ACTIVATION: tl.constexpr, BLOCK: tl.constexpr):
    """``y[n] = act(z[n])``. ``y`` may be ``z``: each element is read and written by one program, in that order."""
    i = pid.to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    value = tl.load(z + i, mask=i < n, other=0.0)
    p, _, _ = gate_argument(value, ACTIVATION)
    _, gate = softplus_sigmoid(p)
    tl.store(y + i, value * gate, mask=i < n)


@triton.jit
def backward(pid, dy, z, dz, n, ACTIVATION: tl.constexpr, BLOCK: tl.constexpr):
    """``dz[n] = dy[n] * act'(z[n])``. ``dz`` may be ``dy``, for the same reason."""
    i = pid.to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    gradient = tl.load(dy + i, mask=i < n, other=0.0)
    value = tl.load(z + i, mask=i < n, other=0.0)
    p, slope, _ = gate_argument(value, ACTIVATION)
    _, gate = softplus_sigmoid(p)
    tl.store(dz + i, gradient * (gate + value * (gate * (1.0 - gate)) * slope), mask=i < n)


@triton.jit
def curvature(pid, dy, z_tangent, z, dz, n, ACTIVATION: tl.constexpr, ACCUMULATE: tl.constexpr, BLOCK: tl.constexpr):
    """``dz[n] = dy[n] * z_tangent[n] * act''(z[n])``, or with ACCUMULATE added."""
    i = pid.to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    value = tl.load(z + i, mask=i < n, other=0.0)
    p, slope, bend = gate_argument(value, ACTIVATION)
    _, gate = softplus_sigmoid(p)
    steep = gate * (1.0 - gate)
    second = 2.0 * steep * slope + value * (steep * (1.0 - 2.0 * gate) * slope * slope + steep * bend)
    result = tl.load(dy + i, mask=i < n, other=0.0) * tl.load(z_tangent + i, mask=i < n, other=0.0) * second
    if ACCUMULATE:
        result += tl.load(dz + i, mask=i < n, other=0.0)
    tl.debug_barrier()  # several threads may hold an element: all have read before one of them writes
    tl.store(dz + i, result, mask=i < n)


# --- lowering -----------------------------------------------------------------------------------------


@lowers("self_gated_forward", "self_gated_backward")
def lower_self_gated(op: Operation, target: Target) -> list[Job]:
    n = op["z"].size
    function = forward if op.name == "self_gated_forward" else backward
    arguments = {**op.buffers, "n": n, "ACTIVATION": op["activation"], "BLOCK": BLOCK}
    return [job(op, function, blocks(n, BLOCK), arguments, 10 * n)]


@lowers("self_gated_curvature")
def lower_curvature(op: Operation, target: Target) -> list[Job]:
    n = op["z"].size
    settings = {"ACTIVATION": op["activation"], "ACCUMULATE": op["accumulate"], "BLOCK": BLOCK}
    return [job(op, curvature, blocks(n, BLOCK), {**op.buffers, "n": n, **settings}, 20 * n)]
