"""A backend that computes as the reference does and keeps what every operation of a step was given and wrote."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np

import minigen
from minigen.models.layers import Layer
from minigen.models.optimizer import Average, Optimizer
from minigen.models.step import Step
from minigen.ops import OPERATIONS
from minigen.reference_backend import NumpyBackend, derivation
from minigen.registry import written
from minigen.step.record import Operation
from minigen.tracing.names import Names, span

HOME = Path(minigen.__file__).resolve().parent.parent
MODELS = HOME / "minigen" / "models"
STEP = "minigen/models/step.py"


@dataclass(frozen=True)
class Call:
    """A function on the way from the step to an operation, and the line that it had come to."""

    function: str
    file: str
    line: int


@dataclass(frozen=True)
class Record:
    """One call of an operation in a traced step.

    ``inputs`` are copies of what it read, from before the call, and ``outputs`` of what it wrote, from after it; both
    by the buffers' names in the formula, which are those of ``docs/operations.md``. A buffer that it reads and writes
    is in both. ``names`` says what each is in the model: ``{"x": "noise", "W": "generator.0.W", "y":
    "generator.0.y"}``.
    """

    step: int
    """How many steps were done before the one that it is part of."""
    number: int
    """Of the call in its step, from 0."""
    operation: str
    formula: str
    """With the values of its settings."""
    settings: Mapping[str, Any]
    inputs: Mapping[str, np.ndarray]
    outputs: Mapping[str, np.ndarray]
    names: Mapping[str, str]
    spans: Mapping[str, tuple[int, int]]
    """Where each lies in memory, from its first byte to behind its last one: what one record writes another reads."""
    part: str
    """The method of the step that it belongs to, such as ``discriminator_gradient``."""
    layer: str
    """``generator.0``; a network's name where it is about all of one, as an optimizer's; ``""`` where about none."""
    file: str
    line: int
    """Where in :mod:`minigen.models` the operation is called."""
    calls: tuple[Call, ...]
    """From the method of the step on, the last one calls the operation."""
    reference: str
    """The file that has the operation's derivation."""

    @property
    def norms(self) -> dict[str, float]:
        """The Euclidean norm of each output of floating numbers."""
        return {name: norm(array) for name, array in self.outputs.items() if array.dtype.kind == "f"}

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Of all inputs and outputs."""
        return {name: array.shape for name, array in {**self.inputs, **self.outputs}.items()}


def norm(array: np.ndarray) -> float:
    """``sqrt(sum array^2)``, in float64."""
    return float(np.sqrt(np.square(array, dtype=np.float64).sum()))


class TracingBackend(NumpyBackend):
    """The reference, which hands a :class:`Record` of each operation to ``sink`` while a step is watched."""

    def __init__(self) -> None:
        super().__init__(np.float32)
        self.sink: Callable[[Record], None] | None = None

    def watch(self, step: Step, rows: int, done: int, sink: Callable[[Record], None]) -> None:
        """From now on, until ``sink`` is None again: ``step``, on ``rows`` rows, after ``done`` steps."""
        self._names, self._step, self._done, self._number = Names(step, rows), step, done, 0
        self._kept = [array for array in (step.data, step.conditions) if array is not None]
        self.sink = sink

    def execute(self, operation: Operation) -> None:
        if self.sink is None:
            super().execute(operation)
            return
        row = OPERATIONS[operation.fuses[0]]
        buffers = {b.name: operation[row.renamed.get(b.name, b.name)] for b in row.buffers}
        buffers = {name: array for name, array in buffers.items() if array is not None}
        read = {b.name: buffers[b.name] for b in row.buffers if b.name in buffers and b.read}
        if operation["accumulate"]:
            read |= {b.name: buffers[b.name] for b in row.buffers if b.name in buffers}
        inputs = {name: self._copied(array) for name, array in read.items()}
        super().execute(operation)
        outputs = {b.name: buffers[b.name].copy() for b in row.buffers if b.name in buffers and b.written}
        settings = {name: operation[name] for name in row.settings}
        part, layer, calls = _where(self._step)
        self.sink(
            Record(
                self._done,
                self._number,
                row.name,
                written(row, settings, buffers),
                settings,
                inputs,
                outputs,
                {name: self._names.of(array) for name, array in buffers.items()},
                {name: span(array) for name, array in buffers.items()},
                part,
                layer,
                calls[-1].file,
                calls[-1].line,
                calls,
                derivation(row.recorded_as),
            )
        )
        self._number += 1

    def _copied(self, array: np.ndarray) -> np.ndarray:
        """A copy, but of the whole of the data, which no step changes."""
        return array if any(array is kept for kept in self._kept) else array.copy()


def _where(step: Step) -> tuple[str, str, tuple[Call, ...]]:
    """Part and layer of the call under way, and the functions on the way to it."""
    calls: list[Call] = []
    part = layer = ""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        file = _in_models(frame.f_code.co_filename)
        if file:
            owner = frame.f_locals.get("self")
            calls.append(Call(frame.f_code.co_qualname, file, frame.f_lineno))
            layer = layer or _about(owner)
            if owner is step:
                name = frame.f_code.co_name
                if not part and file != STEP and not name.startswith("_"):  # of the model, not of all steps
                    part = name
                if name == "compute":
                    break
        frame = frame.f_back
    return part, layer, tuple(reversed(calls))


@functools.cache
def _in_models(file: str) -> str:
    """The path of a module of :mod:`minigen.models` from the package's folder on; ``""`` for another one's."""
    path = Path(file).resolve()
    return path.relative_to(HOME).as_posix() if path.parent == MODELS else ""


def _about(owner: Any) -> str:
    if isinstance(owner, Layer):
        return owner.name
    return owner.net.name if isinstance(owner, (Optimizer, Average)) else ""
