"""Which backends can be used here, and the choice among them by the name of a device.

Not called ``devices``: as an attribute of the package, that is the function."""

from __future__ import annotations

import functools
import warnings
from dataclasses import dataclass
from typing import Any

from minigen.backend import Backend
from minigen.errors import ArgumentError, DeviceError

NAMES = ("numpy", "cpu", "cuda")
AUTO = ("cpu", "numpy")  # best first; cuda joins when a GPU has run its tests


@dataclass(frozen=True)
class Device:
    """One backend: whether it is ``usable`` here, and ``detail``: what it runs on, or why not and what to install."""

    name: str
    usable: bool
    detail: str

    def __repr__(self) -> str:
        return f"{self.name}: {'' if self.usable else 'not usable: '}{self.detail}"


def devices() -> dict[str, Device]:
    """The state of each backend on this machine, by name: ``numpy``, ``cpu`` and ``cuda``."""
    return {name: _probe(name) for name in NAMES}


def get_backend(device: str = "auto", precision: str = "auto") -> Backend:
    """The backend of ``device``: ``"numpy"``, ``"cpu"``, ``"cuda"``, ``"cuda:1"``, or ``"auto"``, the best usable,
    with a warning, once, where that is ``"numpy"`` because minigen's compiled module is missing.

    ``precision`` is how it takes matrix products: one of :func:`precisions`, or ``"auto"``, the fastest of the device
    with an error like float32's. That is ``"ieee"``, float32 throughout, on ``numpy`` and on most processors. On
    ``cuda`` it is ``"tf32x3"`` and on a ``cpu`` with AMX ``"bf16x6"``: each product of float32 numbers is made of
    three or six on units that multiply shorter numbers much faster, so that a training takes the same path on every
    device. ``"bf16x3"``, ``"tf32"`` and ``"bf16"`` shorten the operands, with errors of about 5e-6, 1e-3 and 1e-2.

    Raises ``ValueError`` for an unknown name and :class:`DeviceError` for a device that cannot be used here.
    """
    kind, index = _kind(device)
    allowed = ("auto", *kind.PRECISIONS)
    if precision not in allowed:
        known = ", ".join(map(repr, allowed))
        raise ArgumentError("precision", f"must be one of {known} on device {kind.name!r}, not {precision!r}")
    if precision == "auto":
        precision = kind.default_precision()
    return kind(index, precision=precision) if kind.name == "cuda" else kind(precision=precision)


def precisions(device: str = "auto") -> tuple[str, ...]:
    """What :func:`get_backend` takes as the precision of ``device``, beside ``"auto"``; raises as it does."""
    return tuple(_kind(device)[0].PRECISIONS)


def _kind(device: str) -> tuple[Any, int]:
    """The backend's class, and the number of the GPU."""
    if device == "auto":
        device = _best()
    base, _, index = device.partition(":") if isinstance(device, str) else ("", "", "")
    if base not in NAMES or (index and (base != "cuda" or not index.isdecimal())):
        known = ", ".join(map(repr, ("auto", *NAMES, "cuda:1")))
        raise ArgumentError("device", f"must be one of {known} (or another GPU's number), not {device!r}")
    state = _probe(base)
    if not state.usable:
        raise DeviceError(f"device {device!r} cannot be used here: {state.detail}")
    if base == "numpy":
        from minigen.reference_backend import NumpyBackend

        return NumpyBackend, 0
    if base == "cpu":
        from minigen.cpu import CpuBackend

        return CpuBackend, 0
    from minigen.cuda import CudaBackend

    return CudaBackend, int(index or 0)


def _best() -> str:
    """The device that ``"auto"`` takes; a warning, once, where it is not the one that an installed minigen has."""
    states = [_probe(name) for name in AUTO]
    best = next(state for state in states if state.usable)
    if not states[0].usable:
        _warn_once(
            f"device='auto' takes {best.name!r}, which is slower, because {AUTO[0]!r} cannot be used: "
            f"{states[0].detail}"
        )
    return best.name


@functools.cache
def _warn_once(message: str) -> None:
    warnings.warn(message, UserWarning, stacklevel=5)  # get_backend's caller


def _probe(name: str) -> Device:
    if name == "numpy":
        import numpy

        return Device(name, True, f"the reference, NumPy {numpy.__version__}")
    if name == "cpu":
        return _probe_cpu()
    return _probe_cuda()


def _probe_cpu() -> Device:
    try:
        from minigen import cpu
    except ImportError as error:
        return Device("cpu", False, str(error))
    return Device("cpu", True, f"native kernels for {cpu.isa()}, {cpu.get_num_threads()} threads")


def _probe_cuda() -> Device:
    from minigen import cuda

    usable, detail = cuda.probe()
    return Device("cuda", usable, detail)
