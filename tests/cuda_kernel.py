"""A Triton kernel for tests of the compiler: undecorated, so that a test chooses how it is run."""

from __future__ import annotations

import triton.language as tl


def scale_rows(x, y, n, factor, BLOCK: tl.constexpr):  # noqa: N803
    """``y[:n] = factor x[:n]``."""
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    tl.store(y + i, factor * tl.load(x + i, mask=i < n), mask=i < n)
