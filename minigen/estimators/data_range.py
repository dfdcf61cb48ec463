"""The range of a GAN's data: what its generator's last layer can give."""

from __future__ import annotations

from typing import Any

import numpy as np

from minigen.backend import Array
from minigen.errors import ArgumentError
from minigen.estimators import scaling
from minigen.estimators.base import Estimator
from minigen.estimators.looking_back import warn_of_a_win, warn_of_collapse
from minigen.estimators.scaling import RANGES


class OfRange(Estimator):
    """An estimator whose ``output`` is the activation of a last layer that has to reach the data."""

    output: str

    _unbounded_hint = "output='linear' takes any"

    def _choose_range(self, rows: Array, binary: bool) -> tuple[float, float, str]:
        output = self.output
        if output == "auto" and self.standardize not in ("auto", False):
            output = "linear"
        if rows.dtype == np.uint8:
            if output == "auto":
                output = "sigmoid" if binary else "tanh"
            white = 1 if binary else 255
            scale, shift = (1 / white, 0.0) if output == "sigmoid" else (2 / white, -1.0)
            return scale, shift, output
        if output == "auto":
            names = ("sigmoid", "tanh", "linear")
            output = next(name for name in names if scaling.lies_in(rows, *RANGES[name]))
        return 1.0, 0.0, output

    def _in_range(self, rows: Array, *from_data: Any) -> Array:
        output = from_data[-1]
        if rows.dtype == np.uint8 or output == "linear":
            return rows
        low, high = RANGES[output]
        if not scaling.lies_in(rows, low, high):
            raise ArgumentError(
                "X",
                f"must lie in [{low:g}, {high:g}] for output={output!r}, but its values go {scaling.digits(rows)}; "
                f"rescale it, np.clip(X, {low:g}, {high:g}), or choose another output",
            )
        return scaling.clipped(rows, low, high)

    def _unbounded(self, *from_data: Any) -> bool:
        return bool(from_data[-1] == "linear")

    def _look_back(self, rows: Array, codes: np.ndarray | None) -> None:
        warn_of_a_win(self)
        warn_of_collapse(self, rows, codes)
