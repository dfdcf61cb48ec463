"""optimizer: SGD with momentum, Adam and AdamW, RMSProp, Lion. :mod:`minigen.reference.optimizer` has the formulas.

:func:`update` is the formula on a tile, for the epilogue of a weight gradient; :func:`flat` applies it to a part of
the flat parameters. Either way a program reads and writes the p, m and v of its own elements only.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import triton
import triton.language as tl

from minigen.cuda.kernels.elementary import expm1
from minigen.cuda.plan.launch import Job
from minigen.cuda.plan.lowering import BLOCK, Target, blocks, job, lowers
from minigen.cuda.plan.tiles import power_of_two
from minigen.step.record import Operation


class Parameters(NamedTuple):
    """Parameters ``p`` and what their optimizer keeps, means ``m`` and ``v``; a velocity is called ``m``."""

    p: Any
    m: Any
    v: Any = None


class Sgd(NamedTuple):
    """``lr`` is a buffer; ``weight_decay`` is the L2 penalty's."""

    lr: Any
    momentum: float
    weight_decay: float


class RmsProp(NamedTuple):
    """``lr`` is a buffer; ``weight_decay`` is the L2 penalty's."""

    lr: Any
    beta2: float
    one_minus_beta2: float
    eps: float
    momentum: float
    weight_decay: float


class Lion(NamedTuple):
    """``lr`` is a buffer."""

    lr: Any
    beta1: float
    beta2: float
    one_minus_beta1: float
    one_minus_beta2: float
    weight_decay: float


class Adam(NamedTuple):
    """``lr`` and ``step`` are buffers; ``weight_decay`` is AdamW's, or 0. What float32 would lose of the betas comes
    from float64."""

    lr: Any
    step: Any
    beta1: float
    beta2: float
    one_minus_beta1: float
    one_minus_beta2: float
    log_beta1: float
    log_beta2: float
    eps: float
    weight_decay: float


@triton.jit
def bias_corrections(step, log_beta1, log_beta2, STEPS_AHEAD: tl.constexpr):
    """1 - beta1^t and 1 - beta2^t at t = step[0] + 1, as -expm1(t log beta): 1 - 0.999 keeps its digits."""
    t = (tl.load(step) + (1 - STEPS_AHEAD)).to(tl.float32)
    return -expm1(t * log_beta1), -expm1(t * log_beta2)


@triton.jit
def update(params, rule, offsets, mask, g, OPTIMIZER: tl.constexpr, STEPS_AHEAD: tl.constexpr):
    """Update ``params`` (:class:`Parameters`) at ``offsets`` from their gradient ``g`` (a tile).

    ``rule`` is :class:`Sgd` for ``"sgd"``, and so on.
    """
    rate = tl.load(rule.lr)
    parameter = tl.load(params.p + offsets, mask=mask, other=0.0)
    first = tl.load(params.m + offsets, mask=mask, other=0.0)
    if OPTIMIZER == "sgd":
        first = rule.momentum * first + (g + rule.weight_decay * parameter)
        parameter = parameter - rate * first
    elif OPTIMIZER == "rmsprop":
        second = tl.load(params.v + offsets, mask=mask, other=0.0)
        decayed = g + rule.weight_decay * parameter
        second = rule.beta2 * second + rule.one_minus_beta2 * (decayed * decayed)
        first = rule.momentum * first + decayed / (tl.sqrt_rn(second) + rule.eps)
        parameter = parameter - rate * first
    elif OPTIMIZER == "lion":
        blend = rule.beta1 * first + rule.one_minus_beta1 * g
        sign = tl.where(blend > 0.0, 1.0, tl.where(blend < 0.0, -1.0, blend))  # 0 and NaN are their own
        parameter = parameter - rate * (sign + rule.weight_decay * parameter)
        first = rule.beta2 * first + rule.one_minus_beta2 * g
    else:
        second = tl.load(params.v + offsets, mask=mask, other=0.0)
        correction1, correction2 = bias_corrections(rule.step, rule.log_beta1, rule.log_beta2, STEPS_AHEAD)
        first = rule.beta1 * first + rule.one_minus_beta1 * g
        second = rule.beta2 * second + rule.one_minus_beta2 * (g * g)
        parameter = parameter - (rate * rule.weight_decay) * parameter
        parameter = parameter - (rate / correction1) * first / (tl.sqrt_rn(second * (1.0 / correction2)) + rule.eps)
    # A tile smaller than the block lies in several threads at once: all must have read before one of them writes.
    tl.debug_barrier()
    if OPTIMIZER == "adam" or OPTIMIZER == "rmsprop":
        tl.store(params.v + offsets, second, mask=mask)
    tl.store(params.m + offsets, first, mask=mask)
    tl.store(params.p + offsets, parameter, mask=mask)


@triton.jit
def flat(pid, params, g, rule, n, OPTIMIZER: tl.constexpr, STEPS_AHEAD: tl.constexpr, BLOCK: tl.constexpr):
    """One update of the ``n`` parameters of ``params`` from ``g[n]``."""
    i = pid.to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    update(params, rule, i, i < n, tl.load(g + i, mask=i < n, other=0.0), OPTIMIZER, STEPS_AHEAD)


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
def flag_non_finite(pid, x, flags, n, BLOCK: tl.constexpr):
    """``flags[pid]`` (int32) is 1 if any of the program's elements of ``x[n]`` is NaN or infinite, else 0."""
    i = pid.to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    finite = tl.abs(tl.load(x + i, mask=i < n, other=0.0)) < float("inf")  # no comparison with NaN holds
    tl.store(flags + pid, tl.max(tl.where(finite, 0, 1), axis=0))


# --- lowering -----------------------------------------------------------------------------------------

NO_UPDATE = {"weights": None, "bias": None, "rule": None, "OPTIMIZER": None, "STEPS_AHEAD": 0}
"""Arguments of a gradient that is stored."""


def rule_of(op: Operation) -> Sgd | RmsProp | Lion | Adam:
    """The settings of an update."""
    beta1, beta2, decay = op["beta1"], op["beta2"], op["weight_decay"]
    if op["optimizer"] == "sgd":
        return Sgd(op["lr"], op["momentum"], decay)
    if op["optimizer"] == "rmsprop":
        return RmsProp(op["lr"], beta2, 1 - beta2, op["eps"], op["momentum"], decay)
    if op["optimizer"] == "lion":
        return Lion(op["lr"], beta1, beta2, 1 - beta1, 1 - beta2, decay)
    log_beta1, log_beta2 = (math.log(beta) if beta > 0 else -math.inf for beta in (beta1, beta2))
    return Adam(
        lr=op["lr"],
        step=op["step"],
        beta1=beta1,
        beta2=beta2,
        one_minus_beta1=1 - beta1,
        one_minus_beta2=1 - beta2,
        log_beta1=log_beta1,
        log_beta2=log_beta2,
        eps=op["eps"],
        weight_decay=decay,
    )


def update_arguments(op: Operation) -> dict[str, Any]:
    """Arguments for an update in a gradient's epilogue, or their absence."""
    if op["optimizer"] is None:
        return NO_UPDATE
    return {
        "weights": Parameters(op["W"], op["W_m"], op["W_v"]),
        "bias": Parameters(op["b"], op["b_m"], op["b_v"]),
        "rule": rule_of(op),
        "OPTIMIZER": op["optimizer"],
        "STEPS_AHEAD": op["steps_ahead"],
    }


@lowers("optimizer")
def lower_update(op: Operation, target: Target) -> list[Job]:
    n = op["p"].size
    arguments = {
        "params": Parameters(op["p"], op["m"], op["v"]),
        "g": op["g"],
        "rule": rule_of(op),
        "n": n,
        "OPTIMIZER": op["optimizer"],
        "STEPS_AHEAD": op["steps_ahead"],
        "BLOCK": BLOCK,
    }
    flops = n * {"sgd": 6, "lion": 11, "rmsprop": 12, "adam": 14}[op["optimizer"]]
    return [job(op, flat, blocks(n, BLOCK), arguments, flops)]


@lowers("advance")
def lower_advance(op: Operation, target: Target) -> list[Job]:
    T, K = op["history"].shape
    arguments = {
        "step": op["step"],
        "losses": op["losses"],
        "history": op["history"],
        "T": T,
        "K": K,
        "BLOCK": power_of_two(K),
    }
    return [job(op, advance, 1, arguments)]


@lowers("is_finite")
def lower_is_finite(op: Operation, target: Target) -> list[Job]:
    arguments = {"x": op["x"], "flags": op["flags"], "n": op["x"].size, "BLOCK": BLOCK}
    return [job(op, flag_non_finite, len(op["flags"]), arguments)]
