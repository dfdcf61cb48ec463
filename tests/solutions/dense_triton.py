import triton
import triton.language as tl


@triton.jit
def dense_kernel(x, W, b, y, B, n_in, n_out, BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr):
    rows = tl.program_id(0) * BM + tl.arange(0, BM)
    columns = tl.program_id(1) * BN + tl.arange(0, BN)
    total = tl.zeros([BM, BN], tl.float32)
    for first in range(0, n_in, BK):
        terms = first + tl.arange(0, BK)
        left = (rows[:, None] < B) & (terms[None, :] < n_in)
        right = (terms[:, None] < n_in) & (columns[None, :] < n_out)
        x_tile = tl.load(x + rows[:, None] * n_in + terms[None, :], mask=left, other=0.0)
        W_tile = tl.load(W + terms[:, None] * n_out + columns[None, :], mask=right, other=0.0)
        total += tl.dot(x_tile, W_tile, input_precision="ieee")
    total += tl.load(b + columns, mask=columns < n_out, other=0.0)[None, :]
    inside = (rows[:, None] < B) & (columns[None, :] < n_out)
    tl.store(y + rows[:, None] * n_out + columns[None, :], total, mask=inside)


def dense(x, W, b, y):
    (B, n_in), n_out = x.shape, W.shape[1]
    grid = triton.cdiv(B, 16), triton.cdiv(n_out, 32)
    dense_kernel[grid](x, W, b, y, B, n_in, n_out, BM=16, BN=32, BK=16)
