"""What the training steps of all models share: networks, data, counters and losses in the memory of a device."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from minigen.backend import Array, Backend
from minigen.models.network import Network, Workspace
from minigen.models.optimizer import Optimizer
from minigen.reference import random

RING = 4096  # steps whose losses the device keeps until the host reads them


class Step:
    """One training step of a model; the model adds :meth:`compute`, the explicit calls of it.

    An epoch is ``steps_per_epoch`` steps of ``batches`` times ``batch_size`` rows (one, unless the model takes more)
    in the order of a keyed permutation. The rows left over form a last, smaller step of ``tail`` rows, or are dropped
    with ``drop_last`` (other rows each epoch, since the order changes). A single row is dropped where a row's output
    depends on the others of its batch.
    """

    terms: tuple[str, ...]  # the losses that a step computes, in the order of ``losses``
    loss_names: tuple[str, ...]  # the losses reported, in the order of :meth:`report`

    def __init__(
        self,
        ops: Backend,
        data: np.ndarray,
        networks: Sequence[Network],
        optimizers: Sequence[Optimizer],
        batch_size: int,
        seed: int,
        *,
        drop_last: bool,
        batches: int = 1,
        scale: float,
        shift: float,
        conditions: np.ndarray | None = None,
    ) -> None:
        self.ops = ops
        self.networks = networks
        self.optimizers = optimizers
        self.batch_size = batch_size
        self.seed = seed
        self.tail = 0 if drop_last else len(data) % batch_size
        if self.tail == 1 and any(net.couples_rows for net in networks):
            self.tail = 0  # one row has no statistics
        self.batches = batches
        self.steps_per_epoch = len(data) // (batches * batch_size) + (self.tail > 0)
        for optimizer in optimizers:
            optimizer.steps_per_epoch = self.steps_per_epoch
        self.data = ops.resident(data)
        self.scale, self.shift = scale, shift
        if conditions is not None and conditions.dtype != np.int32:
            conditions = conditions.astype(ops.dtype, copy=False)
        self.conditions = None if conditions is None else ops.resident(conditions)  # of every row of ``data``
        self.indices = ops.empty((batch_size,), np.int32)
        self.counter = ops.upload(np.zeros(1, np.uint64))  # steps done
        self.losses = ops.upload(np.zeros(len(self.terms), ops.dtype))
        self.ring = ops.upload(np.zeros((RING, len(self.terms)), ops.dtype))  # ``losses`` of the last steps

    # --- what a model adds ----------------------------------------------------------------------

    def compute(self, rows: int) -> None:
        """Call the operations of the step on the next batch, of ``rows``."""
        raise NotImplementedError

    def workspaces(self, rows: int) -> list[tuple[Network, Workspace]]:
        """The networks in the order in which data flow through them, each with what a step on ``rows`` stores."""
        raise NotImplementedError

    def report(self, terms: np.ndarray) -> np.ndarray:
        """The losses to report, ``[steps, len(loss_names)]``, from ``terms[steps, len(terms)]``."""
        return terms

    # --- what all have --------------------------------------------------------------------------

    def gather(self, out: Array, counter: Array | None = None) -> None:
        """The next batch, in the generator's or decoder's range, into ``out[rows, D]``.

        ``counter`` counts the batches taken so far, where a step takes several.
        """
        self.ops.batch_gather(self.data, self._next_rows(len(out), counter), out, self.scale, self.shift)

    def gather_conditions(self, out: Array, counter: Array | None = None) -> None:
        """The conditions of the next batch's rows: labels into ``int32[rows]``, or numbers into ``[rows, C]``."""
        gather = self.ops.batch_labels if out.ndim == 1 else self.ops.batch_gather
        gather(self.conditions, self._next_rows(len(out), counter), out)

    def _next_rows(self, rows: int, counter: Array | None) -> Array:
        """The numbers of the next batch's rows in the data."""
        counter = self.counter if counter is None else counter
        indices, batches_per_epoch = self.indices[:rows], self.batches * self.steps_per_epoch
        self.ops.batch_indices(
            indices, len(self.data), self.seed, random.ORDER, counter, self.batch_size, batches_per_epoch
        )
        return indices

    def condition_buffer(self, rows: int) -> Array | None:
        """A buffer for the conditions of ``rows`` rows; None where the model has none."""
        c = self.conditions
        return None if c is None else self.ops.empty((rows, *c.shape[1:]), c.dtype)

    def set_count(self, done: int) -> None:
        """So many steps are ``done``."""
        self.ops.upload(np.array([done], np.uint64), out=self.counter)

    def set_learning_rate(self, rate: float | Sequence[float]) -> None:
        """For the steps to come: one rate for all networks, or one for each. A schedule scales it."""
        rates = rate if isinstance(rate, Sequence) else [rate] * len(self.optimizers)
        for optimizer, own in zip(self.optimizers, rates, strict=True):
            optimizer.set_learning_rate(own)

    def state_buffers(self) -> dict[str, Array]:
        """All that a step changes and the next one reads: the counter, parameters, what layers keep beside them, and
        the optimizers' moments."""
        buffers = {"step": self.counter}
        for net, optimizer in zip(self.networks, self.optimizers, strict=True):
            buffers[f"{net.name}.params"] = net.params
            if len(net.running):
                buffers[f"{net.name}.running"] = net.running
            buffers.update({f"{net.name}.{slot}": buffer for slot, buffer in optimizer.slots.items()})
        return buffers

    def first_non_finite(self, rows: int) -> tuple[str, str] | None:
        """Where the last step, on ``rows``, went wrong: (what, layer), following its data forward, backward, and into
        the state."""
        work = [
            (layer, stored)
            for net, workspace in self.workspaces(rows)
            for layer, stored in zip(net.layers, workspace, strict=True)
        ]
        forward = [("output", layer.name, stored.y) for layer, stored in work]
        backward = [("gradient", layer.name, stored.dz) for layer, stored in work]
        weights = [("weight", layer.name, buffer) for layer, _ in work for buffer in layer.params.values()]
        weights += [(name, layer.name, buffer) for layer, _ in work for name, buffer in layer.running.items()]
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
