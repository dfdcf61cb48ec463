"""The page's figures, by matplotlib. Each raises ImportError without it, and is None where there is nothing to draw."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from minigen import output, plotting

MOST_COLUMNS = 12  # of a table, each in a panel of its own
MAPPED = 1000  # rows in the map of latents
BINS = 30


def losses(history: Any) -> Any:
    """Each loss over the epochs."""
    return plotting.loss_curves(history) if history.epochs else None


def metrics(history: Any) -> Any:
    """A panel a metric: its values, and the real rows' as a dashed line."""
    evaluations = history.evaluations
    if not evaluations.epochs:
        return None
    from matplotlib.ticker import MaxNLocator

    found = evaluations.metrics
    figure, panels = _panels(len(found))
    for axes, (name, values) in zip(panels, found.items(), strict=False):
        axes.plot(evaluations.epochs, values, marker="o", markersize=3)
        if name in evaluations.real:
            axes.axhline(evaluations.real[name], color="grey", linestyle="--", linewidth=1)
        axes.set_title(name, fontsize=10)
        axes.set_xlabel("epoch", fontsize=8)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=5))
    return figure


def columns(model: Any, samples: np.ndarray, known: np.ndarray) -> Any:
    """Histograms of the first columns: training rows, and samples in outline."""
    if len(samples) == 0 or samples.ndim != 2:
        return None
    made, real = (rows[:, :MOST_COLUMNS].astype(np.float64) for rows in (samples, known))
    names = model._column_names() or [f"x{i}" for i in range(samples.shape[1])]
    figure, panels = _panels(made.shape[1])
    for i, axes in enumerate(panels):
        edges = np.histogram_bin_edges(np.concatenate([made[:, i], real[:, i]]), bins=BINS)
        axes.hist(real[:, i], edges, density=True, color="lightgrey", label="training rows")
        axes.hist(made[:, i], edges, density=True, histtype="step", color="tab:blue", label="samples")
        axes.set_title(names[i], fontsize=10)
        axes.set_yticks([])
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=2, fontsize=8)
    return figure


def latents(model: Any, known: np.ndarray, labels: Any) -> Any:
    """The means of some rows' latents on their first two principal axes, coloured by label where there are labels."""
    if not hasattr(model, "encode") or (model.conditions_ is not None and labels is None):
        return None
    chosen = output.spread(MAPPED, len(known))
    of_rows = None if labels is None else np.asarray(labels)[chosen]
    mu = np.asarray(model.encode(known[chosen], None if model.conditions_ is None else of_rows), np.float64)
    flat, what = principal_axes(mu)
    figure = _figure(5.6, 5.0)
    axes = figure.add_subplot()
    classes = np.empty(0) if of_rows is None or of_rows.ndim > 1 else np.unique(of_rows)
    if of_rows is not None and 0 < len(classes) <= 20:
        from matplotlib import colormaps

        colours = colormaps["tab10" if len(classes) <= 10 else "tab20"]
        for i, name in enumerate(classes):
            of_class = flat[of_rows == name]
            axes.scatter(of_class[:, 0], of_class[:, 1], s=8, color=colours(i), label=str(name))
        axes.legend(markerscale=2, fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5))
    else:
        axes.scatter(flat[:, 0], flat[:, 1], s=8)
    axes.set_xlabel(what[0])
    axes.set_ylabel(what[1])
    return figure


def principal_axes(mu: np.ndarray) -> tuple[np.ndarray, tuple[str, str]]:
    """``mu[n, L]`` on the two axes along which it varies most, ``[n, 2]``, and what they are; latents of two as they
    are, and of one beside zeros."""
    if mu.shape[1] <= 2:
        return np.pad(mu, ((0, 0), (0, 2 - mu.shape[1]))), ("latent 0", "latent 1" if mu.shape[1] == 2 else "")
    centred = mu - mu.mean(axis=0)
    _, sizes, axes = np.linalg.svd(centred, full_matrices=False)
    shares = sizes**2 / max((sizes**2).sum(), 1e-300)
    first, second = (f"principal axis {i + 1} ({shares[i]:.0%} of the variance)" for i in range(2))
    return centred @ axes[:2].T, (first, second)


def _figure(width: float, height: float) -> Any:
    from matplotlib.figure import Figure  # not pyplot: no window, no global state

    return Figure(figsize=(width, height), layout="constrained")


def _panels(count: int) -> tuple[Any, list[Any]]:
    across = min(2, count)  # readable on a phone
    down = math.ceil(count / across)
    figure = _figure(3.2 * across, 2.1 * down + 0.3)
    return figure, [figure.add_subplot(down, across, i + 1) for i in range(count)]
