"""Arrays that are in GPU memory already, CuPy's or any that speaks DLPack: in and out, not through the host."""

from __future__ import annotations

from typing import Any

import numpy as np

from minigen.backend import Array
from minigen.cuda.backend import CudaBackend
from minigen.cuda.device import on_gpu
from minigen.models.mlp import Mlp

__all__ = ["apply", "on_gpu", "rows"]

ROWS_AT_ONCE = 4096  # rows whose hidden layers lie in memory at a time


def rows(ops: CudaBackend, data: Any, *, name: str = "data", min_rows: int = 2) -> tuple[Array, tuple[int, ...]]:
    """What :func:`minigen.datasets.as_rows` gives, for ``data[N, ...]`` on the GPU of ``ops``.

    The rows, ``cupy.ndarray[N, D]`` of uint8 or float32, share the memory of ``data`` unless its dtype or memory order
    forbids it; training reads them in place. Raises TypeError for another dtype, ValueError for fewer than ``min_rows``
    rows, no columns, fewer than two dimensions, NaN or infinite values, and data on another GPU.
    """
    executor: Any = ops.executor
    array = executor.release(executor.adopt(data))
    if array.dtype != np.uint8 and array.dtype not in (np.float32, np.float64):
        raise TypeError(f"{name} must be uint8, float32 or float64, not {array.dtype}; convert with astype(np.float32)")
    if array.ndim < 2 or array.shape[0] < min_rows or 0 in array.shape:
        wanted = f"shape [N, ...] with at least {min_rows} rows and a column"
        raise ValueError(f"{name} must have {wanted}, not {array.shape}")
    with executor.device:
        flat = array.reshape(len(array), -1)
        if array.dtype == np.float64:
            flat = flat.astype(np.float32)
        flat = executor.cupy.ascontiguousarray(flat)
        if flat.dtype != np.uint8 and not bool(executor.cupy.isfinite(flat).all()):
            raise ValueError(f"{name} must be finite in float32: some of its values are NaN or infinite")
    return executor.adopt(flat), tuple(array.shape[1:])


def apply(ops: CudaBackend, net: Mlp, x: Any) -> Array:
    """Output of ``net``, ``float32[N, O]`` on the GPU, for ``x[N, I]`` on the GPU, ready for the caller's stream.

    Raises TypeError where ``x`` is not float32, ValueError where it has another width.
    """
    executor: Any = ops.executor
    x = executor.adopt(x)
    if x.dtype != np.float32:
        raise TypeError(f"x must be float32, not {x.dtype}")
    if x.ndim != 2 or x.shape[1] != net.sizes[0]:
        raise ValueError(f"x must have shape (n, {net.sizes[0]}), not {x.shape}")
    if not x.flags.c_contiguous:
        x = executor.upload(x)
    out = ops.empty((len(x), net.sizes[-1]))
    work = net.workspace(min(len(x), ROWS_AT_ONCE))
    for a in range(0, len(x), ROWS_AT_ONCE):
        b = min(a + ROWS_AT_ONCE, len(x))
        executor.upload(net.forward(x[a:b], work.rows(0, b - a)), out=out[a:b])
    return executor.release(out)
