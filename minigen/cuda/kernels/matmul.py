"""What products of matrices are made of: tiles, where their elements lie, how they are loaded and multiplied.

Each program computes one tile ``[BM, BN]`` of a result. Sums run in one order, so that results repeat bit for bit.
Tiles begin at multiples of their size; rows and columns beyond a buffer are loaded as 0.

At small batches a sum of several hundred terms is a long chain of products that wait for each other, in a program that
has its multiprocessor to itself. With SPLIT > 1 the program works on SPLIT chunks of BK terms at once, as one product
of three-dimensional tiles, of which each warp takes a share; their sums are added at the end, in one order.

Storage and sums are float32; PRECISION is how the products are taken:

======  ==============================================================================================
ieee    float32 products, on the ordinary cores
tf32x3  each factor as a sum of two tf32 numbers, three products of the four: float32's accuracy on the tensor cores
bf16x6  each factor as a sum of three bf16 numbers, six products of the nine: float32's accuracy
bf16x3  each factor as a sum of two bf16 numbers, three products of the four: 16 bits of each factor
tf32    factors cut off after 11 bits (the tensor cores do not look at the others)
bf16    factors rounded to 8 bits
======  ==============================================================================================

``tl.dot`` has bf16x6 and bf16x3 of its own, but starts a new sum in each step of the loop and searches it for NaN,
which takes about one and a half times the instructions of :func:`dot_of_parts`. There an infinity becomes NaN, as on
the CPU.
"""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def tile_of(pid, tiles_m, tiles_n, GROUP: tl.constexpr):
    """The tile (row, column) of a program: down GROUP rows, then the next column, so that neighbours share inputs."""
    band = pid // (GROUP * tiles_n)
    within = pid - band * (GROUP * tiles_n)
    height = tl.minimum(tiles_m - band * GROUP, GROUP)
    return band * GROUP + within % height, within // height


@triton.jit
def load(base, rows, columns, height, WIDTH: tl.constexpr):
    """Tile of the row-major ``base[height, WIDTH]``, 0 outside."""
    mask = (rows < height)[:, None] & (columns < WIDTH)[None, :]
    return tl.load(base + rows[:, None] * WIDTH + columns[None, :], mask=mask, other=0.0)


@triton.jit
def store(base, rows, columns, height, WIDTH: tl.constexpr, tile):
    """Write what :func:`load` reads."""
    mask = (rows < height)[:, None] & (columns < WIDTH)[None, :]
    tl.store(base + rows[:, None] * WIDTH + columns[None, :], tile, mask=mask)


@triton.jit
def k_chunks(first, BK: tl.constexpr, SPLIT: tl.constexpr):
    """The numbers of SPLIT * BK terms from ``first`` on, ``[SPLIT, BK]``."""
    return first + tl.arange(0, SPLIT)[:, None] * BK + tl.arange(0, BK)[None, :]


@triton.jit
def left_offsets(first, outer, BK: tl.constexpr, SPLIT: tl.constexpr):
    """The terms from ``first`` on, and the ``outer`` numbers, of a left factor ``[outer, BK]`` or SPLIT of them."""
    if SPLIT > 1:
        terms = k_chunks(first, BK, SPLIT)[:, None, :]
        outer = outer[None, :, None]
    else:
        terms = (first + tl.arange(0, BK))[None, :]
        outer = outer[:, None]
    return terms, outer


@triton.jit
def right_offsets(first, outer, BK: tl.constexpr, SPLIT: tl.constexpr):
    """The same of a right factor, ``[BK, outer]`` or SPLIT of them."""
    if SPLIT > 1:
        terms = k_chunks(first, BK, SPLIT)[:, :, None]
        outer = outer[None, None, :]
    else:
        terms = (first + tl.arange(0, BK))[:, None]
        outer = outer[None, :]
    return terms, outer


@triton.jit
def rounded_to_bf16(x):
    """The nearest bf16, as float32. By integers: the compiler converts two numbers with one instruction only if their
    float32 values are not needed afterwards, as they are here."""
    bits = x.to(tl.int32, bitcast=True)
    return ((bits + 0x8000) & -0x10000).to(tl.float32, bitcast=True)


@triton.jit
def dot(a, b, total, PRECISION: tl.constexpr):
    """``total + a b``."""
    if PRECISION == "bf16":
        total = tl.dot(a.to(tl.bfloat16), b.to(tl.bfloat16), total)
    elif PRECISION == "bf16x3" or PRECISION == "bf16x6":
        total = dot_of_parts(a, b, total, PRECISION)
    else:
        total = tl.dot(a, b, total, input_precision=PRECISION)
    return total


@triton.jit
def dot_of_parts(a, b, total, PRECISION: tl.constexpr):
    """:func:`dot` with ``a`` the sum of two or three bf16, and ``b``; the smallest products are added first."""
    a1, b1 = rounded_to_bf16(a), rounded_to_bf16(b)
    a2, b2 = a - a1, b - b1
    if PRECISION == "bf16x6":
        a3, b3 = a2, b2
        a2, b2 = rounded_to_bf16(a2), rounded_to_bf16(b2)
        a3, b3 = a3 - a2, b3 - b2
        total = dot(a3, b1, total, "bf16")
        total = dot(a1, b3, total, "bf16")
        total = dot(a2, b2, total, "bf16")
    total = dot(a2, b1, total, "bf16")
    total = dot(a1, b2, total, "bf16")
    return dot(a1, b1, total, "bf16")


@triton.jit
def load_left(base, rows, first, height, WIDTH: tl.constexpr, BK: tl.constexpr, SPLIT: tl.constexpr):
    """Tile ``[BM, BK]`` of ``base[height, WIDTH]`` at column ``first``, or SPLIT of them, ``[SPLIT, BM, BK]``."""
    columns, rows = left_offsets(first, rows, BK, SPLIT)
    return tl.load(base + rows * WIDTH + columns, mask=(rows < height) & (columns < WIDTH), other=0.0)


@triton.jit
def load_right(base, first, columns, height, WIDTH: tl.constexpr, BK: tl.constexpr, SPLIT: tl.constexpr):
    """Tile ``[BK, BN]`` of ``base[height, WIDTH]`` at row ``first``, or SPLIT of them, ``[SPLIT, BK, BN]``."""
    rows, columns = right_offsets(first, columns, BK, SPLIT)
    return tl.load(base + rows * WIDTH + columns, mask=(rows < height) & (columns < WIDTH), other=0.0)


@triton.jit
def split_left(tile, BM: tl.constexpr, BK: tl.constexpr, SPLIT: tl.constexpr):
    """A computed tile ``[BM, SPLIT * BK]`` as :func:`load_left` gives one."""
    return tl.permute(tl.reshape(tile, [BM, SPLIT, BK]), (1, 0, 2)) if SPLIT > 1 else tile


@triton.jit
def transpose(tile, SPLIT: tl.constexpr):
    """Each of SPLIT tiles transposed."""
    return tl.permute(tile, (0, 2, 1)) if SPLIT > 1 else tl.trans(tile)


@triton.jit
def zero_acc(BM: tl.constexpr, BN: tl.constexpr, SPLIT: tl.constexpr):
    """The sums of a tile before the first term."""
    return tl.zeros([SPLIT, BM, BN], tl.float32) if SPLIT > 1 else tl.zeros([BM, BN], tl.float32)


@triton.jit
def reduce_split_k(total, SPLIT: tl.constexpr):
    """The tile from its SPLIT partial sums."""
    return tl.sum(total, axis=0) if SPLIT > 1 else total


@triton.jit
def sums_in_pairs(values, WIDE: tl.constexpr):
    """The sums of every WIDE columns of ``values[BM, BN]``, ``[BM, BN / WIDE]``: neighbours first, then their sums.

    The order in which ``tl.sum`` adds up more than two follows from which threads hold them, and that from BM and BN.
    """
    here: tl.constexpr = values.shape[1] // WIDE
    sums = tl.reshape(values, [values.shape[0], here, WIDE])
    for _ in tl.static_range(12):
        if sums.shape[2] > 1:
            sums = tl.sum(tl.reshape(sums, [values.shape[0], here, sums.shape[2] // 2, 2]), axis=3)
    return tl.reshape(sums, [values.shape[0], here])


@triton.jit
def store_shares(base, rows, height, tile_n, values, first, COLUMNS: tl.constexpr, WIDE: tl.constexpr):
    """Write :func:`sums_in_pairs` of a tile ``[BM, BN]``, a piece of ``base[height, COLUMNS / WIDE]``.

    A wider tile leaves the same sums. ``first``, if any, is added to those of the first columns.
    """
    parts: tl.constexpr = (COLUMNS + WIDE - 1) // WIDE
    here: tl.constexpr = values.shape[1] // WIDE
    part = (tile_n * here + tl.arange(0, here))[None, :]
    # Where a value is a product and one thread has both of a pair, the compiler would round product and sum together.
    # It does not know that this changes no bit: height is not negative.
    values = (values.to(tl.int32, bitcast=True) ^ (height >> 31)).to(tl.float32, bitcast=True)
    sums = sums_in_pairs(values, WIDE)
    if first is not None:
        sums += tl.where(part == 0, first, 0.0)
    tl.store(base + rows[:, None] * parts + part, sums, mask=(rows < height)[:, None] & (part < parts))


@triton.jit
def product(
    x, W, rows, columns, B,
    N_IN: tl.constexpr, N_OUT: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr,
    SPLIT: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Tile of ``x[B,I] W[I,O]``."""
    total = zero_acc(BM, BN, SPLIT)
    for k in range(0, N_IN, SPLIT * BK):
        a = load_left(x, rows, k, B, N_IN, BK, SPLIT)
        total = dot(a, load_right(W, k, columns, N_IN, N_OUT, BK, SPLIT), total, PRECISION)
    return reduce_split_k(total, SPLIT)
