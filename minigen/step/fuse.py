"""Rewritings of a recorded step that do the same with fewer kernels and less memory traffic.

A rule looks at one operation of an :class:`~minigen.step.dependencies.OperationList` and returns the rewritten list, or
None where it does not apply. A rule may drop a buffer that is written and read within the step, once all who read it
are fused: what a step consumes itself may stay inside of it. Buffers that the step only writes are results, and are
always written. The rules here are those that more than one backend has.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from minigen.step.dependencies import OperationList
from minigen.step.record import Operation, operation

LINE = 16  # elements: a parameter begins on a line of 64 bytes of its flat buffer
FLAT = ("p", "g", "m", "v")  # the flat buffers of an update

Rule = Callable[[OperationList, int], OperationList | None]


def apply(ops: OperationList, rules: Sequence[Rule]) -> OperationList:
    """Each rule in turn, wherever it applies, until it applies nowhere any more."""
    for rule in rules:
        i = 0
        while i < len(ops.ops):
            new = rule(ops, i)
            ops, i = (ops, i + 1) if new is None else (new, 0)
    return ops


def is_plain(op: Operation) -> bool:
    """A linear layer that takes its input from memory and does nothing else."""
    return op.name == "dense_forward" and op["activation"] == "linear" and "scores" not in op.buffers


# --- the discriminator's head -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Head:
    """Positions of a layer of one output, the GAN's loss of its logits, and the layer's gradients, where there are."""

    layer: int
    loss: int
    wgrad: int | None
    dgrad: int | None


def find_head(ops: OperationList, i: int) -> Head | None:
    """The head whose layer is at ``i``, if only its own parts read the logits and their gradient."""
    layer = ops.ops[i]
    if not is_plain(layer) or layer["W"].shape[1] != 1:
        return None
    losses = ops.readers(i, layer["y"])
    if len(losses) != 1 or ops.ops[losses[0]].name != "gan_loss":
        return None
    loss = ops.ops[losses[0]]
    users = ops.readers(losses[0], loss["dlogits"])
    wgrads = [k for k in users if _is_wgrad_of(ops, k, layer, loss)]
    dgrads = [k for k in users if _is_dgrad_of(ops, k, layer, loss)]
    if not users or len(wgrads) + len(dgrads) != len(users) or max(len(wgrads), len(dgrads)) > 1:
        return None
    return Head(i, losses[0], *(found[0] if found else None for found in (wgrads, dgrads)))


def _is_wgrad_of(ops: OperationList, k: int, layer: Operation, loss: Operation) -> bool:
    op, same = ops.ops[k], ops.memory.same
    plain = op.name == "dense_wgrad" and not op["accumulate"]
    return plain and same(op["dz"], loss["dlogits"]) and same(op["x"], layer["x"])


def _is_dgrad_of(ops: OperationList, k: int, layer: Operation, loss: Operation) -> bool:
    op, same = ops.ops[k], ops.memory.same
    if op.name != "dense_dgrad" or not same(op["dz"], loss["dlogits"]) or not same(op["W"], layer["W"]):
        return False
    return op["activation"] == "linear" or same(op["x"], layer["x"])


# --- updates --------------------------------------------------------------------------------------------------------


def update_in_epilogue(
    ops: OperationList, i: int, takes: Callable[[Operation, Operation], bool], keep: tuple[str, ...] = ()
) -> OperationList | None:
    """Weight gradients that go straight into the update: they never reach memory.

    ``takes(gradient, update)``: whether the backend has such a kernel, ``keep`` which of ``dW`` and ``db`` it wants all
    the same, for memory to work in. The update stays where it was in the order, so
    weights change only after every gradient that reads them. What no weight gradient covers is updated by an operation
    of its own, but for padding.
    """
    update, memory = ops.ops[i], ops.memory
    if update.name != "optimizer":
        return None
    gradients = [
        k for k, op in enumerate(ops.ops[:i]) if "dW" in op.buffers and "lr" not in op.buffers and not op["accumulate"]
    ]
    covered = [k for k in gradients if takes(ops.ops[k], update) and _only_feeds(ops, k, i)]
    if not covered:
        return None
    fused, done = [], []
    for k in covered:
        gradient = ops.ops[k]
        buffers = {n: buffer for n, buffer in gradient.buffers.items() if n not in ("dW", "db") or n in keep}
        for name in "Wb":
            part = gradient[f"d{name}"]
            done.append(((memory.address(part) - memory.address(update["g"])) // part.itemsize, part.size))
            for suffix, slot in (("", "p"), ("_m", "m"), ("_v", "v")):
                if slot in update.buffers:
                    buffers[name + suffix] = memory.view(part, update["g"], update[slot])
        buffers |= {name: update[name] for name in ("lr", "step")}
        settings = {**gradient.settings, **update.settings}
        new = operation(gradient.name, gradient.fuses + update.fuses, buffers, **settings)
        share = update.flops * (done[-1][1] + done[-2][1]) / update["g"].size
        parts = int(gradient["dW"].nbytes + gradient["db"].nbytes)
        slots = sum(slot in update.buffers for slot in ("p", "m", "v"))
        moved = gradient.bytes + (2 * slots - 1) * parts  # each slot read and written, the gradient not
        fused.append(replace(new, sizes=gradient.sizes, flops=gradient.flops + share, bytes=moved))
    rest = [_slice(update, *gap) for gap in _gaps(done, update["g"].size) if not _is_padding(ops, i, *gap)]
    return ops.replaced({**{k: [] for k in covered}, i: fused + rest})


def _only_feeds(ops: OperationList, k: int, i: int) -> bool:
    """Whether the update at ``i`` is the only reader of the whole weight gradient at ``k``, which can move there."""
    parts = (ops.ops[k]["dW"], ops.ops[k]["db"])
    if not all(ops.memory.contains(ops.ops[i]["g"], part) for part in parts):
        return False
    others = (op for j, op in enumerate(ops.ops) if j not in (i, k))
    return not any(ops.memory.touch(parts, [*op.reads(), *op.writes()]) for op in others) and ops.can_gather([k], i)


def _gaps(done: list[tuple[int, int]], size: int) -> list[tuple[int, int]]:
    """What (first, length) pairs leave of 0 .. size, as (first, last + 1)."""
    gaps, position = [], 0
    for first, length in sorted(done):
        if first > position:
            gaps.append((position, first))
        position = first + length
    return gaps + ([(position, size)] if position < size else [])


def _is_padding(ops: OperationList, i: int, first: int, last: int) -> bool:
    """Whether a gap of the update at ``i`` only fills a line of 64 bytes that a parameter has begun.

    There weights, gradients and moments are zero, and stay so under every optimizer: see
    :meth:`minigen.backend.Backend.capture`. What another operation reads or writes is no padding, but for an average of
    the weights, which stays zero where these are.
    """
    inside_a_line = first % LINE > 0 and first // LINE == (last - 1) // LINE
    ends_it = last % LINE == 0 or last == ops.ops[i]["g"].size
    if not (inside_a_line and ends_it):
        return False
    gap = _slice(ops.ops[i], first, last)
    mine = [gap[name] for name in FLAT if name in gap.buffers]
    others = (op for k, op in enumerate(ops.ops) if k != i and op.name != "average")
    return not any(ops.memory.touch(mine, [*op.reads(), *op.writes()]) for op in others)


def _slice(update: Operation, first: int, last: int) -> Operation:
    """The update of the elements [first, last)."""
    flat = {name: buffer[first:last] for name, buffer in update.buffers.items() if name in FLAT}
    share = (last - first) / update["g"].size
    return replace(
        update,
        buffers={**update.buffers, **flat},
        sizes={**update.sizes, "n": last - first},
        flops=update.flops * share,
        bytes=update.bytes * share,
    )
