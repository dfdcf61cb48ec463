"""A step on the CPU: which of its operations are fused, and the kernel call that each of them becomes.

Three rules: the discriminator's last layer with its loss and gradients is one pass over its input's rows; Adam updates
a layer's weights while their gradient is in the cache; and a dense layer is told how many of its rows are pixels, which
``bf16x6`` multiplies for less work.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from minigen import _native
from minigen.step import fuse
from minigen.step.dependencies import Memory, OperationList
from minigen.step.record import Array, Operation, operation

PARAMETERS = {kernel: re.findall(r"(\w+)\s*[,)]", arguments) for kernel, arguments in _native.declared().items()}
"""The names of every kernel's arguments, in order: buffers, sizes and settings of its operation in minigen/ops.py."""

LARGE = 1 << 17  # weights of a layer: more than a core's cache holds, with their moments


def fused(operations: Sequence[Operation], memory: Memory, precision: str) -> list[Operation]:
    """The operations of a step, fused."""

    def takes_update(gradient: Operation, update: Operation) -> bool:
        # Elsewhere than in float32 a fused update pays where weights and moments are more than a core's cache holds.
        pays = precision == "ieee" or gradient["dW"].size >= LARGE
        return gradient.name == "dense_wgrad" and update["optimizer"] == "adam" and pays

    rules: list[fuse.Rule] = [
        mark_pixels,
        fuse_head,
        lambda ops, i: fuse.update_in_epilogue(ops, i, takes_update, keep=("dW", "db")),
    ]
    return fuse.apply(OperationList(operations, memory), rules).ops


def fuse_head(ops: OperationList, i: int) -> OperationList | None:
    """Logits, loss, and the head's gradients in one kernel; the results are the same, but for rounding."""
    found = fuse.find_head(ops, i)
    if found is None or found.dgrad is None:
        return None
    layer, loss, dgrad = ops.ops[i], ops.ops[found.loss], ops.ops[found.dgrad]
    wgrad = None if found.wgrad is None else ops.ops[found.wgrad]
    positions = [p for p in (found.layer, found.loss, found.wgrad, found.dgrad) if p is not None]
    parts = [ops.ops[p] for p in positions]
    if not ops.can_gather(positions[:-1], found.dgrad) or not _independent(ops.memory, parts, layer, loss):
        return None
    buffers = {"x": layer["x"], "head_w": layer["W"], "head_b": layer["b"], "logits": layer["y"]}
    buffers |= {"dlogits": loss["dlogits"], "loss": loss["loss"], "dx": dgrad["dx"]}
    if wgrad:
        buffers |= {"dW": wgrad["dW"], "db": wgrad["db"]}
    settings = {**loss.settings, "activation": dgrad["activation"]}
    head = operation("gan_head", tuple(name for op in parts for name in op.fuses), buffers, **settings)
    twice_read = (len(parts) - 2) * int(layer["x"].nbytes)  # the layer's input is read once, not by each
    moved = sum(op.bytes for op in parts) - twice_read
    head = replace(head, sizes=layer.sizes, flops=sum(op.flops for op in parts), bytes=moved)
    return ops.replaced({**{p: [] for p in positions}, found.dgrad: [head]})


def _independent(memory: Memory, parts: list[Operation], layer: Operation, loss: Operation) -> bool:
    """Whether no part writes what another reads or writes, apart from the logits and their gradient."""
    for part in parts:
        for other in parts:
            for written in part.writes():
                if other is part or memory.same(written, layer["y"]) or memory.same(written, loss["dlogits"]):
                    continue
                if memory.touch([written], [*other.reads(), *other.writes()]):
                    return False
    return True


def mark_pixels(ops: OperationList, i: int) -> OperationList | None:
    """Tell a layer how many of the first rows of its input are pixels of this step."""
    layer = ops.ops[i]
    if layer.name not in ("dense_forward", "dense_wgrad") or "pixels" in layer.settings:
        return None
    rows = 0
    for k in reversed(range(i)):
        gather = ops.ops[k]
        if gather.name == "batch_gather" and _begins_with(ops.memory, layer["x"], gather["out"]):
            if _are_pixels(gather) and ops.unwritten(gather["out"], k, i):
                rows = min(len(layer["x"]), len(gather["out"]))
            break
    return ops.replaced({i: [layer.with_(pixels=rows)]})


def _begins_with(memory: Memory, x: Array, rows: Array) -> bool:
    return memory.address(x) == memory.address(rows) and x.shape[1:] == rows.shape[1:]


def _are_pixels(gather: Operation) -> bool:
    """Whether u * scale + shift is a whole number of at most 255, divided by that, for every byte u."""
    if gather["data"].dtype != np.uint8:
        return False
    values = np.arange(256, dtype=np.float32) * np.float32(gather["scale"]) + np.float32(gather["shift"])
    whole = np.rint(255 * values)
    return bool((np.abs(whole) <= 255).all() and (np.abs(whole / np.float32(255) - values) <= 2.0**-23).all())


# --- kernel calls ---------------------------------------------------------------------------------------------------

NAMED_BY_SETTING: dict[str, Callable[[Operation], str]] = {
    "optimizer": lambda op: op["optimizer"],
    "batch_gather": lambda op: "batch_gather_bytes" if op["data"].dtype == np.uint8 else "batch_gather_floats",
    "dense_wgrad": lambda op: "dense_wgrad" if op["lr"] is None else "dense_wgrad_adam",
}
"""The kernel of an operation, where it is not called as the operation is."""


def call(op: Operation) -> tuple[str, tuple[Any, ...]]:
    """The kernel of ``op``, and the values of its arguments."""
    kernel = NAMED_BY_SETTING[op.name](op) if op.name in NAMED_BY_SETTING else op.name
    values = {"pixels": 0, **op.sizes, **op.settings}
    if kernel == "dense_wgrad_adam":
        values |= {name: (op[name], op[f"{name}_m"], op[f"{name}_v"]) for name in "Wb"}
    values |= {name: buffer for name, buffer in op.buffers.items() if name not in values}
    if "settings" in PARAMETERS[kernel]:
        values["settings"] = tuple(values[name] for name in ("beta1", "beta2", "eps", "weight_decay"))
    return kernel, tuple(values.get(name) for name in PARAMETERS[kernel])


def title(op: Operation) -> str:
    """What a description calls it: the backend's operation, or what was made of several."""
    return op.name if op.name == "gan_head" else "_".join(op.fuses)
