"""The fusion pass for CUDA: rules as in :mod:`minigen.step.fuse`, those for GPUs alone and those shared with the CPU.

Nothing here orders launches; that follows from who reads and writes what (:mod:`minigen.cuda.plan.schedule`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from minigen.cuda.plan import tiles
from minigen.cuda.plan.lowering import Target, blocks, ordering_tile
from minigen.step import fuse as shared
from minigen.step.dependencies import Memory, OperationList
from minigen.step.fuse import is_plain
from minigen.step.record import Array, Operation, operation

RENAMED = 2**24  # bytes: a larger buffer is not doubled for the sake of an earlier launch
WIDEST_LATENT = 64
MOST_SCORES = 64
FORWARDS = ("dense_forward", "dense_forward_of_noise", "dense_forward_of_batch")

Rule = Callable[[OperationList, int, Target], OperationList | None]


def fuse(ops: list[Operation], memory: Memory, target: Target) -> list[Operation]:
    """The operations of one step, fused: each of :data:`RULES` in turn, until it applies nowhere any more."""
    rules = [lambda recorded, i, rule=rule: rule(recorded, i, target) for rule in RULES]
    return hoist_advance(shared.apply(OperationList(rename(ops, memory), memory), rules)).ops


# --- versions of a buffer -----------------------------------------------------------------------------


def rename(ops: list[Operation], memory: Memory) -> list[Operation]:
    """Give a buffer that the step uses twice, for different values, a second place.

    A GAN's step writes noise, hidden outputs and fakes once for D and again for G. The second generation needs nothing
    of the first, so with places of its own it can run beside it.
    """
    recorded = OperationList(ops, memory)
    versions: list[tuple[Array, Array]] = []  # (buffer as recorded, its present place)
    renamed = []
    for i, op in enumerate(recorded.ops):
        place = {}
        for name, buffer in op.buffers.items():
            inside = next((v for v in reversed(versions) if memory.contains(v[0], buffer)), None)
            place[name] = buffer if inside is None else memory.view(buffer, *inside)
        for name, buffer in op.buffers.items():
            if _is_second_version(recorded, i, buffer):
                versions.append((buffer, memory.empty(buffer.shape, buffer.dtype)))
                place[name] = versions[-1][1]
        renamed.append(replace(op, buffers=place))
    return renamed


def _is_second_version(recorded: OperationList, i: int, buffer: Array) -> bool:
    """Whether operation ``i`` overwrites a used ``buffer`` that only the step itself reads, all of it each time."""
    memory, op = recorded.memory, recorded.ops[i]
    if not memory.touch([buffer], op.writes()) or memory.touch([buffer], op.reads()) or buffer.nbytes > RENAMED:
        return False
    before = [k for k in range(i) if memory.touch([buffer], [*recorded.ops[k].reads(), *recorded.ops[k].writes()])]
    if not before or memory.touch([buffer], recorded.ops[before[0]].reads()):
        return False  # not used before, or it brings something into the step
    later = recorded.ops[i + 1 :]
    touched = [b for o in later for b in (*o.reads(), *o.writes()) if memory.overlap(b, buffer)]
    rewritten = any(memory.touch(o.writes(), [buffer]) for o in later)
    return bool(touched) and not rewritten and all(memory.contains(buffer, b) for b in touched)


# --- inputs computed by the kernel that reads them -----------------------------------------------------


def take_batch(recorded: OperationList, i: int, target: Target) -> OperationList | None:
    """Indices and gather in one kernel."""
    gather = recorded.ops[i]
    if gather.name != "batch_gather":
        return None
    k = recorded.writer(i, gather["indices"])
    if k is None or recorded.ops[k].name != "batch_indices" or recorded.readers(k, gather["indices"]) != [i]:
        return None
    indices = recorded.ops[k]
    if indices["n"] != len(gather["data"]) or not recorded.can_gather([k], i):
        return None
    buffers = {"data": gather["data"], "step": indices["step"], "x": gather["out"]}
    settings = {**gather.settings, **indices.settings}
    return recorded.replaced({k: [], i: [operation("batch_take", indices.fuses + gather.fuses, buffers, **settings)]})


def draw_input(recorded: OperationList, i: int, target: Target) -> OperationList | None:
    """Noise drawn, or the batch gathered, in the prologue of the layer that takes it, where that is small."""
    layer = recorded.ops[i]
    if layer.name != "dense_forward" or not is_small(layer["y"], target):
        return None
    k = recorded.writer(i, layer["x"])
    if k is None or recorded.ops[k].name not in ("random_normal", "batch_take") or not recorded.can_gather([k], i):
        return None
    source, readers = recorded.ops[k], recorded.readers(k, layer["x"])
    kind = "noise" if source.name == "random_normal" else "batch"
    stored = layer["x"] if readers != [i] else None
    buffers = {**layer.buffers, "x": stored, "step": source["step"], "data": source["data"]}
    settings = {**source.settings, **layer.settings, "steps_ahead": source["steps_ahead"]}
    fused = operation(f"dense_forward_of_{kind}", source.fuses + layer.fuses, buffers, **settings)
    return recorded.replaced({k: [], i: [fused]})


def is_small(result: Array, target: Target) -> bool:
    """Whether a result leaves multiprocessors idle, so that computing its input in every column of tiles is free."""
    rows, columns = result.shape
    return tiles.filled(rows, columns, target.architecture, target.deciding) < 0.5


# --- the discriminator's head -----------------------------------------------------------------------------


def fuse_head(recorded: OperationList, i: int, target: Target) -> OperationList | None:
    """One-output layer, GAN loss, its gradients and the hidden delta: see :mod:`minigen.cuda.kernels.gan_loss`.

    The layer before stores shares of the logit, those who read the hidden delta compute it, and one small job does the
    rest. Where the step goes on to update the head's weights, the delta is computed from a copy taken before.
    """
    found, memory = shared.find_head(recorded, i), recorded.memory
    if found is None:
        return None
    head, loss_at, dgrad = recorded.ops[i], found.loss, found.dgrad
    p = recorded.writer(i, head["x"])
    if p is None or not _can_score(recorded, p, i):
        return None
    wgrads = [] if found.wgrad is None else [found.wgrad]
    deltas = [] if dgrad is None else recorded.readers(dgrad, recorded.ops[dgrad]["dx"])
    if dgrad is not None and not (deltas and all(_takes_delta(recorded, k, dgrad, head, p) for k in deltas)):
        return None
    if not recorded.can_gather([i, *wgrads], loss_at):
        return None

    B, H = head["x"].shape
    layer, loss = recorded.ops[p], recorded.ops[loss_at]
    parts = blocks(H, ordering_tile("forward", B, H, layer["W"].shape[0], target).BN)
    if parts > MOST_SCORES:
        return None
    scores = memory.empty((B, parts), np.dtype(np.float32))
    updated = any(memory.touch([head["W"]], op.writes()) for op in recorded.ops[p:])
    weight = memory.empty(head["W"].shape, head["W"].dtype) if updated and deltas else head["W"]
    copies = [operation("copy", (), {"z": head["W"], "y": weight})] if weight is not head["W"] else []
    scored = replace(
        layer,
        buffers={**layer.buffers, "head_w": head["W"], "head_b": head["b"], "scores": scores},
        fuses=layer.fuses + head.fuses,
    )
    game = {name: loss[name] for name in ("player", "kind", "n_real", "smoothing")}
    gradients = {name: recorded.ops[k][name] for k in wgrads for name in ("dW", "db")}
    fuses = loss.fuses + tuple(name for k in wgrads for name in recorded.ops[k].fuses)
    summed = {"h": head["x"], "scores": scores, "loss": loss["loss"], **gradients}
    hidden = {"h": head["x"], "scores": scores, "head_w": weight}
    new = {p: [*copies, scored], i: [], loss_at: [operation("gan_head", fuses, summed, **game)]}
    new |= {k: [] for k in wgrads}
    if dgrad is not None:
        new[dgrad] = []
        new |= {k: [_with_delta(recorded.ops[k], recorded.ops[dgrad], hidden, game)] for k in deltas}
    return recorded.replaced(new)


def _can_score(recorded: OperationList, p: int, i: int) -> bool:
    """Whether the layer at ``p`` can compute the logits of the head at ``i``: no update of the head lies between."""
    layer, head = recorded.ops[p], recorded.ops[i]
    free = layer.name in FORWARDS and not _has(layer, "scores")
    return (
        free
        and recorded.memory.same(layer["y"], head["x"])
        and all(recorded.unwritten(head[n], p - 1, i) for n in "Wb")
    )


def _takes_delta(recorded: OperationList, k: int, dgrad: int, head: Operation, p: int) -> bool:
    op = recorded.ops[k]
    if op.name not in ("dense_wgrad", "dense_dgrad") or not recorded.memory.same(op["dz"], recorded.ops[dgrad]["dx"]):
        return False
    alone = not (_has(op, "x") and recorded.memory.overlap(op["x"], recorded.ops[dgrad]["dx"]))
    return alone and recorded.unwritten(head["x"], p, k)


def _with_delta(op: Operation, dgrad: Operation, hidden: dict[str, Array], kind: dict[str, object]) -> Operation:
    """A gradient that computes its ``dz`` from ``hidden``."""
    buffers = {name: buffer for name, buffer in op.buffers.items() if name != "dz"} | hidden
    settings = {**op.settings, **kind, "hidden_activation": dgrad["activation"]}
    return replace(op, buffers=buffers, settings=settings, fuses=dgrad.fuses + op.fuses)


def _has(op: Operation, name: str) -> bool:
    return name in op.buffers


# --- the autoencoder ------------------------------------------------------------------------------------


def fuse_reconstruction(recorded: OperationList, i: int, target: Target) -> OperationList | None:
    """The decoder's last layer with the reconstruction loss in its epilogue."""
    loss = recorded.ops[i]
    if loss.name != "vae_loss":
        return None
    k = recorded.writer(i, loss["output"])
    if k is None or not is_plain(recorded.ops[k]) or recorded.readers(k, loss["output"]) != [i]:
        return None
    if not recorded.can_gather([k], i):
        return None
    layer = recorded.ops[k]
    buffers = {"h": layer["x"], "W": layer["W"], "b": layer["b"]}
    buffers |= {name: loss[name] for name in ("x", "doutput", "rows", "loss")}
    fused = operation("dense_forward_reconstruction", layer.fuses + loss.fuses, buffers, **loss.settings)
    return recorded.replaced({k: [], i: [fused]})


def draw_latent(recorded: OperationList, i: int, target: Target) -> OperationList | None:
    """The latent noise drawn where it is used."""
    latent = recorded.ops[i]
    if latent.name != "latent_forward":
        return None
    k = recorded.writer(i, latent["eps"])
    if k is None or recorded.ops[k].name != "random_normal" or not recorded.can_gather([k], i):
        return None
    noise = recorded.ops[k]
    buffers = {**latent.buffers, "step": noise["step"]}
    fused = operation("latent_forward_of_noise", noise.fuses + latent.fuses, buffers, **noise.settings)
    return recorded.replaced({k: [], i: [fused]})


def sample_and_decode(recorded: OperationList, i: int, target: Target) -> OperationList | None:
    """Encoder's heads, latent sample and the decoder's first layer in one, where they are small."""
    latent = recorded.ops[i]
    if latent.name != "latent_forward_of_noise" or latent["z"].shape[1] > WIDEST_LATENT:
        return None
    k, users = recorded.writer(i, latent["heads"]), recorded.readers(i, latent["z"])
    if k is None or not users or not is_plain(recorded.ops[k]):
        return None
    first, second = recorded.ops[k], recorded.ops[users[0]]
    if second.name != "dense_forward" or not recorded.memory.same(second["x"], latent["z"]) or _has(second, "scores"):
        return None
    if not is_small(second["y"], target) or not recorded.can_gather([k, users[0]], i):
        return None
    buffers = {**latent.buffers, **{name: first[name] for name in ("x", "W", "b")}}
    buffers |= {"W_decoder": second["W"], "b_decoder": second["b"], "y": second["y"]}
    settings = {**latent.settings, "activation": second["activation"]}
    fuses = first.fuses + latent.fuses + second.fuses
    return recorded.replaced(
        {k: [], i: [operation("latent_sample_and_decode", fuses, buffers, **settings)], users[0]: []}
    )


def backward_through_latent(recorded: OperationList, i: int, target: Target) -> OperationList | None:
    """Gradient of the decoder's input, of the heads, and of the encoder's last hidden layer in one."""
    latent = recorded.ops[i]
    if latent.name != "latent_backward" or latent["dz"].shape[1] > WIDEST_LATENT:
        return None
    k = recorded.writer(i, latent["dz"])
    if k is None or recorded.ops[k].name != "dense_dgrad" or recorded.readers(k, latent["dz"]) != [i]:
        return None
    same = recorded.memory.same
    users = [j for j in recorded.readers(i, latent["dheads"]) if recorded.ops[j].name == "dense_dgrad"]
    first = recorded.ops[k]
    if len(users) != 1 or first["activation"] != "linear" or not _has(first, "dz"):
        return None
    second = recorded.ops[users[0]]
    if not same(second["dz"], latent["dheads"]) or not is_small(second["dx"], target):
        return None
    if not recorded.can_gather([k, users[0]], i):
        return None
    buffers = {name: latent[name] for name in ("heads", "eps", "weights", "dheads")}
    buffers |= {"dy": first["dz"], "W_decoder": first["W"], "W": second["W"], "dx": second["dx"], "x": second["x"]}
    fuses = first.fuses + latent.fuses + second.fuses
    fused = operation("latent_backward_through", fuses, buffers, activation=second["activation"])
    return recorded.replaced({k: [], i: [fused], users[0]: []})


# --- updates --------------------------------------------------------------------------------------------


def update_in_place(recorded: OperationList, i: int, target: Target) -> OperationList | None:
    """Every optimizer in the epilogue of a weight gradient, or of the head's."""
    return shared.update_in_epilogue(recorded, i, lambda gradient, update: gradient.name in ("dense_wgrad", "gan_head"))


def hoist_advance(recorded: OperationList) -> OperationList:
    """Count the step as soon as its losses are known, beside other work instead of after it.

    Operations that it passes read a counter that is one ahead: their ``steps_ahead`` says so.
    """
    places = [i for i, op in enumerate(recorded.ops) if op.name == "advance"]
    if len(places) != 1:
        return recorded
    ops, i = list(recorded.ops), places[0]
    memory, step = recorded.memory, ops[i]["step"]
    mine = [ops[i]["losses"], ops[i]["history"]]
    while i > 0:
        other = ops[i - 1]
        if memory.touch(other.writes(), [*mine, step]) or memory.touch(other.reads(), [ops[i]["history"]]):
            break
        if memory.touch(other.reads(), [step]):
            other = other.with_(steps_ahead=other["steps_ahead"] + 1)
        ops[i - 1], ops[i] = ops[i], other
        i -= 1
    return OperationList(ops, memory)


RULES: tuple[Rule, ...] = (
    take_batch,
    draw_input,
    fuse_head,
    fuse_reconstruction,
    draw_latent,
    sample_and_decode,
    backward_through_latent,
    update_in_place,
)
