"""batch: which rows of the data a step takes, and their values.

Order. An epoch should visit each of the ``n`` rows once, in an order that looks random. Instead of storing a shuffled
list, compute its entry: a permutation of ``0..n-1`` keyed by (seed, stream, epoch), so that any step can be asked for
alone and a resumed run continues exactly.

A Feistel network is a bijection whatever its round function is. Write x, of ``k`` bits with ``2^k >= n``, as a high
part L of ``a = k // 2`` bits and a low part R of ``b = k - a`` bits. Round r changes one part by a function
of the other::

    r even: L = L ^ (f(R ^ key[r]) mod 2^a)           r odd: R = R ^ (f(L ^ key[r]) mod 2^b)

Doing the same again undoes a round, so eight rounds are a bijection of ``0..2^k-1``. The round function f is the
finalizer of MurmurHash3 (Appleby 2011), the keys are Philox blocks 0 and 1 at the counter (epoch, block). To get from
``2^k`` to ``n``, apply it again until the result is below n (cycle walking: Black and Rogaway 2002). A
cycle that starts below n comes back below n, distinct starts to distinct ends; with ``2^k < 2n`` (for n > 2) it takes
less than two applications on average.

Values: ``out = data[indices] scale + shift``. Pixels stored as bytes become floats only here: scale 1/255 and shift 0
give [0, 1], scale 2/255 and shift -1 give [-1, 1].
"""

from __future__ import annotations

import numpy as np

from .. import checks
from . import random


def fmix32(h: np.ndarray) -> np.ndarray:
    """The finalizer of MurmurHash3 on ``uint32``, any shape: every input bit reaches every output bit."""
    h = h ^ (h >> np.uint32(16))
    h = h * np.uint32(0x85EBCA6B)
    h = h ^ (h >> np.uint32(13))
    h = h * np.uint32(0xC2B2AE35)
    return h ^ (h >> np.uint32(16))


def feistel(x: np.ndarray, k: int, keys: np.ndarray) -> np.ndarray:
    """A keyed bijection of ``0..2**k - 1`` on ``x``, ``uint32[m]``; one round for each of ``keys``, ``uint32[8]``."""
    a = k // 2
    b = k - a
    high, low = np.uint32(2**a - 1), np.uint32(2**b - 1)
    L, R = x >> np.uint32(b), x & low
    for r, key in enumerate(keys):
        if r % 2 == 0:
            L = L ^ (fmix32(R ^ key) & high)
        else:
            R = R ^ (fmix32(L ^ key) & low)
    return (L << np.uint32(b)) | R


def permutation(positions: np.ndarray, n: int, seed: int, stream: int, epoch: int) -> np.ndarray:
    """Entries ``positions[m]``, each in [0, n), of the epoch's permutation of ``0..n-1``; ``int32[m]``.

    Raises ValueError for ``n`` outside [1, 2**31), a position outside [0, n), a seed or stream out of range.
    """
    checks.integer("n", n, 1, 2**31 - 1)
    if len(positions) and not (0 <= positions.min() and positions.max() < n):
        raise ValueError(f"positions must be in [0, n = {n}), got {positions.min()} to {positions.max()}")
    k = max(2, (n - 1).bit_length())
    keys = random.blocks(2, seed, stream, epoch).reshape(8)
    x = feistel(positions.astype(np.uint32), k, keys)
    outside = np.flatnonzero(x >= n)
    while len(outside):
        x[outside] = feistel(x[outside], k, keys)
        outside = outside[x[outside] >= n]
    return x.astype(np.int32)


def indices(rows: int, n: int, seed: int, stream: int, step: int, batch_size: int, steps_per_epoch: int) -> np.ndarray:
    """The rows of the data that ``step`` takes, ``int32[rows]``: entries ``k * batch_size + r`` of the epoch.

    ``epoch, k = divmod(step, steps_per_epoch)``; ``rows`` is less than ``batch_size`` for a partial last batch.
    Raises ValueError where the step would run past the end of the epoch, and as :func:`permutation` does.
    """
    checks.integer("batch_size", batch_size, 1)
    checks.integer("steps_per_epoch", steps_per_epoch, 1)
    if not 0 <= rows <= batch_size:
        raise ValueError(f"indices must have at most batch_size = {batch_size} entries, not {rows}")
    epoch, k = divmod(step, steps_per_epoch)
    if k * batch_size + rows > n:
        raise ValueError(
            f"step {k} of an epoch takes rows {k * batch_size} to {k * batch_size + rows - 1}, but n = {n}"
        )
    return permutation(k * batch_size + np.arange(rows), n, seed, stream, epoch)


def gather(
    data: np.ndarray, indices: np.ndarray, dtype: np.dtype, scale: float = 1.0, shift: float = 0.0
) -> np.ndarray:
    """``data[indices] * scale + shift`` as ``dtype[B,D]``; ``data[N,D]`` is uint8 or floating, ``indices[B]`` integers.

    Raises ValueError for an index outside [0, N).
    """
    _check_indices(indices, len(data))
    return data[indices].astype(dtype) * scale + shift


def labels(labels: np.ndarray, indices: np.ndarray) -> np.ndarray:
    """``labels[indices]``, both integers; raises as :func:`gather` does."""
    _check_indices(indices, len(labels))
    return labels[indices]


def _check_indices(indices: np.ndarray, n: int) -> None:
    if len(indices) and not (0 <= indices.min() and indices.max() < n):
        raise ValueError(f"indices must be in [0, {n}), got {indices.min()} to {indices.max()}")
