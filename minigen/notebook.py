"""What a notebook shows of an estimator, and whether one is running."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from html import escape
from typing import Any

from minigen.datasets.frames import listed

# No colour but the page's own, and grey that shows on white and on black: readable in light and dark themes.
STYLE = """
.minigen{display:inline-block;max-width:100%;overflow-x:auto;color:inherit;border:1px solid rgba(128,128,128,.5);
border-radius:4px;padding:.4em .8em;font-family:sans-serif;font-size:13px;line-height:1.4}
.minigen summary{cursor:pointer}
.minigen table{border-collapse:collapse;margin:.4em 0;border:none}
.minigen table tr{background:none!important}
.minigen th,.minigen td{text-align:left!important;vertical-align:top;padding:.1em 1em .1em 0!important;border:none;
font-size:13px}
.minigen th{font-weight:normal;opacity:.75}
.minigen td{font-family:monospace}
.minigen tr.changed th,.minigen tr.changed td{font-weight:bold;opacity:1}
""".replace("\n", "")


def running() -> bool:
    """Whether this process is the kernel of a notebook."""
    get_shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)
    return hasattr(get_shell(), "kernel")


def estimator_html(model: Any) -> str:
    """Kind, data, networks, training and settings of ``model`` as HTML; settings that are not the defaults in bold."""
    settings, defaults = model.get_params(), type(model)().get_params()
    changed = [name for name in settings if repr(settings[name]) != repr(defaults[name])]
    summary = f"settings, {len(changed)} other than the default" if changed else "settings, all as by default"
    return (
        f'<div class="minigen"><style>{STYLE}</style><b>{type(model).__name__}</b>: {escape(_state(model))}'
        f"{_table(_facts(model))}<details><summary>{summary}</summary>"
        f"{_table(((name, repr(value)) for name, value in settings.items()), changed)}</details></div>"
    )


def _table(rows: Iterable[tuple[str, str]], changed: Iterable[str] = ()) -> str:
    marks = {name: ' class="changed"' for name in changed}
    lines = [f"<tr{marks.get(name, '')}><th>{escape(name)}</th><td>{escape(text)}</td></tr>" for name, text in rows]
    return f"<table>{''.join(lines)}</table>" if lines else ""


def _state(model: Any) -> str:
    if not model._fitted():
        return "not trained yet"
    epochs = model.history_.epochs
    return f"trained, {epochs} epoch{'s' * (epochs != 1)} on {model.device_} ({model.precision_})"


def _facts(model: Any) -> list[tuple[str, str]]:
    if not model._fitted():
        return []
    history = model.history_
    facts = [("item", f"{' x '.join(map(str, model.item_shape_))}, {model.data_dtype_}")]
    if (names := model._column_names()) is not None:
        facts.append(("columns", listed(names)))
    if model.source_ is not None:
        facts.append(("data", model.source_))
    for net in model.networks_:
        facts.append((net.name, f"{'-'.join(map(str, net.sizes))}, {net.parameter_count:,} parameters"))
    facts.append(("steps", f"{history.steps} in {sum(history.seconds):.1f} s; {history.stop_reason or 'under way'}"))
    if history.epochs:
        facts.append(("last epoch", ", ".join(f"{name} {mean:.4g}" for name, mean in history.last_epoch().items())))
    return facts
