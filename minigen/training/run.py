"""One training in device memory: networks, optimizers, counters, and the program that a step is captured into."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np

from minigen.backend import Array, Backend, Program, Reader
from minigen.models.mlp import Mlp, Workspace
from minigen.models.optimizer import Optimizer
from minigen.reference import random

RING = 4096  # steps whose losses the device keeps until the host reads them

State = dict[str, np.ndarray]


@dataclass
class Chunk:
    """Some steps: where the training stood before them, and what tells how they went. See :meth:`TrainingRun.begin`."""

    ring: Reader
    flags: list[Reader]  # of all that a step changes: weights and the optimizer's state
    kept: dict[str, Array] = field(default_factory=dict)  # copies on the device
    before: int = 0  # steps done before
    steps: int = 0


class TrainingRun:
    """What every training shares; a model adds :meth:`spell_step`, the explicit calls of one step.

    An epoch is ``steps_per_epoch`` steps of ``batch_size`` rows in the order of a keyed permutation. The rows left
    over form a last, smaller step, or are dropped with ``drop_last`` (other rows each epoch, since the order changes).
    """

    terms: ClassVar[tuple[str, ...]]  # the losses that a step computes, in the order of ``losses``
    loss_names: ClassVar[tuple[str, ...]]  # the losses reported, in the order of :meth:`report`

    def __init__(
        self,
        ops: Backend,
        data: np.ndarray,
        networks: Sequence[Mlp],
        optimizers: Sequence[Optimizer],
        batch_size: int,
        seed: int,
        *,
        drop_last: bool,
        scale: float,
        shift: float,
    ) -> None:
        self.ops = ops
        self.networks = networks
        self.optimizers = optimizers
        self.batch_size = batch_size
        self.seed = seed
        self.tail = 0 if drop_last else len(data) % batch_size
        self.steps_per_epoch = len(data) // batch_size + (self.tail > 0)
        self.data = ops.resident(data)
        self.scale, self.shift = scale, shift
        self.indices = ops.empty((batch_size,), np.int32)
        self.step = ops.upload(np.zeros(1, np.uint64))
        self.losses = ops.upload(np.zeros(len(self.terms), ops.dtype))
        self.ring = ops.upload(np.zeros((RING, len(self.terms)), ops.dtype))
        self.done = 0  # the host's copy of ``step``
        self._last_rows = batch_size
        self._programs: dict[int, Program] = {}
        self._chunks: list[Chunk] = []  # the one used last is the last

    # --- spelled out by the models --------------------------------------------------------------

    def spell_step(self, rows: int) -> None:
        """Call the operations of one training step on a batch of ``rows``."""
        raise NotImplementedError

    def workspaces(self, rows: int) -> list[tuple[Mlp, Workspace]]:
        """The networks in the order in which data flow through them, each with what a step on ``rows`` stores."""
        raise NotImplementedError

    def report(self, terms: np.ndarray) -> np.ndarray:
        """The losses to report, ``[steps, len(loss_names)]``, from ``terms[steps, len(terms)]``."""
        return terms

    def gather(self, out: Array) -> None:
        """The next batch, in the generator's or decoder's range, into ``out[rows, D]``."""
        indices = self.indices[: len(out)]
        self.ops.batch_indices(
            indices, len(self.data), self.seed, random.ORDER, self.step, self.batch_size, self.steps_per_epoch
        )
        self.ops.batch_gather(self.data, indices, out, self.scale, self.shift)

    # --- running --------------------------------------------------------------------------------

    def run(self, steps: int) -> None:
        """Run ``steps`` steps, at most ``RING`` and not past the end of the epoch."""
        before_tail = self.steps_per_epoch - (self.tail > 0) - self.done % self.steps_per_epoch
        full = min(steps, before_tail)
        for rows, count in ((self.batch_size, full), (self.tail, steps - full)):
            if count:
                self._program(rows).run(count)
                self._last_rows = rows
        self.done += steps

    def set_learning_rate(self, rate: float) -> None:
        """Of every network, for the steps to come."""
        for optimizer in self.optimizers:
            optimizer.set_learning_rate(rate)

    @property
    def steps_left(self) -> int:
        """Steps to the end of the epoch under way."""
        return self.steps_per_epoch - self.done % self.steps_per_epoch

    def begin_epoch(self) -> None:
        """Put the step counter at the beginning of an epoch, the next one unless it is there already."""
        self.done = -(-self.done // self.steps_per_epoch) * self.steps_per_epoch
        self.ops.upload(np.array([self.done], np.uint64), out=self.step)

    def _program(self, rows: int) -> Program:
        if rows not in self._programs:
            self._programs[rows] = self.ops.capture(lambda: self.spell_step(rows))
        return self._programs[rows]

    def recent_losses(self, steps: int) -> np.ndarray:
        """Losses of the last ``steps`` steps, ``[steps, len(loss_names)]``, oldest first."""
        return self.report(self.ops.download(self.ring)[np.arange(self.done - steps, self.done) % RING])

    # --- running with a way back ----------------------------------------------------------------

    def begin(self, steps: int) -> Chunk:
        """:meth:`run` with a way back. The host waits for nothing where the floor computes in the background.

        ``ops.ahead`` more may be begun before :meth:`outcome` or :meth:`go_back` is asked of this chunk; the next one
        then takes its memory.
        """
        full = len(self._chunks) > self.ops.ahead
        chunk = self._chunks.pop(0) if full else self._new_chunk()
        self._chunks.append(chunk)
        chunk.before, chunk.steps = self.done, steps
        for key, buffer in self._buffers().items():
            chunk.kept[key] = self.ops.upload(buffer, out=chunk.kept.get(key))
        with np.errstate(over="ignore", invalid="ignore", under="ignore"):  # what overflows, the outcome tells
            self.run(steps)
        for reader in (chunk.ring, *chunk.flags):
            reader.begin()
        return chunk

    def _new_chunk(self) -> Chunk:
        state = [buffer for key, buffer in self._buffers().items() if key != "step"]
        return Chunk(self.ops.reader(self.ring), [self.ops.finite_reader(buffer) for buffer in state])

    def outcome(self, chunk: Chunk) -> tuple[np.ndarray, bool]:
        """Wait for a chunk: its losses, ``[steps, len(loss_names)]``, and whether they and all of the state are finite.

        The state is looked at as the last step left it: what is NaN or infinite there stays so. Adam's ``v`` overflows
        for gradients above 1e19 while losses and weights stay finite, and the weights then never move again.
        """
        losses = self.report(chunk.ring.get()[np.arange(chunk.before, chunk.before + chunk.steps) % RING])
        return losses, bool(np.isfinite(losses).all()) and not any(flags.get().any() for flags in chunk.flags)

    def rows_of(self, chunk: Chunk) -> np.ndarray:
        """Rows that each step of ``chunk`` was on, ``int32[steps]``."""
        place = np.arange(chunk.before, chunk.before + chunk.steps) % self.steps_per_epoch
        last = (place == self.steps_per_epoch - 1) & (self.tail > 0)
        return np.where(last, self.tail, self.batch_size).astype(np.int32)

    def go_back(self, chunk: Chunk) -> None:
        """To where the training stood before ``chunk``."""
        for key, buffer in self._buffers().items():
            self.ops.upload(chunk.kept[key], out=buffer)
        self.done = chunk.before

    # --- state ----------------------------------------------------------------------------------

    def _buffers(self) -> dict[str, Array]:
        """Everything that a step changes and the next one reads."""
        buffers = {"step": self.step}
        for net, optimizer in zip(self.networks, self.optimizers, strict=True):
            buffers[f"{net.name}.params"] = net.params
            buffers.update({f"{net.name}.{slot}": buffer for slot, buffer in optimizer.slots.items()})
        return buffers

    def state(self) -> State:
        """Host copies of parameters, moments and step counter: all that is needed to go on bit for bit."""
        return {key: np.array(self.ops.download(buffer)) for key, buffer in self._buffers().items()}

    def load_state(self, state: State) -> None:
        """Go back to a :meth:`state`."""
        for key, buffer in self._buffers().items():
            self.ops.upload(state[key], out=buffer)
        self.done = int(state["step"][0])

    def first_non_finite(self) -> tuple[str, str] | None:
        """Where the last step went wrong: (what, layer), following its data forward, backward, and into the state."""
        work = self.workspaces(self._last_rows)
        forward = [("output", layer.name, y) for net, w in work for layer, y in zip(net.layers, w.y, strict=True)]
        backward = [("gradient", layer.name, dz) for net, w in work for layer, dz in zip(net.layers, w.dz, strict=True)]
        weights = [("weight", layer.name, w) for net, _ in work for layer in net.layers for w in (layer.W, layer.b)]
        moments = [
            ("velocity" if slot == "velocity" else f"moment {slot} of the optimizer", layer, part)
            for net, optimizer in zip(self.networks, self.optimizers, strict=True)
            for slot, buffer in optimizer.slots.items()
            for layer, part in net.named(buffer)
        ]
        for what, layer, buffer in (*forward, *reversed(backward), *weights, *moments):
            if not self.ops.is_finite(buffer):
                return what, layer
        return None
