"""activations: ``y = act(z)`` and its derivative from the stored ``y``.

:mod:`minigen.reference.activations` derives both. The first two functions are the formulas, which the other kernels use
in their epilogues; the kernels below apply them to a whole buffer.
"""

from __future__ import annotations

import triton
import triton.language as tl

from minigen.backend import LEAKY_SLOPE
from minigen.cuda.kernels.elementary import exp_negative, expm1, log1p_unit, tanh
from minigen.cuda.plan.launch import Job
from minigen.cuda.plan.lowering import BLOCK, Target, blocks, job, lowers
from minigen.step.record import Operation

SLOPE: tl.constexpr = tl.constexpr(LEAKY_SLOPE)


@triton.jit
def softplus_sigmoid(z):
    """softplus(z) and sigmoid(z), which share e^-|z|."""
    e = exp_negative(-tl.abs(z))
    positive = tl.where(z < 0.0, 0.0, z)  # NaN stays NaN
    return positive + log1p_unit(e), tl.where(z < 0.0, e, 1.0) / (1.0 + e)


@triton.jit
def activate(z, ACTIVATION: tl.constexpr):
    """act(z)."""
    if ACTIVATION == "relu":
        y = tl.where(z < 0.0, 0.0, z)
    elif ACTIVATION == "leaky_relu":
        y = tl.where(z > 0.0, z, SLOPE * z)
    elif ACTIVATION == "elu":
        y = tl.where(z > 0.0, z, expm1(z))
    elif ACTIVATION == "tanh":
        y = tanh(z)
    elif ACTIVATION == "sigmoid":
        _, y = softplus_sigmoid(z)
    elif ACTIVATION == "softplus":
        y, _ = softplus_sigmoid(z)
    else:
        tl.static_assert(ACTIVATION == "linear")
        y = z
    return y


@triton.jit
def by_sign(y, low, high):
    """``low`` where y <= 0, ``high`` where y > 0, and a NaN where y is one."""
    return tl.where(y > 0.0, high, tl.where(y <= 0.0, low, y))


@triton.jit
def differentiate(dy, y, ACTIVATION: tl.constexpr):
    """dy * act'(z), with act'(z) from y = act(z). NaN in y stays NaN, except of linear, which does not depend on y."""
    if ACTIVATION == "relu":
        dz = dy * by_sign(y, 0.0, 1.0)
    elif ACTIVATION == "leaky_relu":
        dz = dy * by_sign(y, SLOPE, 1.0)
    elif ACTIVATION == "elu":
        dz = dy * tl.where(y > 0.0, 1.0, y + 1.0)
    elif ACTIVATION == "tanh":
        dz = dy * ((1.0 - y) * (1.0 + y))  # 1 - y is exact where it is small
    elif ACTIVATION == "sigmoid":
        dz = dy * (y * (1.0 - y))
    elif ACTIVATION == "softplus":
        dz = dy * -expm1(-y)
    else:
        tl.static_assert(ACTIVATION == "linear")
        dz = dy
    return dz


@triton.jit
def bend(y, ACTIVATION: tl.constexpr):
    """act''(z) / act'(z) from y = act(z). NaN as in differentiate."""
    if ACTIVATION == "elu":
        ratio = by_sign(y, 1.0, 0.0)
    elif ACTIVATION == "tanh":
        ratio = -2.0 * y
    elif ACTIVATION == "sigmoid":
        ratio = 1.0 - 2.0 * y
    elif ACTIVATION == "softplus":
        ratio = exp_negative(-y)
    elif ACTIVATION == "relu" or ACTIVATION == "leaky_relu":
        ratio = by_sign(y, 0.0, 0.0)
    else:
        tl.static_assert(ACTIVATION == "linear")
        ratio = tl.zeros_like(y)
    return ratio


@triton.jit
def forward(pid, z, y, n, ACTIVATION: tl.constexpr, BLOCK: tl.constexpr):
    """``y[n] = act(z[n])``. ``y`` may be ``z``: each element is read and written by one program, in that order."""
    i = pid.to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    tl.store(y + i, activate(tl.load(z + i, mask=i < n, other=0.0), ACTIVATION), mask=i < n)


@triton.jit
def backward(pid, dy, y, dz, n, ACTIVATION: tl.constexpr, BLOCK: tl.constexpr):
    """``dz[n] = dy[n] * act'(z)`` from ``y[n]``. ``dz`` may be ``dy``, for the same reason."""
    i = pid.to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    gradient = tl.load(dy + i, mask=i < n, other=0.0)
    output = tl.load(y + i, mask=i < n, other=0.0)
    tl.store(dz + i, differentiate(gradient, output, ACTIVATION), mask=i < n)


@triton.jit
def curvature(pid, dz, z_tangent, y, e, n, ACTIVATION: tl.constexpr, ACCUMULATE: tl.constexpr, BLOCK: tl.constexpr):
    """``e[n] = dz[n] * z_tangent[n] * act''(z) / act'(z)`` from ``y[n]``, or that added to ``e``."""
    i = pid.to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    product = tl.load(dz + i, mask=i < n, other=0.0) * tl.load(z_tangent + i, mask=i < n, other=0.0)
    term = product * bend(tl.load(y + i, mask=i < n, other=0.0), ACTIVATION)
    if ACCUMULATE:
        term += tl.load(e + i, mask=i < n, other=0.0)
    tl.store(e + i, term, mask=i < n)


# --- lowering -----------------------------------------------------------------------------------------


@lowers("activation_forward", "activation_backward")
def lower_activation(op: Operation, target: Target) -> list[Job]:
    n = op["y"].size
    function = forward if op.name == "activation_forward" else backward
    arguments = {**op.buffers, "n": n, "ACTIVATION": op["activation"], "BLOCK": BLOCK}
    return [job(op, function, blocks(n, BLOCK), arguments, n)]


@lowers("activation_curvature")
def lower_curvature(op: Operation, target: Target) -> list[Job]:
    n = op["y"].size
    settings = {"ACTIVATION": op["activation"], "ACCUMULATE": bool(op["accumulate"]), "BLOCK": BLOCK}
    return [job(op, curvature, blocks(n, BLOCK), {**op.buffers, "n": n, **settings}, 3 * n)]


@lowers("copy")
def lower_copy(op: Operation, target: Target) -> list[Job]:
    """``y = z``, which is the linear activation."""
    n = op["y"].size
    arguments = {"z": op["z"], "y": op["y"], "n": n, "ACTIVATION": "linear", "BLOCK": 256}
    return [job(op, forward, blocks(n, 256), arguments)]
