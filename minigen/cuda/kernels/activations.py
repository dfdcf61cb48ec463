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
def differentiate(dy, y, ACTIVATION: tl.constexpr):
    """dy * act'(z), with act'(z) from y = act(z)."""
    if ACTIVATION == "relu":
        dz = dy * tl.where(y > 0.0, 1.0, 0.0)
    elif ACTIVATION == "leaky_relu":
        dz = dy * tl.where(y > 0.0, 1.0, SLOPE)
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


# --- lowering -----------------------------------------------------------------------------------------


@lowers("activation_forward", "activation_backward")
def lower_activation(op: Operation, target: Target) -> list[Job]:
    n = op["y"].size
    function = forward if op.name == "activation_forward" else backward
    arguments = {**op.buffers, "n": n, "ACTIVATION": op["activation"], "BLOCK": BLOCK}
    return [job(op, function, blocks(n, BLOCK), arguments, n)]


@lowers("copy")
def lower_copy(op: Operation, target: Target) -> list[Job]:
    """``y = z``, which is the linear activation."""
    n = op["y"].size
    arguments = {"z": op["z"], "y": op["y"], "n": n, "ACTIVATION": "linear", "BLOCK": 256}
    return [job(op, forward, blocks(n, 256), arguments)]
