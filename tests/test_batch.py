"""batch: the keyed permutation and the gather, every backend against the reference."""

from __future__ import annotations

import numpy as np
import pytest

from helpers import InOut, Out, knows_values, normals, refuses_bad_buffers, shapes
from minigen.reference import batch, random

SIZES = (1, 2, 3, 4, 5, 7, 8, 9, 16, 17, 100, 255, 256, 257, 5000)


def step(value):
    return np.array([value], np.uint64)


def scalar_permutation(position, n, seed, stream, epoch):
    """The permutation again in plain integers, from its definition, to hold the vectorised one against."""
    counters = np.array([[epoch & 0xFFFFFFFF, epoch >> 32, block, 0] for block in (0, 1)], np.uint32)
    keys = [int(word) for word in random.philox(counters, (seed, stream)).reshape(-1)]
    k = max(2, (n - 1).bit_length())
    a, b = k // 2, k - k // 2

    def fmix32(h):
        h = ((h ^ h >> 16) * 0x85EBCA6B) % 2**32
        h = ((h ^ h >> 13) * 0xC2B2AE35) % 2**32
        return h ^ h >> 16

    x = position
    while True:
        high, low = x >> b, x % 2**b
        for r, key in enumerate(keys):
            if r % 2 == 0:
                high ^= fmix32(low ^ key) % 2**a
            else:
                low ^= fmix32(high ^ key) % 2**b
        x = (high << b) | low
        if x < n:
            return x


@pytest.mark.parametrize("n", SIZES)
def test_a_permutation(rng, n):
    for epoch in (0, 1, 2**32, int(rng.integers(2**50))):
        seed = int(rng.integers(2**32))
        order = batch.permutation(np.arange(n), n, seed, random.ORDER, epoch)
        assert order.dtype == np.int32
        assert np.array_equal(np.sort(order), np.arange(n))
        for position in rng.integers(0, n, 5):
            assert order[position] == scalar_permutation(int(position), n, seed, random.ORDER, epoch)


def test_the_largest_n(rng):
    n = 2**31 - 1
    positions = np.concatenate([[0, n - 1], rng.integers(0, n, 20)])
    order = batch.permutation(positions, n, 7, random.ORDER, 3)
    assert order.min() >= 0
    assert order.tolist() == [scalar_permutation(int(p), n, 7, random.ORDER, 3) for p in positions]


def test_epochs_and_seeds_differ():
    n = 1000
    base = batch.permutation(np.arange(n), n, 1, random.ORDER, 0)
    for other in (
        batch.permutation(np.arange(n), n, 1, random.ORDER, 1),
        batch.permutation(np.arange(n), n, 2, random.ORDER, 0),
        batch.permutation(np.arange(n), n, 1, random.INIT, 0),
    ):
        assert (base == other).sum() < 12, "two random permutations agree in one place on average"


@pytest.mark.slow
def test_it_looks_random(seed):
    """Each position takes each value about equally often over the epochs: chi squared within six deviations."""
    n, epochs = 10, 3000
    counts = np.zeros((n, n))
    for epoch in range(epochs):
        counts[np.arange(n), batch.permutation(np.arange(n), n, seed, random.ORDER, epoch)] += 1
    chi2 = ((counts - epochs / n) ** 2 / (epochs / n)).sum()
    freedom = (n - 1) ** 2
    assert abs(chi2 - freedom) < 6 * np.sqrt(2 * freedom)


@pytest.mark.parametrize("n", SIZES)
def test_an_epoch_visits_each_row_once(arena, rng, n):
    """Batches that do not divide n, the last one partial, on every backend the same."""
    batch_size, seed, epoch = int(rng.integers(1, n + 1)), int(rng.integers(2**32)), int(rng.integers(1000))
    steps_per_epoch = -(-n // batch_size)
    visited = []
    for k in sorted({0, 1, steps_per_epoch - 1} & set(range(steps_per_epoch))):
        rows = min(batch_size, n - k * batch_size)
        now = epoch * steps_per_epoch + k
        (indices,) = arena.call(
            "batch_indices", Out(rows, dtype=np.int32), n, seed, random.ORDER, step(now), batch_size, steps_per_epoch
        )
        expected = batch.permutation(np.arange(n), n, seed, random.ORDER, epoch)[k * batch_size :][:rows]
        np.testing.assert_array_equal(indices, expected)
        visited.extend(indices)
    assert len(set(visited)) == len(visited)


def test_every_row_of_small_data_once(arena, rng):
    """Whole epochs in one batch: the rows are 0 to n - 1, each once, and n is not among them."""
    for n in (3, 5, 6, 9, 11):
        seed, epoch = int(rng.integers(2**32)), int(rng.integers(1000))
        for now in range(epoch, epoch + 4):
            (indices,) = arena.call("batch_indices", Out(n, dtype=np.int32), n, seed, random.ORDER, step(now), n, 1)
            assert sorted(indices.tolist()) == list(range(n)), (n, seed, now)


def test_dropping_the_last_batch(arena):
    """With fewer steps to an epoch, its last rows are left out and the next epoch begins."""
    for now, epoch, k in ((0, 0, 0), (2, 0, 2), (3, 1, 0)):
        (indices,) = arena.call("batch_indices", Out(3, dtype=np.int32), 10, 5, random.ORDER, step(now), 3, 3)
        expected = batch.permutation(np.arange(3 * k, 3 * k + 3), 10, 5, random.ORDER, epoch)
        np.testing.assert_array_equal(indices, expected)


def test_large_step(arena):
    now = 2**63 + 12345
    (indices,) = arena.call("batch_indices", Out(5, dtype=np.int32), 50, 5, random.ORDER, step(now), 5, 10)
    np.testing.assert_array_equal(indices, batch.indices(5, 50, 5, random.ORDER, now, 5, 10))


@pytest.mark.parametrize("dtype", ["uint8", "float"])
def test_gather(arena, rng, dtype):
    for N, B, D in [*shapes(rng, 3), (50, 0, 7)]:
        data = rng.integers(0, 256, (N, D), np.uint8) if dtype == "uint8" else normals(rng, N, D)
        rows = rng.integers(0, N, B, np.int32)
        (out,) = arena.call("batch_gather", data, rows, Out(B, D), 0.25, -3.0)
        np.testing.assert_allclose(out, data[rows] * 0.25 - 3, rtol=1e-6, atol=1e-6)
        (out,) = arena.call("batch_gather", data, rows, Out(B, D))
        np.testing.assert_array_equal(out, data[rows])


def test_pixels_reach_the_ends_of_their_range(arena):
    data, rows = np.arange(256, dtype=np.uint8)[None, :], np.zeros(1, np.int32)
    (unit,) = arena.call("batch_gather", data, rows, Out(1, 256), 1 / 255, 0.0)
    (signed,) = arena.call("batch_gather", data, rows, Out(1, 256), 2 / 255, -1.0)
    np.testing.assert_allclose(unit[0], np.arange(256) / 255, rtol=3e-7)
    np.testing.assert_allclose(signed[0], np.arange(256) / 127.5 - 1, atol=3e-7)


def test_advance(arena, rng):
    """The history is a ring of three rows; the step counts on past 32 bits."""
    losses, start = normals(rng, 4, 2), 2**32 - 2
    now, history = arena.place("advance", InOut(step(start))), arena.place("advance", Out(3, 2))
    for row in losses:
        arena.backend.advance(now, arena.place("advance", row), history)
    expected = np.empty((3, 2))
    for k, row in enumerate(losses):
        expected[(start + k) % 3] = row
    np.testing.assert_array_equal(arena.backend.download(history), expected)
    assert arena.backend.download(now)[0] == start + 4


def test_bad_arguments_are_refused(arena, backend, rng):
    indices = {"indices": Out(4, dtype=np.int32), "n": 9, "seed": 1, "stream": 1, "step": step(0), "batch_size": 4}
    refuses_bad_buffers(backend, "batch_indices", **indices, steps_per_epoch=2)
    data, rows = rng.integers(0, 256, (5, 3), np.uint8), np.array([0, 4], np.int32)
    refuses_bad_buffers(backend, "batch_gather", free=(("data", 0),), data=data, indices=rows, out=Out(2, 3))
    advance = {"step": InOut(step(0)), "losses": normals(rng, 2), "history": Out(3, 2)}
    refuses_bad_buffers(backend, "advance", free=(("history", 0),), **advance)


@pytest.mark.parametrize("bad", [5, -1, 2**31 - 1, -(2**31)])
def test_a_row_that_is_not_there(arena, rng, bad):
    """Refused where row numbers can be looked at; NaN where only a device knows them."""
    call = "batch_gather", rng.integers(0, 256, (5, 3), np.uint8), np.array([0, bad], np.int32), Out(2, 3)
    if knows_values(arena.backend):
        with pytest.raises(ValueError, match="indices"):
            arena.call(*call)
    else:
        (out,) = arena.call(*call)
        assert np.isfinite(out[0]).all() and np.isnan(out[1]).all()


@pytest.mark.parametrize(
    ("name", "n", "key", "batch_size", "steps"),
    [
        ("n", 0, 1, 4, 2),
        ("n", 2**31, 1, 4, 2),
        ("seed", 9, -1, 4, 2),
        ("seed", 9, 2**32, 4, 2),
        ("batch_size", 9, 1, 0, 2),
        ("batch_size", 9, 1, 3, 2),
        ("steps_per_epoch", 9, 1, 4, 0),
    ],
)
def test_bad_numbers_are_refused(arena, name, n, key, batch_size, steps):
    """Four rows are asked for: a batch of three is too small for them."""
    with pytest.raises(ValueError, match=name):
        arena.call("batch_indices", Out(4, dtype=np.int32), n, key, 1, step(0), batch_size, steps)


def test_running_past_the_end(arena):
    """Refused where the step can be looked at; -1, which is no row, where only a device knows it."""
    call = "batch_indices", Out(4, dtype=np.int32), 10, 1, 1, step(2), 4, 3
    if knows_values(arena.backend):
        with pytest.raises(ValueError, match="n"):
            arena.call(*call)
    else:
        (indices,) = arena.call(*call)
        assert (indices[:2] >= 0).all() and (indices[2:] == -1).all()
