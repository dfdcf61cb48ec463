"""The compiled operations at the models' own shapes, beyond every size at which their work is cut, and by several
threads, against float64."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from helpers import f32, relative_error
from minigen.reference import activations, batch, dense, latent, random

cpu = pytest.importorskip("minigen.cpu", reason="minigen._native is not built")
native = cpu._native

THREADS = (1, 2, 3, 5)


@pytest.fixture
def ops() -> Any:
    return cpu.CpuBackend(precision="ieee")


@pytest.fixture(autouse=True)
def keep_threads() -> Iterator[None]:
    before = cpu.get_num_threads()
    yield
    cpu.set_num_threads(before)


def upload(ops: Any, *arrays: np.ndarray) -> list[np.ndarray]:
    return [ops.upload(array.astype(np.float32)) for array in arrays]


def poisoned(ops: Any, *shape: int) -> np.ndarray:
    return ops.upload(np.full(shape, np.nan, np.float32))


# The article's GAN and VAE and the preset "quality", then: K in blocks and not in halves, in halves, M in blocks, A
# packed (rows 2 KiB apart), B packed, all of it, narrow, and edges that no tile divides.
LAYERS = [
    (256, 100, 128),
    (256, 128, 784),
    (256, 784, 128),
    (128, 784, 400),
    (128, 400, 40),
    (128, 20, 400),
    (128, 400, 784),
    (128, 784, 512),
    (64, 1024, 784),
    (100, 450, 300),
    (33, 900, 700),
    (70, 1283, 517),
    (1, 784, 128),
    (400, 511, 96),
    (40, 512, 400),
    (300, 450, 700),
    (300, 1500, 1010),
    (50, 784, 1),
    (37, 700, 3),
    (13, 513, 2),
]


@pytest.mark.parametrize("shape", LAYERS, ids=lambda shape: "x".join(map(str, shape)))
def test_a_layer_with_an_activation(ops: Any, rng: np.random.Generator, shape: tuple[int, ...]) -> None:
    """Forward, and the gradient back through it, alike for any number of threads.

    What the activation sees is about 1, where applying it twice, too early or not at all is off by tenths.
    """
    B, n_in, n_out = shape
    activation = "tanh"
    x, b = f32(rng.normal(size=(B, n_in))), f32(rng.normal(size=n_out) / 2)
    W, dz = f32(rng.normal(size=(n_in, n_out)) / np.sqrt(n_in)), f32(rng.normal(size=(B, n_out)))
    before = f32(activations.forward(x, activation))
    expected = dense.forward(x, W, b, activation), dense.dgrad(dz, W, before, activation)
    device = upload(ops, x, W, b, dz, before)
    bits = set()
    for threads in THREADS[:3]:
        cpu.set_num_threads(threads)
        y, dx = poisoned(ops, B, n_out), poisoned(ops, B, n_in)
        ops.dense_forward(device[0], device[1], device[2], y, activation)
        ops.dense_dgrad(device[3], device[1], dx, device[4], activation)
        assert relative_error(y, expected[0]) < 1e-6
        assert relative_error(dx, expected[1]) < 1e-6
        bits.add(y.tobytes() + dx.tobytes())
    assert len(bits) == 1


@pytest.mark.parametrize("shape", [(400, 4100, 700), (128, 784, 128), (300, 1200, 90), (129, 130, 1000)])
def test_the_bias_gradient_counts_each_row_once(ops: Any, rng: np.random.Generator, shape: tuple[int, ...]) -> None:
    """Threads that share rows of dW each pack all of dz, but one alone may add up its columns."""
    B, n_in, n_out = shape
    x, dz = (rng.standard_normal((B, n), np.float32) for n in (n_in, n_out))
    expected = dz.sum(axis=0, dtype=np.float64)
    some = slice(0, n_in, 97)
    bits = set()
    for threads in THREADS:
        cpu.set_num_threads(threads)
        dW, db = poisoned(ops, n_in, n_out), poisoned(ops, n_out)
        ops.dense_wgrad(ops.upload(x), ops.upload(dz), dW, db)
        assert np.abs(db - expected).max() < 1e-4 * np.sqrt(B)
        assert relative_error(dW[some], x[:, some].T.astype(np.float64) @ dz) < 1e-6
        bits.add(db.tobytes() + dW.tobytes())
    assert len(bits) == 1


@pytest.mark.parametrize("rows", [4096, 5000, 9001, 12007])
def test_the_order_of_thousands_of_rows(ops: Any, seed: int, rows: int) -> None:
    n, epoch, step = 12_007, 5, 5 * (12_007 // rows)
    expected = batch.permutation(np.arange(n), n, seed, random.ORDER, epoch)[:rows]
    for threads in (1, 2, 3, 4, 5, 6, 7):
        cpu.set_num_threads(threads)
        indices = ops.upload(np.full(rows, -1, np.int32))
        now = ops.upload(np.array([step], np.uint64))
        ops.batch_indices(indices, n, seed, random.ORDER, now, rows, 12_007 // rows)
        np.testing.assert_array_equal(indices, expected)


@pytest.mark.parametrize("n", [1, 63, 64, 65, 200_003])
def test_draws_of_any_length_by_any_threads(ops: Any, seed: int, n: int) -> None:
    expected = random.uniform((n,), seed, random.NOISE, 2**33 + 7), random.normal((n,), seed, random.NOISE, 2**33 + 7)
    for threads in THREADS:
        cpu.set_num_threads(threads)
        uniforms, normals = poisoned(ops, n), poisoned(ops, n)
        now = ops.upload(np.array([2**33 + 7], np.uint64))
        ops.random_uniform(uniforms, seed, random.NOISE, now)
        ops.random_normal(normals, seed, random.NOISE, now)
        np.testing.assert_array_equal(uniforms, expected[0])
        np.testing.assert_allclose(normals, expected[1], atol=1e-5)


@pytest.mark.parametrize("logvar", [-15.0, -4.0, -1e-3, 0.0, 1e-3, 4.0, 10.0, 15.0, 18.0])
def test_the_kl_of_wide_and_narrow_posteriors(ops: Any, rng: np.random.Generator, logvar: float) -> None:
    """e^logvar - 1 - logvar and its gradient, each value by itself: one large row would hide the others."""
    B, L = 40, 17
    mu, eps, dz = (f32(rng.normal(size=(B, L))) for _ in range(3))
    heads = np.concatenate([mu, f32(logvar + 0.1 * np.abs(rng.normal(size=(B, L))) * np.sign(logvar))], axis=1)
    z, rows, loss = latent.forward(heads, eps)
    on = upload(ops, heads, eps, dz)
    got_z, got_rows, got_loss = poisoned(ops, B, L), poisoned(ops, B), poisoned(ops, 1)
    ops.latent_forward(on[0], on[1], got_z, got_rows, got_loss)
    np.testing.assert_allclose(got_z, z, rtol=2e-6, atol=1e-6)
    np.testing.assert_allclose(got_rows, rows, rtol=1e-6)
    np.testing.assert_allclose(got_loss[0], loss, rtol=1e-6)
    dheads = poisoned(ops, B, 2 * L)
    ops.latent_backward(on[2], on[0], on[1], np.full(dz.shape[1], 1.5, np.float32), dheads)
    expected = latent.backward(dz, heads, eps, 1.5)
    size = latent.backward(np.abs(dz), np.abs(heads), np.abs(eps), 1.5)
    np.testing.assert_array_less(np.abs(dheads - expected), 3e-6 * np.abs(size) + 1e-6)


@pytest.mark.slow
@pytest.mark.skipif("MINIGEN_ISA" in os.environ, reason="this is one of the other instruction sets")
@pytest.mark.parametrize("isa", [isa for isa in native.supported_isas() if isa != cpu.isa()])
def test_the_other_instruction_sets(isa: str) -> None:
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-m",
        "",
        "-q",
        "-p",
        "no:cacheprovider",
        "-k",
        "layer or bias",
        __file__,
    ]
    done = subprocess.run(command, env={**os.environ, "MINIGEN_ISA": isa}, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-4000:]
