"""Tools of the operation tests: random shapes, tolerances, and buffers that notice what a kernel should not do."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest

from minigen.gradcheck_tools import InOut, Out, normals, off_zero, relative_error

__all__ = [
    "Arena",
    "InOut",
    "Out",
    "assert_close",
    "f32",
    "knows_values",
    "normals",
    "off_zero",
    "refuses_bad_buffers",
    "relative_error",
    "shapes",
    "tolerance",
    "use_threads",
]

ODD = (1, 2, 3, 5, 7, 15, 17, 31, 33, 47, 63, 65, 97, 100, 129)
AROUND_OUTPUTS, AROUND_INTEGERS = 46, 249
"""What lies around a buffer; around a floating input lies NaN."""


PRODUCTS = {"ieee": 3e-6, "bf16x6": 3e-6, "tf32x3": 5e-6, "bf16x3": 5e-5, "tf32": 3e-3, "bf16": 2e-2}
"""Of float32 matrix products, also of a single result. The last two shorten their factors, at worst by cutting off
at 2**-10 and 2**-7 (so does Triton's interpreter; a GPU rounds to bf16): a sum of one term is off by twice that."""


def tolerance(backend: Any, products: bool = False) -> float:
    """Largest relative error allowed between a backend and the float64 reference, for sums of a few hundred terms.

    With ``products``, of an operation that takes matrix products, in the backend's precision.
    """
    if backend.dtype == np.float64:
        return 1e-13
    return PRODUCTS[backend.precision] if products else 3e-6


def knows_values(backend: Any) -> bool:
    """Whether an operation sees what its buffers hold before it runs, so that a bad row number can raise."""
    return backend.name != "cuda"


def assert_close(backend: Any, out: np.ndarray, reference: Any, scale: Any = None, *, products: bool = False) -> None:
    """``||out - reference|| <= tolerance ||scale||``; ``scale`` is the size of a sum's terms, before they cancel."""
    out, reference = np.asarray(out, np.float64), np.asarray(reference, np.float64)
    scale = np.broadcast_to(reference if scale is None else scale, reference.shape)
    assert out.shape == reference.shape
    error, allowed = np.linalg.norm(out - reference), tolerance(backend, products) * np.linalg.norm(scale)
    assert error <= allowed, f"error {error:.3g} of {allowed:.3g} allowed, shape {out.shape}"


def shapes(rng: np.random.Generator, dimensions: int, count: int = 6) -> list[tuple[int, ...]]:
    """All ones, each dimension alone at 1, and ``count`` random odd shapes."""
    drawn = [tuple(int(n) for n in rng.choice(ODD, dimensions)) for _ in range(count)]
    edges = [tuple(1 if k == i else 33 for k in range(dimensions)) for i in range(dimensions)]
    return [(1,) * dimensions, *edges, *drawn]


def f32(array: np.ndarray) -> np.ndarray:
    """float64 with the values rounded to float32, so that every backend starts from the same numbers."""
    return array.astype(np.float32).astype(np.float64)


class Arena:
    """Buffers on a backend, each inside a larger one and at an odd offset, as weights are inside the flat vector.

    Around an input lies NaN, so a read past its end spoils the result. Outputs start as NaN and have a known value
    around them. :meth:`verify` fails if that value, or an input, was written.

    On CUDA all buffers of a test begin at a multiple of 16 bytes, or none, or, in one test of five, each by chance. The
    compiler makes another kernel for each set of buffers that do, so if all were by chance, few would be used twice.
    """

    def __init__(self, backend: Any, rng: np.random.Generator) -> None:
        self.backend, self.rng = backend, rng
        self.aligned = rng.choice([True, False, None], p=[0.4, 0.4, 0.2]) if backend.name == "cuda" else None
        self.checks: list[tuple[str, Any, slice, np.ndarray]] = []

    def call(self, method: str, *arguments: Any) -> list[np.ndarray]:
        """Call an operation and download what it wrote into its Out and InOut arguments, in their order."""
        buffers = [self.place(method, argument) for argument in arguments]
        getattr(self.backend, method)(*buffers)
        written = (Out, InOut)
        return [
            self.backend.download(buffer)
            for argument, buffer in zip(arguments, buffers, strict=True)
            if isinstance(argument, written)
        ]

    def place(self, method: str, argument: Any) -> Any:
        """The buffer that stands for an array, Out or InOut; anything else as it is."""
        if isinstance(argument, Out):
            dtype = np.dtype(argument.dtype or self.backend.dtype)
            poison = np.full(argument.shape, np.nan if dtype.kind == "f" else -1, dtype)
            return self.guarded(method, poison, AROUND_OUTPUTS)
        if isinstance(argument, InOut):
            return self.guarded(method, self.cast(argument.array), AROUND_OUTPUTS)
        if isinstance(argument, np.ndarray):
            array = self.cast(argument)
            return self.guarded(method, array, np.nan if array.dtype.kind == "f" else AROUND_INTEGERS, frozen=True)
        return argument

    def cast(self, array: np.ndarray) -> np.ndarray:
        """Floating arrays in the backend's dtype, the others as they are."""
        return array.astype(self.backend.dtype) if array.dtype.kind == "f" else array

    def guarded(self, method: str, array: np.ndarray, around: float, frozen: bool = False) -> Any:
        """A buffer with the contents of ``array``, and ``around`` before and behind it."""
        before, behind = (int(n) for n in self.rng.integers(1, 20, 2))
        if self.aligned is not None:
            step = 16 // array.itemsize
            before += -before % step + (0 if self.aligned else int(self.rng.integers(1, step)))
        host = np.full(before + array.size + behind, around, array.dtype)
        inner = slice(before, before + array.size)
        host[inner] = array.reshape(-1)
        outer = self.backend.upload(host)
        self.checks.append((method, outer, slice(0, 0) if frozen else inner, host))
        return outer[inner].reshape(array.shape)

    def verify(self) -> None:
        """Fail if anything was written outside of the outputs since the start."""
        for method, outer, writable, before in self.checks:
            after = self.backend.download(outer)
            after[writable] = before[writable]
            np.testing.assert_array_equal(after, before, err_msg=f"{method} wrote outside of its outputs")


def refuses_bad_buffers(backend: Any, method: str, free: tuple[tuple[str, int], ...] = (), **arguments: Any) -> None:
    """Every buffer of a valid call, spoilt in each way there is, must raise an error that names it.

    ``free`` lists the (argument, axis) whose size nothing else fixes. Read-only inputs must be taken.
    """
    good = {name: _buffer(backend, argument) for name, argument in arguments.items()}
    buffers = [name for name, value in good.items() if hasattr(value, "dtype")]
    written = [name for name in buffers if isinstance(arguments[name], (Out, InOut))]
    before = {name: backend.download(good[name]) for name in written}

    def refused(name: str, bad: Any, names: list[str]) -> None:
        with pytest.raises((TypeError, ValueError), match=rf"\b({'|'.join(map(re.escape, names))})\b"):
            getattr(backend, method)(**{**good, name: bad})
        for output, contents in before.items():
            np.testing.assert_array_equal(backend.download(good[output]), contents, err_msg="written before the check")

    for name in buffers:
        shape, dtype = good[name].shape, good[name].dtype
        refused(name, [[0.0]], [name])
        refused(name, backend.empty(shape, _other(dtype)), [name])
        for axis, size in enumerate(shape):
            if (name, axis) not in free:
                refused(name, backend.empty((*shape[:axis], size + 1, *shape[axis + 1 :]), dtype), buffers)
        if (name, None) not in free:
            refused(name, backend.empty((*shape, 1), dtype), buffers)
        if len(shape) > 0 and shape[0] > 1:
            refused(name, backend.empty((2 * shape[0], *shape[1:]), dtype)[::2], [name])
        if name in written and isinstance(good[name], np.ndarray):
            refused(name, _read_only(good[name]), [name])

    inputs = {name: _read_only(good[name]) for name in buffers if name not in written}
    getattr(backend, method)(**{**good, **inputs})


def _buffer(backend: Any, argument: Any) -> Any:
    if isinstance(argument, Out):
        return backend.upload(np.full(argument.shape, 77, argument.dtype or backend.dtype))
    if isinstance(argument, InOut):
        argument = argument.array
    if not isinstance(argument, np.ndarray):
        return argument
    return backend.upload(argument.astype(backend.dtype) if argument.dtype.kind == "f" else argument)


def _other(dtype: np.dtype) -> type:
    """A dtype that no buffer of this one may have."""
    return {"float32": np.int32, "float64": np.float32}.get(dtype.name, np.int16)


def _read_only(buffer: Any) -> Any:
    """A view that cannot be written, where the backend's arrays know of such."""
    view = buffer.view()
    if isinstance(view, np.ndarray):
        view.flags.writeable = False
    return view


def use_threads(threads: int) -> None:
    """Let the CPU's operations use exactly ``threads`` threads, also where there are fewer cores, for tests of bits."""
    from minigen.cpu import _native

    _native.choose_threads(False)
    _native.set_num_threads(threads, beyond_cores=True)
