"""Calls of every operation, made from its row in :mod:`minigen.ops`: random numbers in buffers of random sizes.

What a row does not say is here: which numbers an operation can take where not any will do, and values of settings.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from minigen.backend import Array, Backend
from minigen.gradcheck_tools import InOut, Operation, Out, normals
from minigen.ops import OPERATIONS, Operations
from minigen.reference_backend import NumpyBackend, derivation
from minigen.registry import Buffer, OneOf, Row, flag

SIZES = {"T": 5, "N": 23}
"""Of what is not drawn."""
SETTINGS: dict[str, Any] = {
    **{"variance": 0.3, "beta": 0.7, "momentum": 0.9, "weight_decay": 0.05, "beta1": 0.6, "beta2": 0.9, "eps": 1e-3},
    **{"weight": 0.7, "smoothing": 0.2, "limit": 0.6, "std": 0.3, "temperature": 0.7, "steps": 12},
    **{"free_bits": 0.6, "high": 1.5, "draws": 3},
    **{"seed": 12, "stream": 3, "scale": 0.5, "shift": -1.0, "n": 10_000, "batch_size": 200, "steps_per_epoch": 50},
    **{"first": 5, "rate": 0.4},
    **{"most": 1.5, "decay": 0.95, "warmup": 3, "horizon": 20},
}
"""Of the others every allowed value is taken."""


def letters(row: Row) -> list[str]:
    """The sizes of an operation that are drawn."""
    found = [
        letter
        for buffer in row.buffers
        for size in buffer.shape or ("R", "C")
        for letter in re.findall("[A-Za-z]", size)
    ]
    return [letter for letter in dict.fromkeys(found) if letter not in SIZES]


def fitting(row: Row, drawn: Mapping[str, int], rng: np.random.Generator) -> dict[str, int]:
    """All sizes, those that are ``drawn`` made such as go together."""
    sizes = SIZES | dict(drawn)
    sizes |= {letter: min(sizes[letter], 4) for letter in "GK" if letter in sizes}  # batches, pieces: there are few
    if "n_real" in row.settings:
        sizes["B"] = max(2, sizes["B"])
    if "V" in sizes:
        sizes["V"] = int(rng.choice([1, sizes["D"]]))
    if "draws" in row.settings:
        sizes["R"] *= SETTINGS["draws"]
    if "G" in sizes and "D" in sizes:  # blocks of columns
        sizes["G"] = min(sizes["G"], sizes["D"])
    return sizes


def shape_of(buffer: Buffer, sizes: Mapping[str, int]) -> tuple[int, ...]:
    parts = [re.fullmatch(r"(\d*)([A-Za-z]?)\+?", size).groups() for size in buffer.shape or ("R", "C")]  # type: ignore[union-attr]
    return tuple(int(factor or 1) * (sizes[letter] if letter else 1) for factor, letter in parts)


def _rounded(values: np.ndarray) -> np.ndarray:
    """The nearest that a float32 holds, so that every backend starts from the same numbers."""
    return values.astype(np.float32).astype(np.float64)


def argument(row: Row, buffer: Buffer, sizes: Mapping[str, int], rng: np.random.Generator) -> Any:
    """What stands for a buffer: numbers that the operation can take."""
    shape = shape_of(buffer, sizes)
    if buffer.access == "=":
        return Out(*shape, dtype=None if buffer.dtype == "float" else buffer.dtype)
    if buffer.dtype == "uint64":
        value: np.ndarray = np.array([rng.integers(2**60) if "seed" in row.settings else 7], np.uint64)
    elif buffer.name == "ends":
        value = 1 + np.sort(rng.choice(sizes["D"], sizes["G"], replace=False)).astype(np.int32)
        value[-1] = sizes["D"]
    elif buffer.dtype == "int32":
        value = rng.integers(0, SIZES["N"], shape, np.int32)
    elif buffer.dtype == "data":
        value = rng.integers(0, 256, shape, np.uint8) if rng.integers(2) else normals(rng, *shape)
    elif row.name.startswith("spectral_norm") and buffer.name in ("u", "v"):  # of length 1
        value = normals(rng, *shape)
        value = _rounded(value / np.linalg.norm(value))
    elif row.name == "gumbel_softmax_forward" and buffer.name == "u":
        value = rng.random(shape, np.float32).astype(np.float64)
    elif buffer.name == "sigma":
        value = _rounded(1 + rng.random(shape))
    elif buffer.name == "running_var":
        value = _rounded(rng.random(shape))
    elif row.name.endswith(("_loss", "logvar_gradient")) and buffer.name == "x":
        value = _rounded(rng.random(shape))
    elif row.name.endswith("logvar_gradient") and buffer.name != "logvar":  # so that a sum of products does not cancel
        value = _rounded(1 + rng.random(shape))
    elif buffer.name in ("v", "lr") and row.recorded_as == "optimizer":
        value = _rounded(rng.random(shape))
    elif buffer.name == "logits":  # the first, real ones elsewhere: means of them, which some losses are, do not cancel
        value = _rounded(5 * normals(rng, *shape) - 8 * (np.arange(shape[0]) < shape[0] / 2)[:, None])
    else:
        value = normals(rng, *shape)
    return InOut(value) if buffer.access == "+" else value


def calls(row: Row, rng: np.random.Generator, sizes: Mapping[str, int]) -> Iterator[dict[str, Any]]:
    """Arguments by name: one call for each combination of choices, and one without what may be left out."""
    choices: dict[str, tuple[Any, ...]] = {
        name: check.known for name, check in row.settings.items() if isinstance(check, OneOf)
    }
    choices |= {name: (False, True) for name, check in row.settings.items() if check is flag}
    names, chosen = list(choices), list(itertools.product(*choices.values()))
    optional = {buffer.name: None for buffer in row.buffers if buffer.optional}
    for i, values in enumerate([*chosen, *chosen[: bool(optional)]]):
        arguments = {buffer.name: argument(row, buffer, sizes, rng) for buffer in row.buffers}
        arguments |= {key: SETTINGS[key] for key in row.settings if key in SETTINGS}
        if "n_real" in row.settings:
            arguments["n_real"] = 1 + int(rng.integers(sizes["B"] - 1))
        arguments |= dict(zip(names, values, strict=True))
        if arguments.get("accumulate"):  # onto what is there
            held = {buffer.name: normals(rng, *shape_of(buffer, sizes)) for buffer in row.buffers if buffer.written}
            arguments |= {name: InOut(values) for name, values in held.items()}
        if i >= len(chosen):
            arguments |= optional
        missing = set(row.signature.parameters) - {"self"} - set(arguments)
        assert not missing, f"minigen/gradcheck_operations.py knows no {missing} for {row.name}"
        yield arguments


def ordered(row: Row, arguments: Mapping[str, Any]) -> tuple[Any, ...]:
    return tuple(arguments[name] for name in row.signature.parameters if name != "self")


def operations(rng: np.random.Generator, low: int = 9, high: int = 70, of: type = Operations) -> Iterator[Operation]:
    """(operation, what, method of the backend, its arguments, outputs of the float64 reference) of every operation that
    is a method ``of`` this, at sizes in [low, high). An operation is called what the file of its formula is."""
    reference = NumpyBackend(np.float64)
    for row in (row for row in OPERATIONS.values() if hasattr(of, row.name)):
        drawn = dict(zip(letters(row), rng.integers(low, high, len(letters(row))).tolist(), strict=True))
        for named in calls(row, rng, fitting(row, drawn, rng)):
            arguments = ordered(row, named)
            told = [value for name, value in named.items() if isinstance(row.settings.get(name), OneOf)]
            told += [name for name in named if row.settings.get(name) is flag and named[name]]
            told += [f"without {name}" for name, value in named.items() if value is None]
            family = derivation(row.recorded_as).rpartition("/")[2].removesuffix(".py") or row.name
            yield family, " ".join([row.name, *told]), row.name, arguments, call(reference, row.name, *arguments)


def call(backend: Backend, method: str, *arguments: Any) -> list[np.ndarray]:
    """Call ``backend.method`` and return what it wrote into its :class:`Out` and :class:`InOut` arguments.

    Floating arrays are uploaded in the backend's dtype, integer arrays as they are, other arguments are passed on.
    """
    buffers = [place(backend, argument) for argument in arguments]
    getattr(backend, method)(*buffers)
    return [
        backend.download(buffer)
        for argument, buffer in zip(arguments, buffers, strict=True)
        if isinstance(argument, (Out, InOut))
    ]


def place(backend: Backend, argument: Any) -> Array:
    if isinstance(argument, Out):
        dtype = np.dtype(backend.dtype if argument.dtype is None else argument.dtype)
        argument = np.full(argument.shape, np.nan if dtype.kind == "f" else -1, dtype)
    elif isinstance(argument, InOut):
        argument = argument.array
    if not isinstance(argument, np.ndarray):
        return argument
    return backend.upload(argument.astype(backend.dtype) if argument.dtype.kind == "f" else argument)
