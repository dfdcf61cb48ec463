"""What every backend does beside the operations: memory, and programs that repeat a step."""

from __future__ import annotations

import numpy as np
import pytest

from helpers import normals
from minigen.reference import random
from minigen.reference_backend import NumpyBackend


def test_empty(backend):
    for shape in [(1,), (3, 5), (129,), (0, 4), (2, 3, 4)]:
        for dtype in (None, np.uint8, np.int32, np.uint64):
            buffer = backend.empty(shape, dtype)
            assert buffer.shape == shape and buffer.flags.c_contiguous
            assert buffer.dtype == (backend.dtype if dtype is None else dtype)
            if isinstance(buffer, np.ndarray) and buffer.size > 0:
                assert buffer.ctypes.data % 64 == 0


def test_upload_and_download_copy(backend, rng):
    host = np.asfortranarray(normals(rng, 5, 7).astype(backend.dtype))
    buffer = backend.upload(host)
    before = host.copy()
    host[:] = 0
    np.testing.assert_array_equal(backend.download(buffer), before)
    backend.download(buffer)[:] = 1
    np.testing.assert_array_equal(backend.download(buffer), before)
    assert backend.upload(host, out=buffer) is buffer and not backend.download(buffer).any()
    with pytest.raises(ValueError, match="out"):
        backend.upload(host[:, :6], out=buffer)


def test_upload_keeps_the_dtype(backend):
    for dtype in (np.uint8, np.int32, np.uint64, backend.dtype):
        host = np.arange(9).astype(dtype)
        back = backend.download(backend.upload(host))
        assert back.dtype == dtype
        np.testing.assert_array_equal(back, host)


def test_a_buffer_can_be_uploaded(backend, rng):
    """The copy is one: it stays when the buffer changes."""
    buffer = backend.upload(normals(rng, 5, 7).astype(backend.dtype))
    before = backend.download(buffer)
    copy = backend.upload(buffer)
    backend.upload(np.zeros((5, 7), backend.dtype), out=buffer)
    np.testing.assert_array_equal(backend.download(copy), before)
    assert backend.upload(copy, out=buffer) is buffer
    np.testing.assert_array_equal(backend.download(buffer), before)


def test_is_finite(backend, rng):
    """One bad value anywhere is found, in a buffer that begins at an odd place; the largest number is none."""
    for n in (0, 1, 5, 1023, 1024, 1025, 5000):
        host = np.full(n + 3, np.nan, backend.dtype)  # what lies around does not count
        host[1 : n + 1] = np.finfo(backend.dtype).max * rng.choice([-1, 1], n)
        assert backend.is_finite(backend.upload(host)[1 : n + 1])
        for bad, where in [(np.nan, 0), (np.inf, n - 1), (-np.inf, int(rng.integers(n or 1)))] * (n > 0):
            spoilt = host.copy()
            spoilt[1 + where] = bad
            assert not backend.is_finite(backend.upload(spoilt)[1 : n + 1])
    assert backend.is_finite(backend.upload(np.ones((7, 5), backend.dtype)))


def test_readers_bring_what_was_there_when_they_began(backend, rng):
    host = normals(rng, 5, 7).astype(backend.dtype)
    buffer = backend.upload(host)
    contents, finite = backend.reader(buffer), backend.finite_reader(buffer)
    for change in (1, np.nan, 2):
        for reader in (contents, finite):
            reader.begin()
        backend.upload(host * change + 3, out=buffer)
        np.testing.assert_array_equal(contents.get(), host)
        assert finite.get().any() == np.isnan(host).any()
        host = backend.download(buffer)


class Toy:
    """A model with a step that uses most operations: two layers learn noise from gathered bytes."""

    def __init__(self, backend, seed):
        self.backend, rng = backend, np.random.default_rng(seed)
        B, self.n, D, H = 5, 12, 7, 6
        self.seed, self.batch = seed % 2**32, B
        self.data = backend.upload(rng.integers(0, 256, (self.n, D), np.uint8))
        self.params = backend.upload(rng.standard_normal(D * H + H + H + 1).astype(backend.dtype) / 3)
        self.W1, self.b1, self.W2, self.b2 = self.views(self.params, D, H)
        self.grads, self.m, self.v = (backend.upload(np.zeros(self.params.shape, backend.dtype)) for _ in range(3))
        self.dW1, self.db1, self.dW2, self.db2 = self.views(self.grads, D, H)
        self.x, self.h, self.s = backend.empty((B, D)), backend.empty((B, H)), backend.empty((B, 1))
        self.noise, self.target = backend.empty((B, 1)), backend.empty((B, 1))
        self.ds, self.dh, self.rows = backend.empty((B, 1)), backend.empty((B, H)), backend.empty((B,))
        self.indices, self.loss = backend.empty((B,), np.int32), backend.empty((1,))
        self.step, self.lr = backend.upload(np.zeros(1, np.uint64)), backend.upload(np.array([0.01], backend.dtype))
        self.history = backend.upload(np.zeros((50, 1), backend.dtype))

    @staticmethod
    def views(flat, D, H):
        a, b, c = D * H, D * H + H, D * H + 2 * H
        return flat[:a].reshape(D, H), flat[a:b], flat[b:c].reshape(H, 1), flat[c:]

    def train(self):
        f = self.backend
        f.batch_indices(self.indices, self.n, self.seed, random.ORDER, self.step, self.batch, 2)
        f.batch_gather(self.data, self.indices, self.x, 1 / 255, 0.0)
        f.random_normal(self.noise, self.seed, random.LATENT, self.step)
        f.activation_forward(self.noise, self.target, "sigmoid")
        f.dense_forward(self.x, self.W1, self.b1, self.h, "tanh")
        f.dense_forward(self.h, self.W2, self.b2, self.s)
        f.vae_loss(self.s, self.target, self.ds, self.rows, self.loss, "bernoulli")
        f.dense_wgrad(self.h, self.ds, self.dW2, self.db2)
        f.dense_dgrad(self.ds, self.W2, self.dh, self.h, "tanh")
        f.dense_wgrad(self.x, self.dh, self.dW1, self.db1)
        f.adam(self.params, self.grads, self.m, self.v, self.lr, self.step)
        f.advance(self.step, self.loss, self.history)

    def result(self):
        return self.backend.download(self.params), self.backend.download(self.history)


def test_a_program_repeats_the_step(backend, seed):
    """Bit for bit what calling the step does, unless it fuses; in one run or in several; capturing runs nothing."""
    spelled, captured, whole = (Toy(backend, seed) for _ in range(3))
    before = captured.result()
    program = captured.backend.capture(captured.train)
    program.run(0)
    for out, expected in zip(captured.result(), before, strict=True):
        np.testing.assert_array_equal(out, expected)
    for _ in range(20):
        spelled.train()
    program.run(13)
    program.run(7)
    assert backend.download(captured.step)[0] == 20
    backend.capture(whole.train).run(20)
    rounding = {"rtol": 1e-4, "atol": 1e-5} if getattr(backend, "fuse", False) else {"rtol": 0, "atol": 0}
    for out, together, expected in zip(captured.result(), whole.result(), spelled.result(), strict=True):
        np.testing.assert_array_equal(out, together)
        np.testing.assert_allclose(out, expected, **rounding)
    assert np.isfinite(backend.download(captured.history)[:20]).all()


def test_backends_follow_the_same_path(backend, seed):
    """Fifty steps, the last within 1e-4 of float64: rounding has not been amplified into another trajectory."""
    toy, reference = Toy(backend, seed), Toy(NumpyBackend(np.float64), seed)
    toy.backend.capture(toy.train).run(50)
    reference.backend.capture(reference.train).run(50)
    for out, expected in zip(toy.result(), reference.result(), strict=True):
        np.testing.assert_allclose(out, expected, rtol=1e-4, atol=1e-4)


def test_bad_programs_are_refused(backend, seed):
    toy = Toy(backend, seed)
    with pytest.raises(TypeError):
        backend.capture("step")
    program = backend.capture(toy.train)
    for steps in (-1, 1.5):
        with pytest.raises((TypeError, ValueError)):
            program.run(steps)
    np.testing.assert_array_equal(toy.result()[0], Toy(backend, seed).result()[0])


@pytest.mark.parametrize("dtype", [np.float16, np.int32, np.complex128])
def test_numpy_backend_takes_two_dtypes(dtype):
    with pytest.raises(ValueError, match="dtype"):
        NumpyBackend(dtype)
