"""Where the elements of a factor's tile lie, for kernels that load one and kernels that compute one."""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def stretches(first, BK: tl.constexpr, SPLIT: tl.constexpr):
    """The numbers of SPLIT * BK terms from ``first`` on, ``[SPLIT, BK]``."""
    return first + tl.arange(0, SPLIT)[:, None] * BK + tl.arange(0, BK)[None, :]


@triton.jit
def turned_places(first, columns, BK: tl.constexpr, SPLIT: tl.constexpr):
    """Rows from ``first`` on and ``columns`` of a transposed tile ``[columns, BK]``, or ``[SPLIT, columns, BK]``."""
    if SPLIT > 1:
        rows = stretches(first, BK, SPLIT)[:, None, :]
        columns = columns[None, :, None]
    else:
        rows = (first + tl.arange(0, BK))[None, :]
        columns = columns[:, None]
    return rows, columns
