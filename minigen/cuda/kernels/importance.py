"""importance: several draws of a VAE's latent, weighted. :mod:`minigen.reference.importance` derives everything.

R rows of draws belong to B rows of data: row r to row ``r % B``.
"""

from __future__ import annotations

import numpy as np
import triton
import triton.language as tl

from minigen.cuda.kernels.elementary import exp, exp_negative, log
from minigen.cuda.kernels.latent import LOGVAR_LIMIT, clamp_logvar, latent_block, load_half, store_half
from minigen.cuda.kernels.matmul import load, store
from minigen.cuda.kernels.vae_loss import finish_rows_job
from minigen.cuda.plan.launch import Job
from minigen.cuda.plan.lowering import BLOCK, Target, blocks, job, lowers
from minigen.step.record import Operation


@triton.jit
def repeat(pid, x, y, B, D: tl.constexpr, BLOCK: tl.constexpr):
    """``y[r] = x[r % B]``, BLOCK elements of a row at a time."""
    per_row = (D + BLOCK - 1) // BLOCK
    row = (pid // per_row).to(tl.int64)
    columns = (pid % per_row) * BLOCK + tl.arange(0, BLOCK)
    inside = columns < D
    tl.store(y + row * D + columns, tl.load(x + (row % B) * D + columns, mask=inside, other=0.0), mask=inside)


@triton.jit
def sample(pid, heads, eps, z, ratios, B, R, L: tl.constexpr, BM: tl.constexpr, BL: tl.constexpr):
    """``z[R,L]`` and ``ratios[R]``."""
    rows = (pid * BM + tl.arange(0, BM)).to(tl.int64)
    columns = tl.arange(0, BL)
    mu = load_half(heads, rows % B, columns, B, L)
    logvar = clamp_logvar(load_half(heads + L, rows % B, columns, B, L))
    noise = load(eps, rows, columns, R, L)
    drawn = mu + exp(logvar * 0.5) * noise
    store(z, rows, columns, R, L, drawn)
    terms = tl.where((columns < L)[None, :], (drawn * drawn - noise * noise) - logvar, 0.0)
    tl.store(ratios + rows, tl.sum(terms, axis=1) * 0.5, mask=rows < R)


@triton.jit
def weigh(pid, nats, ratios, weights, losses, B, draws, BLOCK: tl.constexpr):
    """``weights[R]``, and ``losses[B]``: each program has BLOCK rows of data, and walks through their draws."""
    rows = (pid * BLOCK + tl.arange(0, BLOCK)).to(tl.int64)
    mask = rows < B
    least = tl.load(nats + rows, mask=mask, other=0.0) + tl.load(ratios + rows, mask=mask, other=0.0)
    for i in range(1, draws):
        at = rows + i * B
        surprise = tl.load(nats + at, mask=mask, other=0.0) + tl.load(ratios + at, mask=mask, other=0.0)
        least = tl.where(surprise < least, surprise, least)
    total = tl.zeros([BLOCK], tl.float32)
    for i in range(0, draws):
        at = rows + i * B
        surprise = tl.load(nats + at, mask=mask, other=0.0) + tl.load(ratios + at, mask=mask, other=0.0)
        total += exp_negative(least - surprise)
    scale = draws.to(tl.float32) / total
    for i in range(0, draws):
        at = rows + i * B
        surprise = tl.load(nats + at, mask=mask, other=0.0) + tl.load(ratios + at, mask=mask, other=0.0)
        tl.store(weights + at, exp_negative(least - surprise) * scale, mask=mask)
    tl.store(losses + rows, least + log(scale), mask=mask)


@triton.jit
def scale_rows(pid, g, weights, D: tl.constexpr, BLOCK: tl.constexpr):
    """``g[r] *= weights[r]``, in place."""
    per_row = (D + BLOCK - 1) // BLOCK
    row = (pid // per_row).to(tl.int64)
    columns = (pid % per_row) * BLOCK + tl.arange(0, BLOCK)
    inside = columns < D
    tl.store(g + row * D + columns, tl.load(g + row * D + columns, mask=inside) * tl.load(weights + row), mask=inside)


@triton.jit
def backward(pid, dz, z, heads, eps, weights, dheads, B, R, L: tl.constexpr, BM: tl.constexpr, BL: tl.constexpr):
    """``dheads[B,2L]``: each program has BM rows of data, and adds up their draws in order."""
    rows = (pid * BM + tl.arange(0, BM)).to(tl.int64)
    columns = tl.arange(0, BL)
    h = load_half(heads + L, rows, columns, B, L)
    half_sigma = exp(clamp_logvar(h) * 0.5) * 0.5
    dmu = tl.zeros([BM, BL], tl.float32)
    dh = tl.zeros([BM, BL], tl.float32)
    for first in range(0, R, B):
        own = rows < B
        at = tl.where(own, rows + first, R)
        share = (tl.load(weights + at, mask=at < R, other=0.0) / R.to(tl.float32))[:, None]
        g = load(dz, at, columns, R, L) + share * load(z, at, columns, R, L)
        dmu += g
        dh += g * load(eps, at, columns, R, L) * half_sigma - 0.5 * share
    store_half(dheads, rows, columns, B, L, dmu)
    store_half(dheads + L, rows, columns, B, L, tl.where(h > LOGVAR_LIMIT, 0.0, dh))


# --- lowering -----------------------------------------------------------------------------------------


@lowers("repeat_rows")
def lower_repeat(op: Operation, target: Target) -> list[Job]:
    (R, D), B = op["y"].shape, len(op["x"])
    arguments = {"x": op["x"], "y": op["y"], "B": B, "D": D, "BLOCK": BLOCK}
    return [job(op, repeat, R * blocks(D, BLOCK), arguments)]


@lowers("importance_sample")
def lower_sample(op: Operation, target: Target) -> list[Job]:
    (R, L), B = op["z"].shape, len(op["heads"])
    BM, BL = latent_block(L)
    arguments = {"heads": op["heads"], "eps": op["eps"], "z": op["z"], "ratios": op["rows"], "B": B, "R": R}
    arguments |= {"L": L, "BM": BM, "BL": BL}
    first = job(op, sample, blocks(R, BM), arguments, 20 * R * L, writes=(op["z"], op["rows"]))
    return [first, finish_rows_job(op, op["rows"].reshape(R, 1), None, 0.0)]


@lowers("importance_weights")
def lower_weights(op: Operation, target: Target) -> list[Job]:
    R, draws = len(op["weights"]), op["draws"]
    losses = target.empty((R // draws, 1), np.float32)
    arguments = {"nats": op["nats"], "ratios": op["ratios"], "weights": op["weights"], "losses": losses}
    arguments |= {"B": R // draws, "draws": draws, "BLOCK": 128}
    first = job(op, weigh, blocks(R // draws, 128), arguments, 20 * R, writes=(op["weights"], losses))
    return [first, finish_rows_job(op, losses, None, 0.0)]


@lowers("scale_rows")
def lower_scale(op: Operation, target: Target) -> list[Job]:
    R, D = op["g"].shape
    arguments = {"g": op["g"], "weights": op["weights"], "D": D, "BLOCK": BLOCK}
    return [job(op, scale_rows, R * blocks(D, BLOCK), arguments, R * D)]


@lowers("importance_backward")
def lower_backward(op: Operation, target: Target) -> list[Job]:
    (R, L), B = op["z"].shape, len(op["heads"])
    BM, BL = latent_block(L)
    arguments = {**op.buffers, "B": B, "R": R, "L": L, "BM": BM, "BL": BL}
    return [job(op, backward, blocks(B, BM), arguments, 20 * R * L)]
