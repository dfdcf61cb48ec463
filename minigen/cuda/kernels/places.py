"""Where the elements of a factor's tile lie, for kernels that load one and kernels that compute one."""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def stretches(first, BK: tl.constexpr, SPLIT: tl.constexpr):
    """The numbers of SPLIT * BK terms from ``first`` on, ``[SPLIT, BK]``."""
    return first + tl.arange(0, SPLIT)[:, None] * BK + tl.arange(0, BK)[None, :]


@triton.jit
def left_places(first, outer, BK: tl.constexpr, SPLIT: tl.constexpr):
    """The terms from ``first`` on, and the ``outer`` numbers, of a left factor ``[outer, BK]`` or SPLIT of them."""
    if SPLIT > 1:
        terms = stretches(first, BK, SPLIT)[:, None, :]
        outer = outer[None, :, None]
    else:
        terms = (first + tl.arange(0, BK))[None, :]
        outer = outer[:, None]
    return terms, outer


@triton.jit
def right_places(first, outer, BK: tl.constexpr, SPLIT: tl.constexpr):
    """The same of a right factor, ``[BK, outer]`` or SPLIT of them."""
    if SPLIT > 1:
        terms = stretches(first, BK, SPLIT)[:, :, None]
        outer = outer[None, None, :]
    else:
        terms = (first + tl.arange(0, BK))[:, None]
        outer = outer[None, :]
    return terms, outer
