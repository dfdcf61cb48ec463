"""The ladder in Triton: ``y[B,O] = x[B,I] W[I,O] + b[O]``, three times.

Triton's programs are written for blocks of numbers; which thread has which of them is the compiler's business. Without
a GPU they run in Triton's interpreter, on NumPy (``TRITON_INTERPRET=1``, set before Triton is imported): right, and
thousands of times too slow to be timed.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import triton
import triton.language as tl


@triton.jit
def naive_kernel(x, W, b, y, B, n_in, n_out, BN: tl.constexpr):
    """A program has BN numbers of one row: a sum over i of a number of x and a piece of a row of W.

    Every program reads all of its columns of W: B times what is there.
    """
    row, columns = tl.program_id(0), tl.program_id(1) * BN + tl.arange(0, BN)
    inside = columns < n_out
    total = tl.load(b + columns, mask=inside, other=0.0)
    for i in range(0, n_in):
        total += tl.load(x + row * n_in + i) * tl.load(W + i * n_out + columns, mask=inside, other=0.0)
    tl.store(y + row * n_out + columns, total, mask=inside)


@triton.jit
def tile_kernel(
    x, W, b, y, B, n_in, n_out, BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr, PRECISION: tl.constexpr
):
    """A program has a tile ``[BM, BN]`` of y. In each turn it loads ``[BM, BK]`` of x and ``[BK, BN]`` of W, each
    number of which serves BN or BM sums: so much less traffic than above. ``tl.dot`` multiplies them, on the ordinary
    cores or, with a PRECISION that they have, on the tensor cores."""
    rows = tl.program_id(0) * BM + tl.arange(0, BM)
    columns = tl.program_id(1) * BN + tl.arange(0, BN)
    total = tl.zeros([BM, BN], tl.float32)
    for first in range(0, n_in, BK):
        terms = first + tl.arange(0, BK)
        left = (rows < B)[:, None] & (terms < n_in)[None, :]
        right = (terms < n_in)[:, None] & (columns < n_out)[None, :]
        a = tl.load(x + rows[:, None] * n_in + terms[None, :], mask=left, other=0.0)
        w = tl.load(W + terms[:, None] * n_out + columns[None, :], mask=right, other=0.0)
        total = tl.dot(a, w, total, input_precision=PRECISION)
    total += tl.load(b + columns, mask=columns < n_out, other=0.0)[None, :]
    tl.store(y + rows[:, None] * n_out + columns[None, :], total, mask=(rows < B)[:, None] & (columns < n_out)[None, :])


def naive(x: Any, W: Any, b: Any, y: Any) -> None:
    """Tensors on the device, ``y`` to be written."""
    (B, n_in), n_out = x.shape, W.shape[1]
    naive_kernel[B, triton.cdiv(n_out, 128)](x, W, b, y, B, n_in, n_out, BN=128)


def tiled(x: Any, W: Any, b: Any, y: Any) -> None:
    """Products of float32 on the ordinary cores."""
    _tiles(x, W, b, y, "ieee", BM=32, BN=32, BK=32)


def tensor_cores(x: Any, W: Any, b: Any, y: Any) -> None:
    """Three TF32 products for each: float32's accuracy on the tensor cores."""
    _tiles(x, W, b, y, "tf32x3", BM=64, BN=64, BK=32)


def _tiles(x: Any, W: Any, b: Any, y: Any, precision: str, **tile: int) -> None:
    (B, n_in), n_out = x.shape, W.shape[1]
    grid = triton.cdiv(B, tile["BM"]), triton.cdiv(n_out, tile["BN"])
    tile_kernel[grid](x, W, b, y, B, n_in, n_out, **tile, PRECISION=precision)


RUNGS: dict[str, Callable[[Any, Any, Any, Any], None]] = {"naive": naive, "tiled": tiled, "tensor cores": tensor_cores}
