"""gan_loss: the two players' losses and gradients from logits s. :mod:`minigen.reference.gan_loss` derives them.

D's last layer has one output, so its logit is a sum over the hidden units ``h[B,H]``. A launch of its own for each of
logit, loss, dlogits, the head's gradients and the hidden delta would be five that move a few kilobytes. Instead

1. the layer that makes ``h`` also stores ``scores[B,PARTS]``: for each tile of its columns, their share
   ``sum_j h[r,j] w[j]`` of the logit (:func:`minigen.cuda.kernels.dense.forward`; the bias joins the first share);
2. a kernel that needs ``dz[r,j] = ds[r] w[j] act'(z[r,j])`` sums the shares of its rows, always in the same order, and
   computes it where it would load it (:func:`delta`);
3. :func:`head` makes the loss and the gradients of ``w`` and its bias, or updates them.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import triton
import triton.language as tl

from minigen.cuda.kernels.activations import differentiate, softplus_sigmoid
from minigen.cuda.kernels.matmul import left_offsets, sums_in_pairs
from minigen.cuda.kernels.optimizer import update, update_arguments
from minigen.cuda.plan.launch import Job
from minigen.cuda.plan.lowering import BLOCK, Target, blocks, job, lowers
from minigen.cuda.plan.tiles import power_of_two
from minigen.step.record import Operation


class Hidden(NamedTuple):
    """D's last hidden layer and what its delta follows from: ``h[B,H]``, ``scores[B,PARTS]``, the weights ``w[H]`` of
    the one-output layer behind it, how many of the rows are real, and the smoothing of their label, or None."""

    h: Any
    scores: Any
    w: Any
    n_real: int
    smoothing: float | None


GAMES = {
    # loss: the discriminator's terms, the generator's, and whether the generator's is the term of real rows
    "non_saturating": ("logistic", "logistic", True),
    "minimax": ("logistic", "minus_logistic", False),
    "least_squares": ("least_squares", "least_squares", True),
    "hinge": ("hinge", "minus", True),
    "wasserstein": ("wasserstein", "minus", True),
}


@triton.jit
def term(s, real, TERMS: tl.constexpr):
    """A logit's term of the loss and its derivative: of a ``real`` row or of a generated one. NaN stays NaN."""
    if TERMS == "least_squares":
        slope = s - tl.where(real, 1.0, 0.0)
        loss = 0.5 * slope * slope
    elif TERMS == "hinge":
        sign = tl.where(real, -1.0, 1.0)
        margin = 1.0 + sign * s
        loss = tl.where(margin <= 0.0, 0.0, margin)
        slope = sign * tl.where(margin <= 0.0, 0.0, tl.where(margin > 0.0, 1.0, margin))
    elif TERMS == "wasserstein":
        slope = tl.where(real, -1.0, 1.0) + 0.0 * s
        loss = slope * s
    elif TERMS == "minus":
        loss = -s
        slope = tl.full(s.shape, -1.0, tl.float32)
    else:
        sign = tl.where(real, -1.0, 1.0)
        loss, probability = softplus_sigmoid(sign * s)
        slope = sign * probability
        if TERMS == "minus_logistic":
            loss = -loss
            slope = -slope
        else:
            tl.static_assert(TERMS == "logistic")
    return loss, slope


@triton.jit
def terms(s, rows, B, n_real, smoothing, LOSS: tl.constexpr):
    """Each row's share of the loss, and dloss/ds; 0 for rows beyond B. The rows below ``n_real`` have the real term,
    with so much of the other in it as ``smoothing`` says where that is not None."""
    real = rows < n_real
    count = tl.where(real, n_real, tl.maximum(B - n_real, 1)).to(tl.float32)
    loss, slope = term(s, real, LOSS)
    if smoothing is not None:
        other_loss, other_slope = term(s, rows < 0, LOSS)
        loss = tl.where(real, (1.0 - smoothing) * loss + smoothing * other_loss, loss)
        slope = tl.where(real, (1.0 - smoothing) * slope + smoothing * other_slope, slope)
    share = 1.0 / count
    return tl.where(rows < B, loss * share, 0.0), tl.where(rows < B, slope * share, 0.0)


@triton.jit
def sum_scores(scores, rows, B, PARTS: tl.constexpr, WIDTH: tl.constexpr):
    """The logits of ``rows``: ``scores[B,PARTS]`` summed, WIDTH the power of two that holds PARTS."""
    parts = tl.arange(0, WIDTH)
    mask = (rows < B)[:, None] & (parts < PARTS)[None, :]
    shares = tl.load(scores + rows[:, None] * PARTS + parts[None, :], mask=mask, other=0.0)
    return tl.reshape(sums_in_pairs(shares, WIDTH), rows.shape)


@triton.jit
def delta(
    hidden, rows, columns, B,
    H: tl.constexpr, ACTIVATION: tl.constexpr, LOSS: tl.constexpr, PARTS: tl.constexpr, WIDTH: tl.constexpr,
):  # fmt: skip
    """Tile of the hidden layer's ``dz[B,H]``; ``hidden`` is a :class:`Hidden`."""
    _, slope = terms(sum_scores(hidden.scores, rows, B, PARTS, WIDTH), rows, B, hidden.n_real, hidden.smoothing, LOSS)
    weight = tl.load(hidden.w + columns, mask=columns < H, other=0.0)
    mask = (rows < B)[:, None] & (columns < H)[None, :]
    y = tl.load(hidden.h + rows[:, None] * H + columns[None, :], mask=mask, other=0.0)
    return differentiate(slope[:, None] * weight[None, :], y, ACTIVATION)


@triton.jit
def delta_transposed(
    hidden, first, columns, B,
    H: tl.constexpr, ACTIVATION: tl.constexpr, LOSS: tl.constexpr, PARTS: tl.constexpr, WIDTH: tl.constexpr,
    BK: tl.constexpr, SPLIT: tl.constexpr,
):  # fmt: skip
    """:func:`delta` of the rows from ``first`` on, transposed: ``[columns, BK]``, or ``[SPLIT, columns, BK]``."""
    rows = first + tl.arange(0, SPLIT * BK)
    _, slope = terms(sum_scores(hidden.scores, rows, B, PARTS, WIDTH), rows, B, hidden.n_real, hidden.smoothing, LOSS)
    weight = tl.load(hidden.w + columns, mask=columns < H, other=0.0)
    rows, columns = left_offsets(first, columns, BK, SPLIT)
    y = tl.load(hidden.h + rows * H + columns, mask=(rows < B) & (columns < H), other=0.0)
    if SPLIT > 1:
        dy = tl.reshape(slope, [SPLIT, BK])[:, None, :] * weight[None, :, None]
    else:
        dy = slope[None, :] * weight[:, None]
    return differentiate(dy, y, ACTIVATION)


@triton.jit
def head(
    pid, hidden, loss, dw, db, weights, bias, rule, B,
    H: tl.constexpr, LOSS: tl.constexpr, PARTS: tl.constexpr, WIDTH: tl.constexpr, OPTIMIZER: tl.constexpr,
    STEPS_AHEAD: tl.constexpr, ROWS: tl.constexpr, COLS: tl.constexpr,
):  # fmt: skip
    """The loss, and the gradients ``dw[H] = h^T ds`` and ``db = sum ds`` of the one-output layer.

    With an OPTIMIZER the gradients update ``weights`` and ``bias`` (each p, m, v) and are not stored; without one, or
    where ``dw`` is None, they are stored or left out. A program owns its COLS entries of w, the first one b and the
    loss too. ``hidden`` holds a copy of w where another job of the launch reads w, since this one writes it.
    """
    columns = pid * COLS + tl.arange(0, COLS)
    dw_sum = tl.zeros([COLS], tl.float32)
    db_sum = tl.zeros([ROWS], tl.float32)
    loss_sum = tl.zeros([ROWS], tl.float32)
    for r in range(0, B, ROWS):
        rows = (r + tl.arange(0, ROWS)).to(tl.int64)
        logits = sum_scores(hidden.scores, rows, B, PARTS, WIDTH)
        term, slope = terms(logits, rows, B, hidden.n_real, hidden.smoothing, LOSS)
        loss_sum += term
        db_sum += slope
        if dw is not None or OPTIMIZER is not None:
            mask = (rows < B)[:, None] & (columns < H)[None, :]
            y = tl.load(hidden.h + rows[:, None] * H + columns[None, :], mask=mask, other=0.0)
            dw_sum += tl.sum(slope[:, None] * y, axis=0)
    if OPTIMIZER is not None:
        update(weights, rule, columns, columns < H, dw_sum, OPTIMIZER, STEPS_AHEAD)
    elif dw is not None:
        tl.store(dw + columns, dw_sum, mask=columns < H)
    if pid == 0:
        tl.store(loss, tl.sum(loss_sum, axis=0))
        one = tl.arange(0, 1)
        if OPTIMIZER is not None:
            update(bias, rule, one, one < 1, tl.sum(db_sum, axis=0) + one * 0.0, OPTIMIZER, STEPS_AHEAD)
        elif dw is not None:
            tl.store(db, tl.sum(db_sum, axis=0))


@triton.jit
def from_logits(pid, logits, dlogits, loss, n_real, smoothing, B, LOSS: tl.constexpr, ROWS: tl.constexpr):
    """``loss[0]`` and ``dlogits[B,1]`` from stored ``logits[B,1]``. One program, which sums the rows in order."""
    loss_sum = tl.zeros([ROWS], tl.float32)
    for r in range(0, B, ROWS):
        rows = (pid + r + tl.arange(0, ROWS)).to(tl.int64)
        s = tl.load(logits + rows, mask=rows < B, other=0.0)
        term, slope = terms(s, rows, B, n_real, smoothing, LOSS)
        loss_sum += term
        tl.store(dlogits + rows, slope, mask=rows < B)
    tl.store(loss, tl.sum(loss_sum, axis=0))


# --- lowering -----------------------------------------------------------------------------------------


def smoothing_of(op: Operation) -> float | None:
    """The smoothing of the real rows' label: None where there is none, and the kernel then has nothing of it."""
    return op["smoothing"] or None


def game_of(op: Operation, B: int) -> tuple[str, int]:
    """LOSS, and how many of the ``B`` rows have the real term."""
    of_discriminator, of_generator, real = GAMES[op["kind"]]
    return (of_discriminator, op["n_real"]) if op["player"] == "discriminator" else (of_generator, B if real else 0)


def hidden_arguments(op: Operation) -> dict[str, Any]:
    """Arguments for a ``dz`` that is computed from the head behind the layer, or their absence."""
    if op["dz"] is not None:
        return {"hidden": None, "HIDDEN": None, "LOSS": None, "PARTS": 0, "WIDTH": 0}
    B, parts = op["scores"].shape
    loss, n_real = game_of(op, B)
    return {
        "hidden": Hidden(op["h"], op["scores"], op["head_w"], n_real, smoothing_of(op)),
        "HIDDEN": op["hidden_activation"],
        "LOSS": loss,
        "PARTS": parts,
        "WIDTH": power_of_two(parts),
    }


@lowers("gan_loss")
def lower_loss(op: Operation, target: Target) -> list[Job]:
    B = len(op["logits"])
    loss, n_real = game_of(op, B)
    arguments = {**op.buffers, "n_real": n_real, "smoothing": smoothing_of(op), "B": B, "LOSS": loss, "ROWS": BLOCK}
    return [job(op, from_logits, 1, arguments, 10 * B)]


@lowers("gan_head")
def lower_head(op: Operation, target: Target) -> list[Job]:
    B, H = op["h"].shape
    parts, columns = op["scores"].shape[1], 32
    loss, n_real = game_of(op, B)
    arguments = {
        "hidden": Hidden(op["h"], op["scores"], None, n_real, smoothing_of(op)),
        "loss": op["loss"],
        "dw": op["dW"],
        "db": op["db"],
        **update_arguments(op),
        "B": B,
        "H": H,
        "LOSS": loss,
        "PARTS": parts,
        "WIDTH": power_of_two(parts),
        "ROWS": 64,
        "COLS": columns,
    }
    gradients = op["dW"] is not None or op["optimizer"] is not None
    programs = blocks(H, columns) if gradients else 1
    return [job(op, head, programs, arguments, 2 * B * H * gradients + 10 * B)]
