"""The page: what goes into the template, and the file. All is inside it; it needs no network and no JavaScript."""

from __future__ import annotations

import base64
import datetime
import os
import platform
from pathlib import Path
from typing import Any

import numpy as np

import minigen
from minigen import output, plotting
from minigen.datasets.load import as_rows
from minigen.files import write_atomically
from minigen.metrics.pairs import nearest
from minigen.paths import user_path
from minigen.report import charts

NAME = "report.html"  # in the folder of a run
SAMPLES = 64
NEIGHBOURS, BESIDE = 8, 4  # samples whose nearest rows are shown, and how many of these
RECONSTRUCTED = 16
SHOWN_ROWS, SHOWN_COLUMNS = 8, 8  # of a table
REFRESH = 30  # seconds after which a browser looks again, while the training is under way


def write(
    path: str | os.PathLike[str],
    model: Any,
    train: Any,
    labels: Any = None,
    *,
    evaluation: Any = None,
    wall_seconds: float | None = None,
) -> None:
    """Write the page of ``model`` to ``path``, one HTML file.

    ``train`` are the rows that it was trained on, ``labels`` theirs: a conditional VAE needs them to show latents and
    reconstructions, and they colour the map of latents. ``evaluation`` is what :func:`minigen.metrics.evaluate` gave;
    without it the page has the metrics that the training recorded. ``wall_seconds``: how long the run has taken in all.

    Raises ``ImportError``, saying what to install, without Jinja2, and ``OSError``. Without matplotlib the page has no
    curves and says so.
    """
    template = _template()
    model._require_fit()
    content = page_of(model, train, labels, evaluation, wall_seconds)
    write_atomically(user_path(path), template.render(content).encode())


def _template() -> Any:
    try:
        from jinja2 import Environment, StrictUndefined
    except ImportError as error:
        raise ImportError('Jinja2 is needed for a report: pip install "minigen-engine[report]"') from error
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    return environment.from_string(Path(__file__).with_name("page.html").read_text("utf-8"))


def page_of(model: Any, train: Any, labels: Any, evaluation: Any, wall_seconds: float | None) -> dict[str, Any]:
    """What the template shows."""
    known, shape = as_rows(train, name="train")
    known = known.reshape(-1, *model.item_shape_)
    pictures = output.natural_suffix(model) == ".png"
    content: dict[str, Any] = {
        "title": f"{model.kind.upper()}" + (f" on {model.source_}" if model.source_ else ""),
        "state": _state(model),
        "refresh": REFRESH if model.history_.stop_reason == "" else None,
        "facts": _facts(model, known, wall_seconds),
        "pictures": pictures,
        "settings": _settings(model),
        "versions": _versions(),
        "evaluation": None if evaluation is None else {"tables": evaluation.tables(), "note": _note(evaluation)},
        "recorded": [] if evaluation is not None else _recorded(model.history_),
    }
    samples = _samples(model, labels, len(known))
    content["samples"] = _shown_samples(model, samples, pictures)
    content["neighbours"] = _neighbours(model, samples, known, pictures)
    content["reconstructions"] = _reconstructions(model, known, labels) if pictures else None
    drawn = {
        "losses": lambda: charts.losses(model.history_),
        "curves": lambda: charts.metrics(model.history_),
        "columns": lambda: None if pictures else charts.columns(model, samples, known),
        "latents": lambda: charts.latents(model, known, labels),
    }
    content["without_matplotlib"] = False
    for name, draw in drawn.items():
        try:
            figure = draw()
        except ImportError:
            figure, content["without_matplotlib"] = None, True
        content[name] = None if figure is None else _embedded(plotting.encode_figure(figure, "svg", 100), "svg+xml")
    return content


def _embedded(file: bytes, kind: str) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(file).decode()}"


def _picture(model: Any, *columns: np.ndarray, across: int | None = None) -> str:
    return _embedded(plotting.encode_png(output.picture(model, columns, across)), "png")


# --- sections -------------------------------------------------------------------------------------


def _samples(model: Any, labels: Any, rows: int) -> np.ndarray:
    """As many as are shown, flat tables too; a model of numbers beside its rows draws them for some of these."""
    how: dict[str, Any] = {}
    if model.conditions_ is not None and model.classes_ is None:
        if labels is None:
            return np.empty((0, *model.item_shape_))
        how = {"y": np.asarray(labels)[output.spread(SAMPLES, rows)]}
    return np.asarray(model.sample(min(SAMPLES, rows), seed=model.seed, **how)).reshape(-1, *model.item_shape_)


def _shown_samples(model: Any, samples: np.ndarray, pictures: bool) -> dict[str, Any] | None:
    if len(samples) == 0:
        return None
    if not pictures:
        return {"table": _table(model, samples[:SHOWN_ROWS]), "picture": None, "note": ""}
    if model.classes_ is not None:
        samples, across = model._grid(SAMPLES, model.seed)
        picture = _picture(model, np.asarray(samples), across=across)
        return {"table": None, "picture": picture, "note": "A line has samples of a class."}
    return {"table": None, "picture": _picture(model, samples), "note": ""}


def _neighbours(model: Any, samples: np.ndarray, known: np.ndarray, pictures: bool) -> dict[str, Any] | None:
    """Some samples, each with the training rows that are nearest to it."""
    some, count = samples[:NEIGHBOURS], min(BESIDE, len(known))
    if len(some) == 0:
        return None
    numbers = nearest(some.reshape(len(some), -1), known.reshape(len(known), -1), count)[1]
    if pictures:
        beside = (known[numbers[:, i]] for i in range(count))
        return {"table": None, "picture": _picture(model, some, *beside, across=1)}
    rows = np.stack([some, known[numbers[:, 0]]], axis=1).reshape(-1, *some.shape[1:])
    names = [name for i in range(len(some)) for name in (f"sample {i + 1}", "nearest row")]
    return {"table": _table(model, rows, names), "picture": None}


def _reconstructions(model: Any, known: np.ndarray, labels: Any) -> str | None:
    if not hasattr(model, "reconstruct") or (model.conditions_ is not None and labels is None):
        return None
    chosen = output.spread(RECONSTRUCTED, len(known))
    originals = known[chosen]
    made = model.reconstruct(originals, None if model.conditions_ is None else np.asarray(labels)[chosen])
    return _picture(model, originals, np.asarray(made).reshape(originals.shape), across=4)


def _table(model: Any, rows: np.ndarray, names: list[str] | None = None) -> list[list[str]]:
    """Cells with a head; of wide rows the first columns."""
    flat = rows.reshape(len(rows), -1)
    columns = model._column_names() or [f"x{i}" for i in range(flat.shape[1])]
    head = [*([""] if names else []), *columns[:SHOWN_COLUMNS], *["..."] * (len(columns) > SHOWN_COLUMNS)]
    body = [
        [*([names[i]] if names else []), *(f"{float(value):.4g}" for value in row[:SHOWN_COLUMNS])]
        + ["..."] * (len(columns) > SHOWN_COLUMNS)
        for i, row in enumerate(flat)
    ]
    return [head, *body]


def _recorded(history: Any) -> list[tuple[str, str, str]]:
    """The metrics that the training has recorded last: name, value, real rows' value."""
    evaluations = history.evaluations
    if not evaluations.epochs:
        return []
    last, real = evaluations.at(evaluations.epochs[-1]), evaluations.real
    return [(name, f"{value:.4g}", f"{real[name]:.4g}" if name in real else "") for name, value in last.items()]


def _note(evaluation: Any) -> str:
    return f"{evaluation.rows} samples, and as many held-out rows. Features: {evaluation.features}."


# --- facts ----------------------------------------------------------------------------------------


def _state(model: Any) -> str:
    history = model.history_
    done = f"{history.epochs} of {max(model.epochs, history.epochs)} epochs"
    if history.stop_reason == "":
        return f"under way: {done}"
    words = {"callback": "ended by a callback", "error": "ended by an error", "early stopping": "stopped early"}
    return f"{words.get(history.stop_reason, history.stop_reason)}: {done}"


def _facts(model: Any, known: np.ndarray, wall_seconds: float | None) -> list[tuple[str, str]]:
    history = model.history_
    item = " x ".join(map(str, model.item_shape_))
    facts = [("data", f"{len(known):,} items of {item}, {model.data_dtype_}")]
    facts += [
        (net.name, f"{'-'.join(map(str, net.sizes))}, {net.parameter_count:,} parameters") for net in model.networks_
    ]
    facts.append(("device", f"{model.device_} ({model.precision_})"))
    facts.append(("training", f"{history.steps:,} steps in {duration(sum(history.seconds))}"))
    if wall_seconds is not None:
        facts.append(("with evaluations and files", duration(wall_seconds)))
    if history.epochs:
        losses = ", ".join(f"{name} {value:.4g}" for name, value in history.last_epoch().items())
        facts.append(("last epoch", losses))
    if (best := history.evaluations.best_epoch) is not None:
        facts.append(("best epoch", f"{best}, by the first metric"))
    return facts


def duration(seconds: float) -> str:
    """``1 h 2 min``, ``3 min 4 s`` or ``5.6 s``."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def _settings(model: Any) -> list[tuple[str, str, bool]]:
    """Name, value, and whether it is other than the default."""
    defaults = type(model)().get_params()
    return [(name, repr(value), repr(value) != repr(defaults[name])) for name, value in model.get_params().items()]


def _versions() -> list[tuple[str, str]]:
    return [
        ("minigen", minigen.__version__),
        ("Python", platform.python_version()),
        ("NumPy", np.__version__),
        ("system", f"{platform.system()} {platform.release()} {platform.machine()}"),
        ("written", datetime.datetime.now().astimezone().isoformat(" ", "seconds")),
    ]
