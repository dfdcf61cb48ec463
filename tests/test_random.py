"""random: Philox against the published vectors, every backend against the reference, moments and distributions."""

from __future__ import annotations

import math

import numpy as np
import pytest

from helpers import Out, refuses_bad_buffers
from minigen.reference import random

KNOWN = [
    ([0, 0, 0, 0], (0, 0), "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
    ([0xFFFFFFFF] * 4, (0xFFFFFFFF, 0xFFFFFFFF), "408f276d 41c83b0e a20bc7c6 6d5451fd"),
    ([0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344], (0xA4093822, 0x299F31D0), "d16cfe09 94fdcceb 5001e420 24126ea1"),
]
"""Known answers of philox4x32-10 from the Random123 distribution (kat_vectors)."""


def step(value):
    return np.array([value], np.uint64)


@pytest.mark.parametrize(("counter", "key", "answer"), KNOWN)
def test_known_answers(counter, key, answer):
    words = random.philox(np.array(counter, np.uint32), key)
    assert " ".join(f"{word:08x}" for word in words) == answer


@pytest.mark.parametrize(("counter", "key", "answer"), KNOWN[:1])
def test_known_answer_on_every_backend(arena, counter, key, answer):
    """The counter of the first block at step 0 is all zeros: the backend's uniforms are the upper 24 bits of it."""
    (out,) = arena.call("random_uniform", Out(4), key[0], key[1], step(0))
    assert (out * 2**24).astype(int).tolist() == [int(word, 16) >> 8 for word in answer.split()]


def test_counter_and_key_are_laid_out_as_written():
    """Element e of (seed, stream, step): word e % 4 of the block with the counter (step low, high, block low, high)."""
    seed, stream, now = 0x12345678, 0x9ABCDEF0, 0x1122334455667788
    counter = np.array([0x55667788, 0x11223344, 3, 0], np.uint32)
    word = random.philox(counter, (seed, stream))[2]
    assert random.uniform((20,), seed, stream, now)[14] == (word >> 8) * 2.0**-24


@pytest.mark.parametrize("now", [0, 1, 2**32 - 1, 2**32, 2**64 - 1])
def test_uniform_is_the_same_everywhere(arena, rng, now):
    for shape in [(1,), (3,), (4,), (5,), (7, 9), (0, 4), (33, 100), (2, 3, 5)]:
        seed, stream = (int(n) for n in rng.integers(0, 2**32, 2))
        (out,) = arena.call("random_uniform", Out(*shape), seed, stream, step(now))
        np.testing.assert_array_equal(out, random.uniform(shape, seed, stream, now, np.float64))


@pytest.mark.parametrize("now", [0, 1, 2**32 - 1, 2**32, 2**64 - 1])
def test_normal_agrees(arena, rng, now):
    limit = 2e-6 if arena.backend.dtype == np.float32 else 1e-14
    for shape in [(1,), (2,), (3,), (5,), (7, 9), (0, 4), (33, 100), (2, 3, 5)]:
        seed, stream = (int(n) for n in rng.integers(0, 2**32, 2))
        (out,) = arena.call("random_normal", Out(*shape), seed, stream, step(now))
        np.testing.assert_allclose(out, random.normal(shape, seed, stream, now, np.float64), rtol=limit, atol=limit)


def test_shape_does_not_matter(arena):
    (flat,) = arena.call("random_normal", Out(60), 1, 2, step(3))
    (cube,) = arena.call("random_normal", Out(3, 4, 5), 1, 2, step(3))
    (start,) = arena.call("random_normal", Out(7), 1, 2, step(3))
    np.testing.assert_array_equal(flat, cube.reshape(-1))
    np.testing.assert_array_equal(flat[:7], start)


def test_seed_stream_and_step_all_matter():
    base = random.blocks(100, 1, 2, 3)
    for other in (random.blocks(100, 2, 2, 3), random.blocks(100, 1, 1, 3), random.blocks(100, 1, 2, 4)):
        assert (base != other).mean() > 0.99
    streams = {random.INIT, random.ORDER, random.NOISE, random.LATENT, random.SAMPLE}
    assert streams == {0, 1, 2, 3, 4}


def ks_distance(sample, cdf):
    """Kolmogorov and Smirnov's largest distance between the sample's distribution and ``cdf``, times sqrt(n)."""
    sorted_cdf = cdf(np.sort(sample))
    n = len(sample)
    above, below = np.arange(1, n + 1) / n - sorted_cdf, sorted_cdf - np.arange(n) / n
    return math.sqrt(n) * max(above.max(), below.max())


def normal_cdf(x):
    return (1 + np.vectorize(math.erf)(x / math.sqrt(2))) / 2


def test_distributions(backend, seed):
    """Moments within six standard errors, and KS; 2.5 is exceeded by chance once in 130,000 samples."""
    n = 40_000
    out, now = backend.empty((n,)), backend.upload(step(seed))
    backend.random_uniform(out, seed, random.SAMPLE, now)
    u = backend.download(out).astype(np.float64)
    assert 0 <= u.min() and u.max() < 1
    assert ks_distance(u, lambda x: x) < 2.5
    backend.random_normal(out, seed, random.SAMPLE, now)
    x = backend.download(out).astype(np.float64)
    assert ks_distance(x, normal_cdf) < 2.5
    for power, moment, variance in ((1, 0, 1), (2, 1, 2), (3, 0, 15), (4, 3, 96)):
        assert abs((x**power).mean() - moment) < 6 * math.sqrt(variance / n), power
    assert abs((x[0::2] * x[1::2]).mean()) < 6 * math.sqrt(2 / n), "the two normals of a pair are independent"
    assert abs((x[:-1] * x[1:]).mean()) < 6 * math.sqrt(1 / n)


def test_normals_are_finite_at_the_ends(monkeypatch):
    """The smallest u1 gives the largest radius, sqrt(48 ln 2); the largest u1 is 1 and gives 0."""
    words = np.array([[0, 0, 0xFFFFFFFF, 0]], np.uint32)
    monkeypatch.setattr(random, "blocks", lambda *_: words)
    for dtype in (np.float32, np.float64):
        x = random.normal((4,), 0, 0, 0, dtype)
        assert x.dtype == dtype
        np.testing.assert_allclose(x, [math.sqrt(48 * math.log(2)), 0, 0, 0], rtol=1e-6)


def test_bad_arguments_are_refused(arena, backend):
    for method in ("random_uniform", "random_normal"):
        free = (("out", 0), ("out", None))
        refuses_bad_buffers(backend, method, free=free, out=Out(9), seed=1, stream=2, step=step(0))
        for name, key in (("seed", (-1, 0)), ("seed", (2**32, 0)), ("stream", (0, -1)), ("stream", (0, 2**32))):
            with pytest.raises(ValueError, match=name):
                arena.call(method, Out(9), *key, step(0))
        with pytest.raises(TypeError, match="seed"):
            arena.call(method, Out(9), 1.5, 0, step(0))
