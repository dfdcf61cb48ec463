"""optimizer: SGD with momentum, Adam and AdamW. :mod:`minigen.reference.optimizer` gives the formulas.

:func:`update` is the formula on a tile, for the epilogue of a weight gradient; :func:`flat` applies it to a stretch of
the flat parameters. Either way a program reads and writes the p, m and v of its own elements only.
"""

from __future__ import annotations

import triton
import triton.language as tl

from minigen.cuda.kernels.elementary import expm1


@triton.jit
def bias_corrections(step, log_beta1, log_beta2, STEPS_AHEAD: tl.constexpr):
    """1 - beta1^t and 1 - beta2^t at t = step[0] + 1, as -expm1(t log beta): 1 - 0.999 keeps its digits."""
    t = (tl.load(step) + (1 - STEPS_AHEAD)).to(tl.float32)
    return -expm1(t * log_beta1), -expm1(t * log_beta2)


@triton.jit
def update(state, rule, offsets, mask, g, OPTIMIZER: tl.constexpr, STEPS_AHEAD: tl.constexpr):
    """Update the parameters at ``offsets`` from their gradient ``g`` (a tile).

    ``state`` is (p, m, v); ``rule`` (lr, step, beta1, beta2, rest1, rest2, log_beta1, log_beta2, eps, decay) with
    rest = 1 - beta and the logarithms from float64. For ``"sgd"``, m is the velocity, beta1 the momentum and decay the
    L2 weight decay; v and the others are not used. For ``"adam"``, decay is AdamW's, or 0.
    """
    p, m, v = state
    lr, step, beta1, beta2, rest1, rest2, log_beta1, log_beta2, eps, decay = rule
    rate = tl.load(lr)
    parameter = tl.load(p + offsets, mask=mask, other=0.0)
    first = tl.load(m + offsets, mask=mask, other=0.0)
    if OPTIMIZER == "sgd":
        first = beta1 * first + (g + decay * parameter)
        parameter = parameter - rate * first
    else:
        second = tl.load(v + offsets, mask=mask, other=0.0)
        correction1, correction2 = bias_corrections(step, log_beta1, log_beta2, STEPS_AHEAD)
        first = beta1 * first + rest1 * g
        second = beta2 * second + rest2 * (g * g)
        parameter = parameter - (rate * decay) * parameter
        parameter = parameter - (rate / correction1) * first / (tl.sqrt_rn(second * (1.0 / correction2)) + eps)
    # A tile smaller than the block lies in several threads at once: all must have read before one of them writes.
    tl.debug_barrier()
    if OPTIMIZER != "sgd":
        tl.store(v + offsets, second, mask=mask)
    tl.store(m + offsets, first, mask=mask)
    tl.store(p + offsets, parameter, mask=mask)


@triton.jit
def flat(pid, state, g, rule, n, OPTIMIZER: tl.constexpr, STEPS_AHEAD: tl.constexpr, BLOCK: tl.constexpr):
    """One update of the ``n`` parameters of ``state`` from ``g[n]``."""
    i = pid.to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    update(state, rule, i, i < n, tl.load(g + i, mask=i < n, other=0.0), OPTIMIZER, STEPS_AHEAD)


@triton.jit
def advance(pid, step, losses, history, T, K: tl.constexpr, BLOCK: tl.constexpr):
    """``history[step % T] = losses[K]``, then ``step += 1``. One program: it alone touches ``step``."""
    now = tl.load(step)
    column = pid + tl.arange(0, BLOCK)
    row = (now % T.to(tl.uint64)).to(tl.int64)
    tl.store(history + row * K + column, tl.load(losses + column, mask=column < K, other=0.0), mask=column < K)
    tl.debug_barrier()  # every thread has read ``step`` before one of them writes it
    tl.store(step, now + 1)


@triton.jit
def look_for_non_finite(pid, x, flags, n, BLOCK: tl.constexpr):
    """``flags[pid]`` (int32) is 1 if any of the program's elements of ``x[n]`` is NaN or infinite, else 0."""
    i = pid.to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    finite = tl.abs(tl.load(x + i, mask=i < n, other=0.0)) < float("inf")  # no comparison with NaN holds
    tl.store(flags + pid, tl.max(tl.where(finite, 0, 1), axis=0))
