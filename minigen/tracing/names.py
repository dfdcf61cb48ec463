"""What a step's buffers are called: ``generator.0.W``, ``discriminator.1.dz``, ``real_rows``."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator
from typing import Any

import numpy as np

from minigen.models.network import Network, Workspace
from minigen.models.step import Step

WORK = re.compile(r"(work(_\w+)?|logit|values)\.\d+\.\w+$")
DEPTH = 3  # how far to look into the objects that a step has


class Names:
    """Names of the arrays of a ``step`` on ``rows`` rows, and of parts of them, by where they lie in memory."""

    def __init__(self, step: Step, rows: int) -> None:
        self._known: list[tuple[int, int, str, np.ndarray]] = []
        seen: set[tuple[int, int]] = set()
        self._cache: dict[tuple[int, int], str] = {}
        for name, array in _arrays_of(step, rows):
            place = span(array)
            # What a layer keeps of some rows only is called as it is of all.
            part = WORK.search(name) is not None and self._find(*place)
            if array.nbytes and place not in seen and not part:
                seen.add(place)
                self._known.append((*place, name, array))

    def of(self, array: np.ndarray) -> str:
        """The name of ``array``, with the rows where it is a part of one that has a name; ``""`` where none has."""
        place = span(array)
        if place not in self._cache:
            self._cache[place] = self._find(*place)
        return self._cache[place]

    def _find(self, start: int, stop: int) -> str:
        around = [known for known in self._known if known[0] <= start and stop <= known[1]]
        if not around:
            return ""
        first, end, name, array = min(around, key=lambda known: known[1] - known[0])
        if (first, end) == (start, stop) or not len(array):
            return name
        row = (end - first) // len(array)
        exact = (start - first) % row == 0 and (stop - first) % row == 0
        return f"{name}[{(start - first) // row}:{(stop - first) // row}]" if exact else name


def span(array: np.ndarray) -> tuple[int, int]:
    """Where ``array`` lies: the address of its first byte, and that behind its last one."""
    start = int(array.__array_interface__["data"][0])
    return start, start + int(array.nbytes)


def _arrays_of(step: Step, rows: int) -> Iterator[tuple[str, np.ndarray]]:
    """Every array with its name. Where two names are of one array, the first counts."""
    for net, work in step.workspaces(rows):
        yield from _of_workspace(net.name, work)
    networks = [*step.networks, *(value.net for value in vars(step).values() if isinstance(_net(value), Network))]
    for net in dict.fromkeys(networks):
        prefix = "" if net in step.networks else "average of "
        for layer in net.layers:
            yield from ((f"{prefix}{layer.name}.{part}", array) for part, array in layer.params.items())
            yield from ((f"{prefix}{layer.name}.d{part}", array) for part, array in layer.grads.items())
            yield from ((f"{prefix}{layer.name}.{part}", array) for part, array in layer.running.items())
        yield f"{prefix}{net.name}.params", net.params
        yield f"{prefix}{net.name}.grads", net.grads
        yield f"{prefix}{net.name}.running", net.running
    for net, optimizer in zip(step.networks, step.optimizers, strict=True):
        yield from ((f"{net.name}.{slot}", array) for slot, array in optimizer.slots.items())
        yield f"{net.name}.lr", optimizer.lr
        yield f"{net.name}.base_lr", optimizer.base
        yield f"{net.name}.norm", optimizer.norm
    yield "step", step.counter
    yield from _inside("", step, DEPTH)
    for net in step.networks:
        for layer in net.layers:
            yield from _inside(f"{layer.name}.", layer, DEPTH)


def _net(value: Any) -> Any:
    return getattr(value, "net", None)


def _of_workspace(name: str, work: Workspace) -> Iterator[tuple[str, np.ndarray]]:
    for i, stored in enumerate(work):
        yield from _of_stored(f"{name}.{i}", stored)


def _of_stored(name: str, stored: Any) -> Iterator[tuple[str, np.ndarray]]:
    for field in dataclasses.fields(stored):
        value = getattr(stored, field.name)
        if isinstance(value, np.ndarray) and field.name != "condition":
            yield f"{name}.{field.name}", value
        elif field.name == "inner":  # of the layer within
            yield from _of_stored(name, value)


def _inside(prefix: str, value: Any, depth: int) -> Iterator[tuple[str, np.ndarray]]:
    """Arrays among the attributes of ``value``, an object of :mod:`minigen.models`, and of those that it has."""
    inner = []
    for name, attribute in vars(value).items():
        path = f"{prefix}{name.strip('_')}"
        if isinstance(attribute, np.ndarray):
            yield path, attribute
        elif isinstance(attribute, Workspace):
            yield from _of_workspace(path, attribute)
        elif isinstance(attribute, (list, tuple)):
            yield from ((f"{path}.{i}", part) for i, part in enumerate(attribute) if isinstance(part, np.ndarray))
            inner += [(f"{path}.{i}", part) for i, part in enumerate(attribute) if dataclasses.is_dataclass(part)]
        elif type(attribute).__module__.startswith("minigen.models") and not isinstance(attribute, Network):
            inner.append((path, attribute))
    if depth:
        for path, attribute in inner:
            if hasattr(attribute, "__dict__"):
                yield from _inside(f"{path}.", attribute, depth - 1)
