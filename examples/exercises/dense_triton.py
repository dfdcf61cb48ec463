"""``y[B,O] = x[B,I] W[I,O] + b[O]`` in Triton. A program computes a tile of y, BM rows of BN columns, whose numbers are
``rows`` and ``columns``. It goes over I in pieces of BK: load a tile ``[BM, BK]`` of x and one ``[BK, BN]`` of W, and
add ``tl.dot`` of the two to the sums.

The element (r, c) of a matrix with n columns lies at ``base + r * n + c``. Tiles stick out of the matrices: load with
``mask=`` and ``other=0.0``, store with ``mask=``.
"""

import triton
import triton.language as tl


@triton.jit
def dense_kernel(x, W, b, y, B, n_in, n_out, BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr):
    rows = tl.program_id(0) * BM + tl.arange(0, BM)  # noqa: F841 (your lines use them)
    columns = tl.program_id(1) * BN + tl.arange(0, BN)  # noqa: F841
    # total = ...
    # tl.store(...)


def dense(x, W, b, y):
    """Writes ``y[B,O]``, from ``x[B,I]``, ``W[I,O]`` and ``b[O]``, all of them tensors."""
    raise NotImplementedError("and take this line out")
    (B, n_in), n_out = x.shape, W.shape[1]
    grid = triton.cdiv(B, 16), triton.cdiv(n_out, 32)
    dense_kernel[grid](x, W, b, y, B, n_in, n_out, BM=16, BN=32, BK=16)
