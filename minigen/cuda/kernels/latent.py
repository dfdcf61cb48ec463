"""latent: the VAE's sample ``z`` and its KL divergence. :mod:`minigen.reference.latent` derives forward and backward.

The latent layer is narrow (20 beside 400 and 784), so the three layers around it would leave most of a GPU idle and
cost a launch each. :func:`sample_and_decode` and :func:`backward_through` do all three in one: every program computes
the latents of its rows, though others do too, and from them its own tile of the wide layer that follows. Only the
first column of tiles stores the latents, and no program of the launch reads them from memory.
"""

from __future__ import annotations

from dataclasses import replace

import triton
import triton.language as tl

from minigen.cuda.kernels.activations import differentiate
from minigen.cuda.kernels.dense import epilogue, product_transposed
from minigen.cuda.kernels.elementary import exp, expm1
from minigen.cuda.kernels.matmul import (
    dot,
    load,
    load_left,
    reduce_split_k,
    right_offsets,
    store,
    sums_in_pairs,
    tile_of,
    zero_acc,
)
from minigen.cuda.kernels.random import noise_arguments, normal_tile
from minigen.cuda.kernels.vae_loss import finish_rows_job
from minigen.cuda.plan import tiles
from minigen.cuda.plan.launch import Job
from minigen.cuda.plan.lowering import BLOCK, Target, blocks, job, lowers, product_tile, tile_arguments
from minigen.step.record import Operation

LOGVAR_LIMIT: tl.constexpr = tl.constexpr(40.0)


@triton.jit
def clamp_logvar(h):
    """logvar from what the encoder gives; NaN stays NaN."""
    return tl.where(h > LOGVAR_LIMIT, LOGVAR_LIMIT, h)


@triton.jit
def twice_kl(mu, logvar):
    """KL of N(mu, e^logvar) to N(0, 1): half of this."""
    return mu * mu + (expm1(logvar) - logvar)


@triton.jit
def heads_gradient(dz, mu, h, eps, beta_share):
    """dmu and dh, of logvar before its bound; ``beta_share`` is the weight of the KL over B."""
    logvar = clamp_logvar(h)
    dmu = dz + beta_share * mu
    dlogvar = dz * eps * exp(logvar * 0.5) * 0.5 + (0.5 * beta_share) * expm1(logvar)
    return dmu, tl.where(h > LOGVAR_LIMIT, 0.0, dlogvar)


@triton.jit
def load_half(base, rows, columns, height, L: tl.constexpr):
    """Tile of the first L columns of ``base[height, 2L]``, 0 outside; ``base + L`` has the other half."""
    mask = (rows < height)[:, None] & (columns < L)[None, :]
    return tl.load(base + rows[:, None] * (2 * L) + columns[None, :], mask=mask, other=0.0)


@triton.jit
def load_half_right(base, first, columns, height, L: tl.constexpr, BK: tl.constexpr, SPLIT: tl.constexpr):
    """The same of BK rows from ``first`` on, or SPLIT such tiles, as :func:`minigen.cuda.kernels.matmul.load_right`."""
    rows, columns = right_offsets(first, columns, BK, SPLIT)
    return tl.load(base + rows * (2 * L) + columns, mask=(rows < height) & (columns < L), other=0.0)


@triton.jit
def store_half(base, rows, columns, height, L: tl.constexpr, tile):
    """Write what :func:`load_half` reads."""
    mask = (rows < height)[:, None] & (columns < L)[None, :]
    tl.store(base + rows[:, None] * (2 * L) + columns[None, :], tile, mask=mask)


@triton.jit
def forward(
    pid, heads, eps, z, kl, step, seed, stream, B,
    L: tl.constexpr, DRAW: tl.constexpr, STEPS_AHEAD: tl.constexpr, BM: tl.constexpr, BL: tl.constexpr,
):  # fmt: skip
    """``z[B,L]`` and ``kl[B]`` from stored ``heads[B,2L]``; with DRAW, ``eps[B,L]`` is drawn and stored."""
    rows = (pid * BM + tl.arange(0, BM)).to(tl.int64)
    columns = tl.arange(0, BL)
    inside = (columns < L)[None, :]
    mu = load_half(heads, rows, columns, B, L)
    logvar = clamp_logvar(load_half(heads + L, rows, columns, B, L))
    if DRAW:
        noise = normal_tile(seed, stream, tl.load(step) - STEPS_AHEAD, pid * BM, 0, L, BM, BL)
        store(eps, rows, columns, B, L, noise)
    else:
        noise = load(eps, rows, columns, B, L)
    store(z, rows, columns, B, L, mu + exp(logvar * 0.5) * noise)
    tl.store(kl + rows, tl.sum(tl.where(inside, twice_kl(mu, logvar), 0.0), axis=1) * 0.5, mask=rows < B)


@triton.jit
def backward(pid, dz, heads, eps, weights, dheads, B, L: tl.constexpr, BM: tl.constexpr, BL: tl.constexpr):
    """``dheads[B,2L]`` from stored ``dz[B,L]``, ``heads[B,2L]`` and ``eps[B,L]``."""
    rows = (pid * BM + tl.arange(0, BM)).to(tl.int64)
    columns = tl.arange(0, BL)
    mu = load_half(heads, rows, columns, B, L)
    h = load_half(heads + L, rows, columns, B, L)
    gradient = load(dz, rows, columns, B, L)
    noise = load(eps, rows, columns, B, L)
    share = tl.load(weights + columns, mask=columns < L, other=0.0)[None, :] / B.to(tl.float32)
    dmu, dh = heads_gradient(gradient, mu, h, noise, share)
    store_half(dheads, rows, columns, B, L, dmu)
    store_half(dheads + L, rows, columns, B, L, dh)


@triton.jit
def kl_weights(pid, heads, beta, weights, penalty, free_bits, B, L: tl.constexpr, BM: tl.constexpr, BL: tl.constexpr):
    """``weights[L]`` and ``penalty[1]`` from ``heads[B,2L]``. One program, which adds the rows up in order."""
    columns = pid * BL + tl.arange(0, BL)
    sums = tl.zeros([BL], tl.float32)
    for r in range(0, B, BM):
        rows = (r + tl.arange(0, BM)).to(tl.int64)
        mu = load_half(heads, rows, columns, B, L)
        logvar = clamp_logvar(load_half(heads + L, rows, columns, B, L))
        sums += tl.sum(twice_kl(mu, logvar), axis=0)
    kl = sums * (0.5 / B.to(tl.float32))
    one = tl.arange(0, 1)
    high = tl.load(beta + one)
    tl.store(weights + columns, tl.where(kl <= free_bits, 0.0, tl.sum(high, axis=0)), mask=columns < L)
    counted = tl.where(columns < L, tl.where(kl <= free_bits, free_bits, kl), 0.0)
    tl.store(penalty + one, high * tl.sum(counted, axis=0))


@triton.jit
def ramp(pid, step, out, high, steps, STEPS_AHEAD: tl.constexpr):
    """``out[0]`` from the counter of steps."""
    one = pid + tl.arange(0, 1)
    done = (tl.load(step + one) - STEPS_AHEAD).to(tl.float32)
    part = done / steps.to(tl.float32)
    tl.store(out + one, high * tl.where(part < 1.0, part, 1.0))


@triton.jit
def sample_and_decode(
    pid, x, W, b, heads, eps, z, kl, step, seed, stream, W_decoder, b_decoder, y, B,
    N_IN: tl.constexpr, L: tl.constexpr, N_OUT: tl.constexpr, ACTIVATION: tl.constexpr,
    STEPS_AHEAD: tl.constexpr,
    BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr, BL: tl.constexpr, SPLIT: tl.constexpr,
    GROUP: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """``heads[B,2L] = x[B,I] W + b``, ``z`` and ``kl`` from them, ``y[B,O] = act(z W_decoder + b_decoder)``."""
    tile_m, tile_n = tile_of(pid, tl.cdiv(B, BM), (N_OUT + BN - 1) // BN, GROUP)
    rows = (tile_m * BM + tl.arange(0, BM)).to(tl.int64)
    columns = tile_n * BN + tl.arange(0, BN)
    latents = tl.arange(0, BL)
    inside = (latents < L)[None, :]
    mu = zero_acc(BM, BL, SPLIT)
    h = zero_acc(BM, BL, SPLIT)
    for k in range(0, N_IN, SPLIT * BK):
        a = load_left(x, rows, k, B, N_IN, BK, SPLIT)
        mu = dot(a, load_half_right(W, k, latents, N_IN, L, BK, SPLIT), mu, PRECISION)
        h = dot(a, load_half_right(W + L, k, latents, N_IN, L, BK, SPLIT), h, PRECISION)
    mu = reduce_split_k(mu, SPLIT) + tl.load(b + latents, mask=latents < L, other=0.0)[None, :]
    h = reduce_split_k(h, SPLIT) + tl.load(b + L + latents, mask=latents < L, other=0.0)[None, :]
    logvar = clamp_logvar(h)
    noise = normal_tile(seed, stream, tl.load(step) - STEPS_AHEAD, tile_m * BM, 0, L, BM, BL)
    sampled = tl.where(inside, mu + exp(logvar * 0.5) * noise, 0.0)
    if tile_n == 0:
        store_half(heads, rows, latents, B, L, mu)
        store_half(heads + L, rows, latents, B, L, h)
        store(z, rows, latents, B, L, sampled)
        store(eps, rows, latents, B, L, noise)
        divergence = sums_in_pairs(tl.where(inside, twice_kl(mu, logvar), 0.0), BL) * 0.5
        tl.store(kl + rows, tl.reshape(divergence, rows.shape), mask=rows < B)
    total = tl.zeros([BM, BN], tl.float32)
    total = dot(sampled, load(W_decoder, latents, columns, L, N_OUT), total, PRECISION)
    epilogue(total, b_decoder, None, rows, columns, tile_n, y, B, N_OUT, ACTIVATION, BN)


@triton.jit
def backward_through(
    pid, dy, W_decoder, heads, eps, weights, dheads, W, dx, x, B,
    N_IN: tl.constexpr, L: tl.constexpr, N_OUT: tl.constexpr, ACTIVATION: tl.constexpr,
    BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr, BL: tl.constexpr, SPLIT: tl.constexpr,
    GROUP: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """``dz = dy[B,O] W_decoder[L,O]^T``, ``dheads[B,2L]`` from it, ``dx[B,I] = (dheads W[I,2L]^T) * act'(z)``."""
    tile_m, tile_n = tile_of(pid, tl.cdiv(B, BM), (N_IN + BN - 1) // BN, GROUP)
    rows = (tile_m * BM + tl.arange(0, BM)).to(tl.int64)
    columns = tile_n * BN + tl.arange(0, BN)
    latents = tl.arange(0, BL)
    dz = product_transposed(
        dy, None, W_decoder, rows, latents, B, L, N_OUT, None, None, 0, 0, BM, BL, BK, SPLIT, PRECISION
    )
    mu = load_half(heads, rows, latents, B, L)
    h = load_half(heads + L, rows, latents, B, L)
    noise = load(eps, rows, latents, B, L)
    share = tl.load(weights + latents, mask=latents < L, other=0.0)[None, :] / B.to(tl.float32)
    dmu, dh = heads_gradient(dz, mu, h, noise, share)
    if tile_n == 0:
        store_half(dheads, rows, latents, B, L, dmu)
        store_half(dheads + L, rows, latents, B, L, dh)
    total = tl.zeros([BM, BN], tl.float32)
    total = dot(dmu, tl.trans(load_half(W, columns, latents, N_IN, L)), total, PRECISION)
    total = dot(dh, tl.trans(load_half(W + L, columns, latents, N_IN, L)), total, PRECISION)
    if ACTIVATION != "linear":
        total = differentiate(total, load(x, rows, columns, B, N_IN), ACTIVATION)
    store(dx, rows, columns, B, N_IN, total)


# --- lowering -----------------------------------------------------------------------------------------


def latent_block(L: int) -> tuple[int, int]:
    """BM and BL: a tile that holds all latents of its rows."""
    width = max(16, tiles.power_of_two(L))
    return max(1, BLOCK // width), width


@lowers("latent_forward", "latent_forward_of_noise")
def lower_forward(op: Operation, target: Target) -> list[Job]:
    B, L = op["z"].shape
    BM, BL = latent_block(L)
    arguments = {
        "heads": op["heads"],
        "eps": op["eps"],
        "z": op["z"],
        "kl": op["rows"],
        **noise_arguments(op),
        "B": B,
        "L": L,
        "DRAW": op.name.endswith("of_noise"),
        "BM": BM,
        "BL": BL,
    }
    written = [buffer for buffer in op.writes() if buffer is not op["loss"]]
    first = job(op, forward, blocks(B, BM), arguments, 20 * B * L, writes=written)
    return [first, finish_rows_job(op, op["rows"].reshape(B, 1), None, 0.0)]


@lowers("latent_backward")
def lower_backward(op: Operation, target: Target) -> list[Job]:
    B, L = op["dz"].shape
    BM, BL = latent_block(L)
    arguments = {**op.buffers, "B": B, "L": L, "BM": BM, "BL": BL}
    return [job(op, backward, blocks(B, BM), arguments, 20 * B * L)]


@lowers("kl_weights")
def lower_kl_weights(op: Operation, target: Target) -> list[Job]:
    B, L = len(op["heads"]), len(op["weights"])
    arguments = {**op.buffers, "free_bits": op["free_bits"], "B": B, "L": L, "BM": 16, "BL": latent_block(L)[1]}
    return [job(op, kl_weights, 1, arguments, 8 * B * L)]


@lowers("ramp")
def lower_ramp(op: Operation, target: Target) -> list[Job]:
    arguments = {"step": op["step"], "out": op["out"], "high": op["high"], "steps": op["steps"]}
    return [job(op, ramp, 1, arguments | {"STEPS_AHEAD": op["steps_ahead"]})]


@lowers("latent_sample_and_decode")
def lower_sample_and_decode(op: Operation, target: Target) -> list[Job]:
    (B, L), n_in, n_out = op["z"].shape, len(op["W"]), op["y"].shape[1]
    BL = latent_block(L)[1]
    # A stage holds the weights of both heads; the decoder's tile comes after the loop.
    tile = product_tile("forward", B, n_out, n_in, target, 2 * BL)
    arguments = {
        **{name: op[name] for name in ("x", "W", "b", "heads", "eps", "z", "W_decoder", "b_decoder", "y")},
        "kl": op["rows"],
        **noise_arguments(op),
        "B": B,
        "N_IN": n_in,
        "L": L,
        "N_OUT": n_out,
        "ACTIVATION": op["activation"],
        "BL": BL,
        **tile_arguments(tile, target),
    }
    written = [buffer for buffer in op.writes() if buffer is not op["loss"]]
    programs, flops = tiles.programs(tile, B, n_out), 2 * B * L * (2 * n_in + n_out)
    first = job(op, sample_and_decode, programs, arguments, flops, writes=written, tile=tile)
    return [first, finish_rows_job(op, op["rows"].reshape(B, 1), None, 0.0)]


@lowers("latent_backward_through")
def lower_backward_through(op: Operation, target: Target) -> list[Job]:
    (B, n_out), n_in, L = op["dy"].shape, len(op["W"]), len(op["W_decoder"])
    BL = latent_block(L)[1]
    tile = product_tile("dgrad", B, n_in, n_out, target, BL)
    tile = replace(tile, stages=min(tile.stages, 2))  # three accumulators leave no registers for more
    arguments = {
        **{name: op[name] for name in ("dy", "W_decoder", "heads", "eps", "weights", "dheads", "W", "dx", "x")},
        "B": B,
        "N_IN": n_in,
        "L": L,
        "N_OUT": n_out,
        "ACTIVATION": op["activation"],
        "BL": BL,
        **tile_arguments(tile, target),
    }
    programs, flops = tiles.programs(tile, B, n_in), 2 * B * L * (n_out + 2 * n_in)
    return [job(op, backward_through, programs, arguments, flops, tile=tile)]
