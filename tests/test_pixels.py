"""Programs of the CPU backend tell the first layer which rows of its input are pixels: less work, no digit lost."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from helpers import use_threads

cpu = pytest.importorskip("minigen.cpu", reason="minigen._native is not built")
BF16 = cpu._native.supported_bf16()
PRECISIONS = ["ieee", *(["bf16"] if BF16 else []), *(["bf16x6"] if "amx" in BF16 else [])]
RANGES = {"[0, 1]": (1 / 255, 0.0), "[-1, 1]": (2 / 255, -1.0)}


class Layer:
    """``rows`` of bytes below ``others`` rows of floats, a dense layer that reads both, and its gradient with Adam."""

    def __init__(self, precision: str, seed: int, shape: tuple[int, int, int, int], scale: float, shift: float) -> None:
        rows, others, n_in, n_out = shape
        self.ops = ops = cpu.CpuBackend(precision=precision)
        rng = np.random.default_rng(seed)

        def normal(*of_shape: int) -> np.ndarray:
            return ops.upload(rng.standard_normal(of_shape, dtype=np.float32))

        self.data = ops.upload(rng.integers(0, 256, (2 * rows, n_in), dtype=np.uint8))
        self.order = ops.upload(rng.permutation(2 * rows)[:rows].astype(np.int32))
        self.scale, self.shift = scale, shift
        self.x, self.W, self.b, self.dz = (
            normal(rows + others, n_in),
            normal(n_in, n_out),
            normal(n_out),
            normal(rows + others, n_out),
        )
        self.bytes = self.x[:rows]
        self.y, self.dW, self.db = ops.empty((rows + others, n_out)), ops.empty((n_in, n_out)), ops.empty((n_out,))
        for out in (self.y, self.dW, self.db):
            out.fill(np.nan)

    def gather(self) -> None:
        self.ops.batch_gather(self.data, self.order, self.bytes, self.scale, self.shift)

    def products(self) -> None:
        self.ops.dense_forward(self.x, self.W, self.b, self.y, "leaky_relu")
        self.ops.dense_wgrad(self.x, self.dz, self.dW, self.db)

    def step(self) -> None:
        self.gather()
        self.products()

    def run(self, step: Callable[[], None]) -> list[int]:
        """The rows of pixels that the calls of a program were told of."""
        program = self.ops.capture(step)
        program.run(1)
        return [call.get("pixels", 0) for call in program.describe()]

    def exact(self) -> list[np.ndarray]:
        """In float64 from the values that the bytes stand for."""
        x = self.x.astype(np.float64)
        x[: len(self.bytes)] = self.data[self.order] * round(self.scale * 255) / 255 + self.shift
        z = x @ self.W.astype(np.float64) + self.b
        dz = self.dz.astype(np.float64)
        return [np.where(z > 0, z, 0.2 * z), x.T @ dz, dz.sum(axis=0)]

    def errors(self) -> list[float]:
        """Root mean square, relative to that of the result."""
        return [
            float(np.sqrt(np.mean((out - exact) ** 2) / np.mean(exact**2)))
            for out, exact in zip((self.y, self.dW, self.db), self.exact(), strict=True)
        ]


@pytest.fixture(autouse=True)
def keep_threads() -> Any:
    before = cpu.get_num_threads()
    yield
    cpu.set_num_threads(before)


def shapes(rng: np.random.Generator) -> list[tuple[int, int, int, int]]:
    odd = [tuple(int(n) for n in rng.integers(low, 150, 4)) for low in (1, 65)]
    return [*odd, (128, 128, 784, 128), (33, 40, 700, 90), (1, 0, 130, 130)]


@pytest.mark.parametrize("values", RANGES)
@pytest.mark.parametrize("precision", PRECISIONS)
def test_products_lose_no_digit(rng: np.random.Generator, precision: str, values: str) -> None:
    for shape in shapes(rng):
        seed = int(rng.integers(2**32))
        told, untold = (Layer(precision, seed, shape, *RANGES[values]) for _ in range(2))
        assert told.run(told.step) == [0, shape[0], shape[0]]
        untold.step()
        for error, plain in zip(told.errors(), untold.errors(), strict=True):
            # Both round the same number of times; bf16's error is that of its operands.
            assert error <= 1.3 * plain + 5e-8, (seed, shape, error, plain)


@pytest.mark.parametrize("precision", PRECISIONS)
def test_bits_do_not_depend_on_threads(rng: np.random.Generator, precision: str) -> None:
    for shape in shapes(rng):
        seed = int(rng.integers(2**32))
        results = set()
        for threads in (1, 2, 3):
            use_threads(threads)
            layer = Layer(precision, seed, shape, *RANGES["[-1, 1]"])
            layer.run(layer.step)
            results.add(layer.y.tobytes() + layer.dW.tobytes() + layer.db.tobytes())
        assert len(results) == 1, (seed, shape)


def write_a_pixel(layer: Layer) -> None:
    layer.gather()
    pixel = layer.bytes[-1, -1:]
    layer.ops.activation_forward(pixel, pixel, "softplus")
    layer.products()


def gather_later(layer: Layer) -> None:
    layer.products()
    layer.gather()


def gather_into_the_middle(layer: Layer) -> None:
    layer.ops.batch_gather(layer.data, layer.order[1:], layer.x[1 : len(layer.bytes)], layer.scale, layer.shift)
    layer.products()


@pytest.mark.parametrize("step", [write_a_pixel, gather_later, gather_into_the_middle])
def test_what_is_no_pixel(rng: np.random.Generator, step: Callable[[Layer], None]) -> None:
    layer = Layer(PRECISIONS[-1], int(rng.integers(2**32)), (20, 9, 70, 80), *RANGES["[-1, 1]"])
    assert set(layer.run(lambda: step(layer))) == {0}


@pytest.mark.parametrize(("scale", "shift"), [(1 / 256, 0.0), (1.0, 0.0), (2 / 255, -0.5), (np.nan, 0.0)])
def test_other_values_of_bytes(rng: np.random.Generator, scale: float, shift: float) -> None:
    layer = Layer(PRECISIONS[-1], int(rng.integers(2**32)), (20, 9, 70, 80), scale, shift)
    assert set(layer.run(layer.step)) == {0}


def test_floats_are_no_pixels(rng: np.random.Generator) -> None:
    layer = Layer(PRECISIONS[-1], int(rng.integers(2**32)), (20, 9, 70, 80), *RANGES["[-1, 1]"])
    layer.data = layer.ops.upload(layer.data.astype(np.float32))
    assert set(layer.run(layer.step)) == {0}
