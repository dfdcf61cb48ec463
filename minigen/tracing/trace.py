"""What a trace of training steps is: records in their order, to be read, searched and shown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, overload

import numpy as np

from minigen.tracing import explain, graph, show
from minigen.tracing.flow import Flow
from minigen.tracing.records import Record
from minigen.tracing.summary import summaries


class Trace(Sequence[Record]):
    """The records of the traced steps, in the order of their calls; ``minigen.trace`` makes it.

    ``losses``: the reported losses of each step. ``model``: the copy that was trained, after the steps. ``print``
    shows every call, and so does a notebook, as a table.
    """

    def __init__(
        self, records: tuple[Record, ...], losses: Mapping[str, np.ndarray], model: Any, parts: Mapping[str, str]
    ) -> None:
        self.records, self.losses, self.model = records, losses, model
        self._parts = parts

    @overload
    def __getitem__(self, index: int) -> Record: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[Record, ...]: ...
    def __getitem__(self, index: int | slice) -> Record | tuple[Record, ...]:
        return self.records[index]

    def __len__(self) -> int:
        return len(self.records)

    def find(
        self,
        operation: str | None = None,
        *,
        part: str | None = None,
        layer: str | None = None,
        step: int | None = None,
    ) -> list[Record]:
        """The records of this operation, part of the step and layer, ``None`` for any."""
        wanted = {"operation": operation, "part": part, "layer": layer, "step": step}
        return [
            record
            for record in self.records
            if all(value is None or getattr(record, name) == value for name, value in wanted.items())
        ]

    def text(self, *, values: bool = False) -> str:
        """Every call as text: formula, buffers with their shapes and norms, file and line; with ``values`` the numbers
        themselves, the middle of long arrays left out."""
        return show.text(self.records, self._parts, self.model.networks_ if values else None)

    def mermaid(self) -> str:
        """The last step as a graph in mermaid's language: operations, and what each takes from which."""
        return graph.mermaid(self.find(step=self.records[-1].step))

    def flow(self) -> Flow:
        """Sizes of gradients and updates by layer and step, with a CSV file and a picture."""
        return Flow(summaries(self.records, self.model.networks_))

    def explain(self) -> list[explain.Finding]:
        """How the training stands at the last step: who is winning, gradients that vanish or explode, saturated units,
        latents in use. Each finding has its sentence, ``str(finding)``, and its ``figures``."""
        return explain.of_last(summaries(self.records, self.model.networks_))

    def __str__(self) -> str:
        return self.text()

    def __repr__(self) -> str:
        last = ", ".join(f"{name} {values[-1]:.4g}" for name, values in self.losses.items())
        return f"<Trace of {len(self)} operations; losses: {last}; print shows them, [i] is one of them>"

    def _repr_html_(self) -> str:
        return show.html(self.records, self._parts)
