"""Arrays that are in GPU memory already, CuPy's or any that speaks DLPack: in and out, not through the host."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from minigen.backend import Array
from minigen.cuda.run.device import on_gpu
from minigen.placement import Placement


class CudaPlacement(Placement):
    """What :class:`~minigen.placement.Placement` says, where the caller's arrays may lie on the GPU."""

    def holds(self, array: Any) -> bool:
        return on_gpu(array)

    @contextmanager
    def on_device_of(self, array: Any) -> Iterator[Callable[[Array], Array]]:
        with super().on_device_of(array) as give:
            if on_gpu(array):
                with working(self) as copy:
                    yield copy
            else:
                yield give

    def rows_of(self, X: Any, name: str, min_rows: int) -> tuple[Array, tuple[int, ...]]:
        return rows(self, X, name=name, min_rows=min_rows) if on_gpu(X) else super().rows_of(X, name, min_rows)

    def vectors_of(self, z: Any, name: str) -> Array:
        return vectors(self, z, name=name) if on_gpu(z) else super().vectors_of(z, name)


@contextmanager
def working(ops: Placement) -> Iterator[Callable[[Array], Array]]:
    """What CuPy is asked for inside goes to the stream of ``ops``, behind what the caller's stream had before.

    Yields a function that copies a result to memory of the caller's stream, ready for use there. That copy is the
    price of safety: memory goes back to the stream that it came from, and only that one waits for its last reader.
    """
    executor: Any = ops.executor  # type: ignore[attr-defined]
    cupy, stream = executor.cupy, executor.stream
    with executor.device:
        caller = cupy.cuda.get_current_stream()

        def give(result: Array) -> Array:
            with caller:
                out = cupy.empty(result.shape, result.dtype)
            stream.wait_event(caller.record())  # whoever had this memory before
            out[...] = result
            caller.wait_event(stream.record())
            return out

        stream.wait_event(caller.record())
        with stream:
            yield give


def rows(ops: Placement, data: Any, *, name: str = "data", min_rows: int = 2) -> tuple[Array, tuple[int, ...]]:
    """What :func:`minigen.datasets.as_rows` gives, for ``data[N, ...]`` on the GPU of ``ops``.

    The rows, ``cupy.ndarray[N, D]`` of uint8 or float32, share the memory of ``data`` unless its dtype or memory order
    forbids it; training reads them in place. Raises TypeError for what are no real numbers, ValueError for fewer than
    ``min_rows`` rows, no columns, fewer than two dimensions, NaN or infinite values, and data on another GPU.
    """
    executor: Any = ops.executor  # type: ignore[attr-defined]
    array = executor.release(executor.adopt(data, name))
    if array.dtype.kind not in "biuf":
        raise TypeError(f"{name} must be real numbers, not {array.dtype}; convert with astype(np.float32)")
    if array.ndim < 2 or array.shape[0] < min_rows or 0 in array.shape:
        wanted = f"shape [N, ...] with at least {min_rows} row{'s'[: min_rows > 1]} and a column"
        raise ValueError(f"{name} must have {wanted}, not {array.shape}")
    with executor.device:
        flat = array.reshape(len(array), -1)
        if array.dtype not in (np.uint8, np.float32):
            flat = flat.astype(np.float32)
        flat = executor.cupy.ascontiguousarray(flat)
        if flat.dtype != np.uint8 and not bool(executor.cupy.isfinite(flat).all()):
            raise ValueError(f"{name} must be finite in float32: some of its values are NaN or infinite")
    return executor.adopt(flat), tuple(array.shape[1:])


def vectors(ops: Placement, z: Any, *, name: str) -> Array:
    """``z`` on the GPU of ``ops`` as contiguous float32 there. Raises ValueError for a ``z`` on another GPU."""
    executor: Any = ops.executor  # type: ignore[attr-defined]
    return executor.cupy.ascontiguousarray(executor.release(executor.adopt(z, name)), np.float32)
