"""From operations to jobs: which kernel does an operation, with which tiles, and what it reads and writes.

Every function here takes an operation and gives the jobs that do it, in an order that respects what they read and
write. Most need one.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from types import ModuleType
from typing import Any

import numpy as np

from minigen.backend import Array
from minigen.cuda import tiles
from minigen.cuda.dispatch import Job
from minigen.step.record import Operation

BLOCK = 1024  # elements a program of the elementwise kernels


@dataclass(frozen=True)
class Target:
    """What jobs are made for: ``architecture`` such as 90, matmul ``precision``, and ``empty(shape, dtype)`` memory."""

    architecture: int
    precision: str
    empty: Callable[[tuple[int, ...], Any], Array]


def jobs_of(op: Operation, target: Target) -> list[Job]:
    """The jobs that do ``op``; those that would have no program are left out."""
    return [job for job in LOWERINGS[op.name](op, target) if job.programs > 0]


def kernels(operation: str) -> ModuleType:
    """The module of kernels of one operation. Only here is Triton imported."""
    from importlib import import_module

    return import_module(f"minigen.cuda.kernels.{operation}")


def blocks(n: int, size: int) -> int:
    """Programs of ``size`` elements each that cover ``n``."""
    return -(-n // size)


def int32(word: int) -> int:
    """A uint32 as the int32 of the same bits: kernels take no other integer."""
    return word - 2**32 if word >= 2**31 else word


def job(op: Operation, function: Any, programs: int, arguments: dict[str, Any], flops: int = 0, **how: Any) -> Job:
    """A job of ``op``; it reads, writes and fuses what ``op`` does, unless ``how`` says otherwise."""
    reads = tuple(how.pop("reads", op.reads()))
    writes = tuple(how.pop("writes", op.writes()))
    traffic = sum(_traffic(op, buffer) for buffer in (*reads, *writes))
    fuses = how.pop("fuses", op.fuses)
    return Job(function, programs, arguments, reads, writes, fuses, flops, traffic, **how)


def _traffic(op: Operation, buffer: Array) -> int:
    """Bytes of ``buffer`` that are touched: all, but of the data set only the batch's rows."""
    if buffer is not op["data"]:
        return int(buffer.nbytes)
    rows = next(op[name] for name in ("out", "x", "y") if op[name] is not None)
    return int(buffer[: len(rows)].nbytes)


# --- dense --------------------------------------------------------------------------------------------


def tile_arguments(tile: tiles.Tile, target: Target) -> dict[str, Any]:
    sides = {"BM": tile.BM, "BN": tile.BN, "BK": tile.BK, "SPLIT": tile.SPLIT}
    return {**sides, "GROUP": tile.GROUP, "PRECISION": target.precision}


def forward_tile(B: int, n_in: int, n_out: int, target: Target, width: int | None = None) -> tiles.Tile:
    return tiles.choose("forward", B, n_out, n_in, target.architecture, target.precision, width)


def dense_forward(op: Operation, target: Target) -> list[Job]:
    (n_in, n_out), B = op["W"].shape, len(op["y"])
    tile = forward_tile(B, n_in, n_out, target)
    head = None if op["scores"] is None else (op["head_w"], op["head_b"], op["scores"])
    arguments = {
        "W": op["W"],
        "b": op["b"],
        "y": op["y"],
        "head": head,
        "B": B,
        "N_IN": n_in,
        "N_OUT": n_out,
        "ACTIVATION": op["activation"],
        "PARTS": 0 if head is None else op["scores"].shape[1],
        **tile_arguments(tile, target),
        **_source(op),
    }
    function = getattr(kernels("dense"), op.name.removeprefix("dense_"))
    programs = tiles.programs(tile, B, n_out)
    return [job(op, function, programs, arguments, 2 * B * n_in * n_out, tile=tile)]


def _source(op: Operation) -> dict[str, Any]:
    """Where a forward's input comes from: memory, noise, or the data."""
    if op.name == "dense_forward":
        return {"x": op["x"]}
    if op.name == "dense_forward_of_noise":
        return drawn(op) | {"noise": op["x"]}
    order = tuple(_order(op).values())
    source = {"step": op["step"], "STEPS_AHEAD": op["steps_ahead"]}
    return source | {"data": op["data"], "x": op["x"], "n": op["n"], "order": order, **_affine(op)}


def dense_dgrad(op: Operation, target: Target) -> list[Job]:
    (n_in, n_out), B = op["W"].shape, len(op["dx"])
    tile = tiles.choose("dgrad", B, n_in, n_out, target.architecture, target.precision)
    arguments = {
        "dz": op["dz"],
        "W": op["W"],
        "dx": op["dx"],
        "x": op["x"],
        "B": B,
        "N_IN": n_in,
        "N_OUT": n_out,
        "ACTIVATION": op["activation"],
        **hidden(op),
        **tile_arguments(tile, target),
    }
    function, programs = kernels("dense").dgrad, tiles.programs(tile, B, n_in)
    return [job(op, function, programs, arguments, 2 * B * n_in * n_out, tile=tile)]


def hidden(op: Operation) -> dict[str, Any]:
    """Arguments for a ``dz`` that is computed from the head behind the layer, or their absence."""
    if op["dz"] is not None:
        return {"hidden": None, "HIDDEN": None, "LOSS": None, "PARTS": 0, "WIDTH": 0}
    parts = op["scores"].shape[1]
    return {
        "hidden": (op["h"], op["scores"], op["head_w"], op["n_real"]),
        "HIDDEN": op["hidden_activation"],
        "LOSS": op["loss_kind"],
        "PARTS": parts,
        "WIDTH": tiles.power_of_two(parts),
    }


def dense_wgrad(op: Operation, target: Target) -> list[Job]:
    """One job, or with a long batch and few tiles, partial sums and then their ordered sum."""
    dz = op["h"] if op["dz"] is None else op["dz"]
    (B, n_in), n_out = op["x"].shape, dz.shape[1]
    tile = tiles.choose("wgrad", n_in, n_out, B, target.architecture, target.precision)
    slices = tiles.splits(tile, n_in, n_out, B, target.architecture)
    db_rows, db_columns = min(256, max(16, tiles.power_of_two(B))), 32  # many rows at once: nobody waits for db long
    unit = max(db_rows, tile.SPLIT * tile.BK)
    chunk = blocks(blocks(B, slices), unit) * unit
    arguments = {
        "x": op["x"],
        "dz": op["dz"],
        "B": B,
        "chunk": chunk,
        "N_IN": n_in,
        "N_OUT": n_out,
        **hidden(op),
        **tile_arguments(tile, target),
        "DB_ROWS": db_rows,
        "DB_COLS": db_columns,
    }
    function = kernels("dense").wgrad
    programs = tiles.programs(tile, n_in, n_out) + blocks(n_out, db_columns)  # dW's, db's
    flops = 2 * B * n_in * n_out
    if slices == 1:
        stored = {"dW": op["dW"], "db": op["db"], **update_arguments(op)}
        return [job(op, function, programs, arguments | stored, flops, tile=tile)]
    parts_W, parts_b = (target.empty((slices, *shape), np.float32) for shape in ((n_in, n_out), (n_out,)))
    partial = {"dW": parts_W, "db": parts_b, "weights": None, "bias": None, "rule": None} | NO_OPTIMIZER
    reads = [op.buffers[name] for name in ("x", "dz", "h", "scores", "head_w") if name in op.buffers]
    first = job(
        op, function, programs * slices, arguments | partial, flops, reads=reads, writes=(parts_W, parts_b), tile=tile
    )
    return [first, *(_sum_slices(op, *part) for part in ((parts_W, "W"), (parts_b, "b")))]


def _sum_slices(op: Operation, slices: Array, name: str) -> Job:
    n = slices[0].size
    updates = update_arguments(op)
    state, out = updates["weights" if name == "W" else "bias"], op[f"d{name}"]
    arguments = {
        "slices": slices,
        "out": out,
        "state": state,
        "rule": updates["rule"],
        "n": n,
        "SLICES": len(slices),
        "OPTIMIZER": updates["OPTIMIZER"],
        "STEPS_AHEAD": updates["STEPS_AHEAD"],
        "BLOCK": BLOCK,
    }
    written = (out,) if state is None else tuple(buffer for buffer in state if buffer is not None)
    inputs = (op.buffers[name] for name in ("lr", "step") if name in op.buffers)
    reads = (slices, *inputs, *(() if state is None else written))
    function = kernels("dense").sum_slices
    return job(op, function, blocks(n, BLOCK), arguments, n * len(slices), reads=reads, writes=written, fuses=())


# --- optimizer --------------------------------------------------------------------------------------

NO_OPTIMIZER = {"OPTIMIZER": None, "STEPS_AHEAD": 0}


def rule(op: Operation) -> tuple[Any, ...]:
    """The run-time arguments of ``optimizer.update``, in its order; what float32 would lose is computed here."""
    if op["optimizer"] == "sgd":
        return (op["lr"], None, op["momentum"], 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, op["weight_decay"])
    betas = (op["beta1"], op["beta2"])
    rests = (1 - beta for beta in betas)
    logs = (math.log(beta) if beta > 0 else -math.inf for beta in betas)
    return (op["lr"], op["step"], *betas, *rests, *logs, op["eps"], op["weight_decay"])


def update_arguments(op: Operation) -> dict[str, Any]:
    """Arguments for an update in a gradient's epilogue, or their absence."""
    if op["optimizer"] is None:
        return {"weights": None, "bias": None, "rule": None} | NO_OPTIMIZER
    return {
        "weights": (op["W"], op["W_m"], op["W_v"]),
        "bias": (op["b"], op["b_m"], op["b_v"]),
        "rule": rule(op),
        "OPTIMIZER": op["optimizer"],
        "STEPS_AHEAD": op["steps_ahead"],
    }


def optimizer(op: Operation, target: Target) -> list[Job]:
    n = op["p"].size
    arguments = {
        "state": (op["p"], op["m"], op["v"]),
        "g": op["g"],
        "rule": rule(op),
        "n": n,
        "OPTIMIZER": op["optimizer"],
        "STEPS_AHEAD": op["steps_ahead"],
        "BLOCK": BLOCK,
    }
    flops = n * (6 if op["optimizer"] == "sgd" else 14)
    return [job(op, kernels("optimizer").flat, blocks(n, BLOCK), arguments, flops)]


def advance(op: Operation, target: Target) -> list[Job]:
    T, K = op["history"].shape
    arguments = {
        "step": op["step"],
        "losses": op["losses"],
        "history": op["history"],
        "T": T,
        "K": K,
        "BLOCK": tiles.power_of_two(K),
    }
    return [job(op, kernels("optimizer").advance, 1, arguments)]


def is_finite(op: Operation, target: Target) -> list[Job]:
    arguments = {"x": op["x"], "flags": op["flags"], "n": op["x"].size, "BLOCK": BLOCK}
    return [job(op, kernels("optimizer").look_for_non_finite, len(op["flags"]), arguments)]


# --- activations ------------------------------------------------------------------------------------


def activation(op: Operation, target: Target) -> list[Job]:
    n = op["y"].size
    function = getattr(kernels("activations"), op.name.removeprefix("activation_"))
    arguments = {**op.buffers, "n": n, "ACTIVATION": op["activation"], "BLOCK": BLOCK}
    return [job(op, function, blocks(n, BLOCK), arguments, n)]


def copy(op: Operation, target: Target) -> list[Job]:
    """``y = z``, which is the linear activation."""
    n = op["y"].size
    arguments = {"z": op["z"], "y": op["y"], "n": n, "ACTIVATION": "linear", "BLOCK": 256}
    return [job(op, kernels("activations").forward, blocks(n, 256), arguments)]


# --- losses -----------------------------------------------------------------------------------------


def gan_loss(op: Operation, target: Target) -> list[Job]:
    B = len(op["logits"])
    arguments = {**op.buffers, "n_real": op["n_real"], "B": B, "LOSS": op["loss_kind"], "ROWS": BLOCK}
    return [job(op, kernels("gan_loss").from_logits, 1, arguments, 10 * B)]


def gan_head(op: Operation, target: Target) -> list[Job]:
    B, H = op["h"].shape
    parts, columns = op["scores"].shape[1], 32
    arguments = {
        "hidden": (op["h"], op["scores"], None, op["n_real"]),
        "loss": op["loss"],
        "dw": op["dW"],
        "db": op["db"],
        **update_arguments(op),
        "B": B,
        "H": H,
        "LOSS": op["loss_kind"],
        "PARTS": parts,
        "WIDTH": tiles.power_of_two(parts),
        "ROWS": 64,
        "COLS": columns,
    }
    gradients = op["dW"] is not None or op["optimizer"] is not None
    programs = blocks(H, columns) if gradients else 1
    return [job(op, kernels("gan_loss").head, programs, arguments, 2 * B * H * gradients + 10 * B)]


def vae_loss(op: Operation, target: Target) -> list[Job]:
    B, D = op["x"].shape
    BN = min(128, max(16, tiles.power_of_two(D)))
    parts = target.empty((B, blocks(D, BN)), np.float32)
    arguments = {
        "output": op["output"],
        "x": op["x"],
        "doutput": op["doutput"],
        "parts": parts,
        "B": B,
        **likelihood(op),
        "D": D,
        "PARTS": parts.shape[1],
        "BM": 16,
        "BN": BN,
    }
    programs = blocks(B, 16) * parts.shape[1]
    function = kernels("vae_loss").from_output
    first = job(op, function, programs, arguments, 10 * B * D, writes=(op["doutput"], parts))
    return [first, finish_rows(op, parts, op["rows"], constant(op, D))]


def dense_forward_reconstruction(op: Operation, target: Target) -> list[Job]:
    (n_in, D), B = op["W"].shape, len(op["h"])
    tile = tiles.lighter(forward_tile(B, n_in, D, target))
    parts = target.empty((B, blocks(D, tile.BN)), np.float32)
    arguments = {
        "h": op["h"],
        "W": op["W"],
        "b": op["b"],
        "x": op["x"],
        "doutput": op["doutput"],
        "parts": parts,
        "B": B,
        **likelihood(op),
        "N_IN": n_in,
        "D": D,
        "PARTS": parts.shape[1],
        **tile_arguments(tile, target),
    }
    function, programs = kernels("vae_loss").forward, tiles.programs(tile, B, D)
    written = (op["doutput"], parts)
    first = job(op, function, programs, arguments, 2 * B * n_in * D, writes=written, tile=tile)
    return [first, finish_rows(op, parts, op["rows"], constant(op, D))]


def likelihood(op: Operation) -> dict[str, Any]:
    return {"half_precision": 0.5 / op["variance"], "LIKELIHOOD": op["likelihood"]}


def constant(op: Operation, D: int) -> float:
    """What a row's loss has beside its terms: the Gaussian's normalisation."""
    return 0.0 if op["likelihood"] == "bernoulli" else D * math.log(2 * math.pi * op["variance"]) / 2


def finish_rows(op: Operation, parts: Array, rows: Array | None, offset: float) -> Job:
    """Rows' losses and their mean from the shares that another job stores."""
    B, count = parts.shape
    width = tiles.power_of_two(count)
    arguments = {
        "parts": parts,
        "rows": rows,
        "loss": op["loss"],
        "constant": offset,
        "B": B,
        "PARTS": count,
        "WIDTH": width,
        "BLOCK": min(max(16, 8192 // width), max(16, tiles.power_of_two(B)), BLOCK),
    }
    written = (op["loss"],) if rows is None else (rows, op["loss"])
    function = kernels("vae_loss").finish_rows
    return job(op, function, 1, arguments, B * count, reads=(parts,), writes=written, fuses=())


# --- latent -----------------------------------------------------------------------------------------


def latent_block(L: int) -> tuple[int, int]:
    """BM and BL: a tile that holds all latents of its rows."""
    width = max(16, tiles.power_of_two(L))
    return max(1, BLOCK // width), width


def drawn(op: Operation) -> dict[str, Any]:
    """Arguments for noise that is drawn in the kernel, or their absence."""
    if op["seed"] is None:
        return {"step": None, "seed": None, "stream": None, "STEPS_AHEAD": 0}
    key = {"seed": int32(op["seed"]), "stream": int32(op["stream"])}
    return {"step": op["step"], **key, "STEPS_AHEAD": op["steps_ahead"]}


def latent_forward(op: Operation, target: Target) -> list[Job]:
    B, L = op["z"].shape
    BM, BL = latent_block(L)
    arguments = {
        "heads": op["heads"],
        "eps": op["eps"],
        "z": op["z"],
        "kl": op["rows"],
        **drawn(op),
        "B": B,
        "L": L,
        "DRAW": op.name.endswith("of_noise"),
        "BM": BM,
        "BL": BL,
    }
    written = [buffer for buffer in op.writes() if buffer is not op["loss"]]
    first = job(op, kernels("latent").forward, blocks(B, BM), arguments, 20 * B * L, writes=written)
    return [first, finish_rows(op, op["rows"].reshape(B, 1), None, 0.0)]


def latent_backward(op: Operation, target: Target) -> list[Job]:
    B, L = op["dz"].shape
    BM, BL = latent_block(L)
    arguments = {**op.buffers, "beta": op["beta"], "B": B, "L": L, "BM": BM, "BL": BL}
    return [job(op, kernels("latent").backward, blocks(B, BM), arguments, 20 * B * L)]


def latent_sample_and_decode(op: Operation, target: Target) -> list[Job]:
    (B, L), n_in, n_out = op["z"].shape, len(op["W"]), op["y"].shape[1]
    BL = latent_block(L)[1]
    # A stage holds the weights of both heads; the decoder's tile comes after the loop.
    tile = forward_tile(B, n_in, n_out, target, 2 * BL)
    arguments = {
        **{name: op[name] for name in ("x", "W", "b", "heads", "eps", "z", "W_decoder", "b_decoder", "y")},
        "kl": op["rows"],
        **drawn(op),
        "B": B,
        "N_IN": n_in,
        "L": L,
        "N_OUT": n_out,
        "ACTIVATION": op["activation"],
        "BL": BL,
        **tile_arguments(tile, target),
    }
    written = [buffer for buffer in op.writes() if buffer is not op["loss"]]
    function, programs = kernels("latent").sample_and_decode, tiles.programs(tile, B, n_out)
    flops = 2 * B * L * (2 * n_in + n_out)
    first = job(op, function, programs, arguments, flops, writes=written, tile=tile)
    return [first, finish_rows(op, op["rows"].reshape(B, 1), None, 0.0)]


def latent_backward_through(op: Operation, target: Target) -> list[Job]:
    (B, n_out), n_in, L = op["dy"].shape, len(op["W"]), len(op["W_decoder"])
    BL = latent_block(L)[1]
    tile = tiles.choose("dgrad", B, n_in, n_out, target.architecture, target.precision, BL)
    tile = replace(tile, stages=min(tile.stages, 2))  # three products beside each other leave no registers for more
    arguments = {
        **{name: op[name] for name in ("dy", "W_decoder", "heads", "eps", "dheads", "W", "dx", "x", "beta")},
        "B": B,
        "N_IN": n_in,
        "L": L,
        "N_OUT": n_out,
        "ACTIVATION": op["activation"],
        "BL": BL,
        **tile_arguments(tile, target),
    }
    function, programs = kernels("latent").backward_through, tiles.programs(tile, B, n_in)
    flops = 2 * B * L * (n_out + 2 * n_in)
    return [job(op, function, programs, arguments, flops, tile=tile)]


# --- random and batch ---------------------------------------------------------------------------------


def random(op: Operation, target: Target) -> list[Job]:
    n = op["out"].size
    arguments = {
        "out": op["out"],
        "step": op["step"],
        "n": n,
        "seed": int32(op["seed"]),
        "stream": int32(op["stream"]),
        "KIND": op.name.removeprefix("random_"),
        "STEPS_AHEAD": op["steps_ahead"],
        "BLOCK": BLOCK,
    }
    return [job(op, kernels("random").fill, blocks(n, BLOCK), arguments, 30 * n)]


def _order(op: Operation) -> dict[str, int]:
    """The run-time arguments of ``batch.rows_of_step``: a network of high_bits + low_bits covers ``n``."""
    bits = max(2, (op["n"] - 1).bit_length())
    return {
        "seed": int32(op["seed"]),
        "stream": int32(op["stream"]),
        "batch_size": op["batch_size"],
        "steps_per_epoch": op["steps_per_epoch"],
        "high_bits": bits // 2,
        "low_bits": bits - bits // 2,
    }


def _affine(op: Operation) -> dict[str, float]:
    return {"scale": op["scale"], "shift": op["shift"]}


def batch_indices(op: Operation, target: Target) -> list[Job]:
    B = len(op["indices"])
    arguments = {
        "out": op["indices"],
        "step": op["step"],
        "B": B,
        "n": op["n"],
        **_order(op),
        "STEPS_AHEAD": op["steps_ahead"],
        "BLOCK": 128,
    }
    return [job(op, kernels("batch").indices, blocks(B, 128), arguments)]


def gather_block(D: int) -> dict[str, int]:
    """ROWS and COLS of a program of a gather."""
    columns = min(BLOCK, max(16, tiles.power_of_two(D)))
    return {"ROWS": 4096 // columns if columns < 512 else 4, "COLS": columns}


def batch_gather(op: Operation, target: Target) -> list[Job]:
    B, D = op["out"].shape
    block = gather_block(D)
    arguments = {
        "data": op["data"],
        "chosen": op["indices"],
        "out": op["out"],
        "B": B,
        "N": len(op["data"]),
        **_affine(op),
        "D": D,
        **block,
    }
    programs = blocks(B, block["ROWS"]) * blocks(D, block["COLS"])
    return [job(op, kernels("batch").gather, programs, arguments, 2 * B * D)]


def batch_take(op: Operation, target: Target) -> list[Job]:
    B, D = op["x"].shape
    block = gather_block(D)
    arguments = {
        "data": op["data"],
        "out": op["x"],
        "step": op["step"],
        "B": B,
        "n": op["n"],
        **_order(op),
        **_affine(op),
        "D": D,
        "STEPS_AHEAD": op["steps_ahead"],
        **block,
    }
    programs = blocks(B, block["ROWS"]) * blocks(D, block["COLS"])
    return [job(op, kernels("batch").take, programs, arguments, 2 * B * D)]


LOWERINGS: dict[str, Callable[[Operation, Target], list[Job]]] = {
    "dense_forward": dense_forward,
    "dense_forward_of_noise": dense_forward,
    "dense_forward_of_batch": dense_forward,
    "dense_forward_reconstruction": dense_forward_reconstruction,
    "dense_dgrad": dense_dgrad,
    "dense_wgrad": dense_wgrad,
    "activation_forward": activation,
    "activation_backward": activation,
    "gan_loss": gan_loss,
    "gan_head": gan_head,
    "vae_loss": vae_loss,
    "latent_forward": latent_forward,
    "latent_forward_of_noise": latent_forward,
    "latent_backward": latent_backward,
    "latent_sample_and_decode": latent_sample_and_decode,
    "latent_backward_through": latent_backward_through,
    "optimizer": optimizer,
    "random_uniform": random,
    "random_normal": random,
    "batch_indices": batch_indices,
    "batch_gather": batch_gather,
    "batch_take": batch_take,
    "copy": copy,
    "advance": advance,
    "is_finite": is_finite,
}
