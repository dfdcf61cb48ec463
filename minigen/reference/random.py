"""random: Philox4x32-10, uniforms and normals that are a pure function of (seed, stream, step, element).

Philox (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011) is a block cipher without
the secrecy: ten rounds turn a 128-bit counter into 128 random bits, and no state is kept. One round, with the 64-bit
products split into high and low words, and the key raised by a Weyl sequence between rounds::

    hi0:lo0 = M0 c0             hi1:lo1 = M1 c2
    c = (hi1 ^ c1 ^ k0, lo1, hi0 ^ c3 ^ k1, lo0)
    k = k + (W0, W1)                                                                      all modulo 2^32

Here the key is (seed, stream), the counter is (step low word, step high word, block low, block high), and element e
of a buffer takes word ``e % 4`` of block ``e // 4``. So any backend, any thread, any order gives the same numbers, and
a resumed run continues exactly. Streams keep the uses of one seed apart.

uniform: the upper 24 bits, ``u = (word >> 8) 2^-24``, are 2^24 equally spaced numbers in [0, 1), each exact in a
float32: the same float everywhere.

normal (Box and Muller 1958): in polar coordinates two independent normals have the density
``e^(-r^2/2) r dr dtheta / 2 pi``, so ``P(radius > r) = e^(-r^2/2)`` and the angle is uniform. Inverting, words (0, 1)
of a block give its elements (0, 1), words (2, 3) the elements (2, 3)::

    u1 = ((word_a >> 8) + 1) 2^-24  in (0, 1], so that the logarithm is finite;  u2 = (word_b >> 8) 2^-24
    r  = sqrt(-2 ln u1)
    (n_a, n_b) = (r cos 2 pi u2, r sin 2 pi u2)

The largest radius is sqrt(48 ln 2) = 5.77.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from .. import checks
from .underflow import small_is_zero

INIT, ORDER, NOISE, LATENT, SAMPLE, DROPOUT, INSTANCE_NOISE, INTERPOLATION, LABELS, GUMBEL = range(10)
"""Streams: initial weights, order of the data, the GAN's noise, the VAE's latent noise, sampling, masks of dropout,
noise on the discriminator's input, places between real and generated rows, labels drawn for generated rows, noise on
a generator's logits."""

M0, M1 = np.uint64(0xD2511F53), np.uint64(0xCD9E8D57)
W0, W1 = 0x9E3779B9, 0xBB67AE85
LOW, HALF = np.uint64(0xFFFFFFFF), np.uint64(32)


def philox(counter: np.ndarray, key: tuple[int, int]) -> np.ndarray:
    """Philox4x32-10: ``uint32[..., 4]`` from ``counter``, ``uint32[..., 4]``, and two 32-bit key words."""
    c0, c1, c2, c3 = (counter[..., i].astype(np.uint64) for i in range(4))
    k0, k1 = key
    for _ in range(10):
        product0, product1 = M0 * c0, M1 * c2
        c0, c1, c2, c3 = (
            (product1 >> HALF) ^ c1 ^ np.uint64(k0),
            product1 & LOW,
            (product0 >> HALF) ^ c3 ^ np.uint64(k1),
            product0 & LOW,
        )
        k0, k1 = (k0 + W0) & 0xFFFFFFFF, (k1 + W1) & 0xFFFFFFFF
    return np.stack([c0, c1, c2, c3], axis=-1).astype(np.uint32)


def blocks(n: int, seed: int, stream: int, step: int) -> np.ndarray:
    """The first ``n`` blocks, ``uint32[n, 4]``, of (seed, stream), both in [0, 2**32), at ``step``, in [0, 2**64).

    Raises ValueError for one out of range, TypeError for one that is no integer.
    """
    key = checks.seed("seed", seed), checks.seed("stream", stream)
    step = checks.integer("step", step, 0, 2**64 - 1)
    block = np.arange(n, dtype=np.uint64)
    counter = np.empty((n, 4), np.uint32)
    counter[:, 0] = step & 0xFFFFFFFF
    counter[:, 1] = step >> 32
    counter[:, 2] = block & LOW
    counter[:, 3] = block >> HALF
    return philox(counter, key)


def uniform(shape: tuple[int, ...], seed: int, stream: int, step: int, dtype: Any = np.float32) -> np.ndarray:
    """Uniforms in [0, 1) of ``shape``, elements in C order. Raises as :func:`blocks` does."""
    n = math.prod(shape)
    words = blocks(-(-n // 4), seed, stream, step).reshape(-1)[:n]
    return unit(words, dtype).reshape(shape)


def normal(shape: tuple[int, ...], seed: int, stream: int, step: int, dtype: Any = np.float32) -> np.ndarray:
    """Standard normals of ``shape``, elements in C order, computed in ``dtype``. Raises as :func:`blocks` does."""
    n = math.prod(shape)
    pairs = blocks(-(-n // 4), seed, stream, step).reshape(-1, 2)
    scale = np.dtype(dtype).type(2.0**-24)
    u1, u2 = unit(pairs[:, 0], dtype) + scale, unit(pairs[:, 1], dtype)
    r, theta = np.sqrt(-2 * np.log(u1)), 2 * math.pi * u2
    return np.stack([r * np.cos(theta), r * np.sin(theta)], axis=1).reshape(-1)[:n].reshape(shape)


def unit(words: np.ndarray, dtype: Any) -> np.ndarray:
    """The upper 24 bits of each uint32 as a number in [0, 1), exact in every floating dtype from float32 on."""
    return (words >> np.uint32(8)).astype(dtype) * np.dtype(dtype).type(2.0**-24)


@small_is_zero
def add_noise(x: np.ndarray, noise: np.ndarray, step: int, std: float, steps: int = 0) -> np.ndarray:
    """``x + std * noise``, where ``std`` falls linearly from step 0 on to 0 at ``steps``, or stays if that is 0.

    Noise on all that a discriminator sees (Arjovsky and Bottou 2017, section 3; Sonderby et al. 2017), which is taken
    away again in the course of the training.
    """
    left = max(0, steps - step) / steps if steps else 1.0
    return x + std * left * noise
