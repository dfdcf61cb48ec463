"""What a trace of training steps is: records in their order, to be read, searched and shown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, overload

import numpy as np

from minigen.tracing.records import Record


class Trace(Sequence[Record]):
    """The records of the traced steps, in the order of their calls; ``minigen.trace`` makes it.

    ``losses``: the reported losses of each step. ``model``: the copy that was trained, after the steps.
    """

    def __init__(self, records: tuple[Record, ...], losses: Mapping[str, np.ndarray], model: Any) -> None:
        self.records, self.losses, self.model = records, losses, model

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
