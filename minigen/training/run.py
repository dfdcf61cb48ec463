"""One training in device memory: the program that a step is captured into, and how far it has come."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from minigen.backend import Array, Program, Reader
from minigen.models.step import Step

State = dict[str, np.ndarray]


@dataclass
class Chunk:
    """Enqueued steps with a snapshot to roll back to; :meth:`TrainingRun.enqueue` enqueues them."""

    ring: Reader
    flags: list[Reader]  # of all that a step changes: weights and the optimizer's state
    snapshot: dict[str, Array] = field(default_factory=dict)  # copies on the device
    before: int = 0  # steps done before
    steps: int = 0


class TrainingRun:
    """A model's ``step``, repeated. ``done`` counts the steps; :attr:`Step.counter` is the device's copy of it."""

    def __init__(self, step: Step) -> None:
        self.step = step
        self.ops = step.ops
        self.steps_per_epoch = step.steps_per_epoch
        self.done = 0
        self._last_rows = step.batch_size
        self._programs: dict[int, Program] = {}  # by rows of a batch
        self._chunks: list[Chunk] = []  # the one used last is the last

    def run(self, steps: int) -> None:
        """Run ``steps`` steps, at most :attr:`most_steps` and not past the end of the epoch."""
        batch_size, tail = self.step.batch_size, self.step.tail
        before_tail = self.steps_per_epoch - (tail > 0) - self.done % self.steps_per_epoch
        full = min(steps, before_tail)
        for rows, count in ((batch_size, full), (tail, steps - full)):
            if count:
                self._program(rows).run(count)
                self._last_rows = rows
        self.done += steps

    @property
    def most_steps(self) -> int:
        """Steps whose losses the device keeps until the host reads them."""
        return len(self.step.ring)

    @property
    def steps_left(self) -> int:
        """Steps to the end of the epoch under way."""
        return self.steps_per_epoch - self.done % self.steps_per_epoch

    @property
    def next_rows(self) -> int:
        """Rows of the batch of the next step."""
        last = self.steps_left == 1 and self.step.tail > 0
        return self.step.tail if last else self.step.batch_size

    def begin_epoch(self) -> None:
        """Put the step counter at the beginning of an epoch, the next one unless it is there already."""
        self.done = -(-self.done // self.steps_per_epoch) * self.steps_per_epoch
        self.step.set_count(self.done)

    def _program(self, rows: int) -> Program:
        if rows not in self._programs:
            self._programs[rows] = self.ops.capture(lambda: self.step.compute(rows))
        return self._programs[rows]

    def recent_losses(self, steps: int) -> np.ndarray:
        """Losses of the last ``steps`` steps, ``[steps, len(loss_names)]``, oldest first."""
        rows = np.arange(self.done - steps, self.done) % self.most_steps
        return self.step.report(self.ops.download(self.step.ring)[rows])

    def first_non_finite(self) -> tuple[str, str] | None:
        """Where the last step went wrong, see :meth:`Step.first_non_finite`."""
        return self.step.first_non_finite(self._last_rows)

    # --- running with a snapshot to roll back to ------------------------------------------------

    def enqueue(self, steps: int) -> Chunk:
        """Enqueue ``steps`` steps behind a snapshot. The host does not wait where the backend runs in the background.

        ``ops.ahead`` more may be enqueued before :meth:`outcome` or :meth:`roll_back` is called for this chunk; the
        next one then takes its memory.
        """
        full = len(self._chunks) > self.ops.ahead
        chunk = self._chunks.pop(0) if full else self._new_chunk()
        self._chunks.append(chunk)
        chunk.before, chunk.steps = self.done, steps
        for key, buffer in self.step.state_buffers().items():
            chunk.snapshot[key] = self.ops.upload(buffer, out=chunk.snapshot.get(key))
        with np.errstate(over="ignore", invalid="ignore", under="ignore"):  # outcome() reports an overflow
            self.run(steps)
        for reader in (chunk.ring, *chunk.flags):
            reader.begin()
        return chunk

    def _new_chunk(self) -> Chunk:
        state = [buffer for key, buffer in self.step.state_buffers().items() if key != "step"]
        return Chunk(self.ops.reader(self.step.ring), [self.ops.finite_reader(buffer) for buffer in state])

    def outcome(self, chunk: Chunk) -> tuple[np.ndarray, bool]:
        """Wait for a chunk: its losses, ``[steps, len(loss_names)]``, and whether they and all of the state are finite.

        The state is looked at as the last step left it: what is NaN or infinite there stays so. Adam's ``v`` overflows
        for gradients above 1e19 while losses and weights stay finite, and the weights then never move again.
        """
        rows = np.arange(chunk.before, chunk.before + chunk.steps) % self.most_steps
        losses = self.step.report(chunk.ring.get()[rows])
        return losses, bool(np.isfinite(losses).all()) and not any(flags.get().any() for flags in chunk.flags)

    def batch_sizes(self, chunk: Chunk) -> np.ndarray:
        """Rows that each step of ``chunk`` was on, ``int32[steps]``."""
        in_epoch = np.arange(chunk.before, chunk.before + chunk.steps) % self.steps_per_epoch
        last = (in_epoch == self.steps_per_epoch - 1) & (self.step.tail > 0)
        return np.where(last, self.step.tail, self.step.batch_size).astype(np.int32)

    def roll_back(self, chunk: Chunk) -> None:
        """Roll back to the snapshot: the training is as it was before ``chunk``."""
        for key, buffer in self.step.state_buffers().items():
            self.ops.upload(chunk.snapshot[key], out=buffer)
        self.done = chunk.before
        self.step.set_count(self.done)

    # --- state ----------------------------------------------------------------------------------

    def state(self) -> State:
        """Host copies of parameters, moments and step counter: all that is needed to go on bit for bit."""
        return {key: self.ops.download(buffer) for key, buffer in self.step.state_buffers().items()}

    def load_state(self, state: State) -> None:
        """Go back to a :meth:`state`."""
        for key, buffer in self.step.state_buffers().items():
            self.ops.upload(state[key], out=buffer)
        self.done = int(state["step"][0])
        self.step.set_count(self.done)
