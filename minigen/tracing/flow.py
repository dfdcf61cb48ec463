"""Sizes of gradients by layer over steps: as rows, as a CSV file, as a picture."""

from __future__ import annotations

import csv
import io
import math
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

from minigen.files import write_atomically
from minigen.paths import user_path
from minigen.plotting import Plot, save_figure
from minigen.tracing.summary import StepSummary

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COLUMNS = ("gradient", "backward", "weights", "update", "saturated", "dead")


class Flow:
    """The gradient norms of each layer in each of some ``steps``; a notebook shows the picture."""

    def __init__(self, steps: Sequence[StepSummary]) -> None:
        self.steps = list(steps)

    def rows(self) -> list[dict[str, float | int | str]]:
        """One for each step and layer: ``step``, counted from 1, ``layer``, and the :data:`COLUMNS`, which
        :class:`~minigen.tracing.summary.LayerSummary` explains; NaN where a layer has no such number."""
        return [
            {"step": step.step + 1, "layer": name, **{column: getattr(layer, column) for column in COLUMNS}}
            for step in self.steps
            for name, layer in step.layers.items()
        ]

    def to_csv(self, path: str | os.PathLike[str]) -> None:
        """Write :meth:`rows`, empty where NaN. Raises ``OSError``."""
        text = io.StringIO(newline="")
        table = csv.DictWriter(text, ["step", "layer", *COLUMNS])
        table.writeheader()
        for row in self.rows():
            table.writerow({name: _cell(value) for name, value in row.items()})
        write_atomically(user_path(path), text.getvalue().encode())

    def plot(self, path: str | os.PathLike[str] | None = None) -> Plot | None:
        """The gradient norms by layer: bars of one step, lines over several. Into a png, svg or pdf file where ``path``
        is given, else returned for a notebook. Raises ``ImportError`` without matplotlib, ``OSError``."""
        figure = _figure(self.steps)
        if path is None:
            return Plot(figure)
        save_figure(figure, path)
        return None

    def _repr_png_(self) -> bytes:
        return Plot(_figure(self.steps))._repr_png_()

    def __repr__(self) -> str:
        return f"<Flow of {len(self.steps)} steps: .rows(), .to_csv('flow.csv'), .plot('flow.png')>"


def _cell(value: float | int | str) -> float | int | str:
    if not isinstance(value, float):
        return value
    return "" if math.isnan(value) else f"{value:.6g}"


def _below(exponent: float) -> int:
    return math.floor(exponent - 0.05)


def _above(exponent: float) -> int:
    return math.ceil(exponent + 0.05)


def _figure(steps: Sequence[StepSummary]) -> Figure:
    """An axes for each network, its layers from the first to the last."""
    try:
        from matplotlib.figure import Figure
        from matplotlib.ticker import FormatStrFormatter, MaxNLocator, NullFormatter
    except ImportError as error:
        raise ImportError('matplotlib is needed to draw gradients: pip install "minigen-engine[plot]"') from error
    nets: dict[str, list[str]] = {}
    shown: list[float] = []
    for name, layer in steps[-1].layers.items():
        if not math.isnan(layer.gradient):
            nets.setdefault(name.rpartition(".")[0], []).append(name)
    figure = Figure(figsize=(4.6 * len(nets), 3.8), layout="constrained")
    every = figure.subplots(1, len(nets), sharey=True, squeeze=False)[0]
    for axes, (net, layers) in zip(every, nets.items(), strict=True):
        sizes = [[step.layers[name].gradient for step in steps] for name in layers]
        if len(steps) == 1:
            numbers = [name.rpartition(".")[2] for name in layers]
            axes.plot(numbers, [values[0] for values in sizes], marker="o")  # on a log scale a bar has no length
            axes.margins(x=0.2)
            axes.set_xlabel("layer")
        else:
            for name, values in zip(layers, sizes, strict=True):
                label, marker = name.rpartition(".")[2], "o" if len(steps) < 20 else ""
                axes.plot([step.step + 1 for step in steps], values, label=label, marker=marker)
            axes.set_xlabel("step")
            axes.xaxis.set_major_locator(MaxNLocator(integer=True))
            axes.legend(  # below, where it covers no line
                title="layer",
                fontsize="small",
                ncols=min(len(layers), 8),
                loc="upper center",
                bbox_to_anchor=(0.5, -0.15),
            )
        axes.set_title(net)
        axes.grid(True, axis="y", alpha=0.3)
        shown += [value for values in sizes for value in values if 0 < value < math.inf]
    if shown:
        every[0].set_yscale("log")
        every[0].set_ylim(*(10.0 ** way(math.log10(end)) for way, end in ((_below, min(shown)), (_above, max(shown)))))
        every[0].yaxis.set_major_formatter(FormatStrFormatter("%g"))
        every[0].yaxis.set_minor_formatter(NullFormatter())
    every[0].set_ylabel("norm of the gradient")
    return figure
