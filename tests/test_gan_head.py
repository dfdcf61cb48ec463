"""Programs of the CPU backend take D's last layer, the loss and their gradients in one pass over the rows."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from helpers import use_threads
from minigen.backend import GAN_LOSSES

cpu = pytest.importorskip("minigen.cpu", reason="minigen._native is not built")
LOSSES = [(player, kind) for player in ("discriminator", "generator") for kind in GAN_LOSSES]
DISCRIMINATOR = LOSSES[0]
OUTPUTS = ("logits", "dlogits", "loss", "dW", "db", "dx")


class Head:
    """A layer of one output on ``x[B, n]``, with all that a GAN's step wants of it; outputs hold NaN at first."""

    def __init__(
        self, seed: int, B: int, n: int, loss: tuple[str, str], weights: bool, activation: str = "leaky_relu"
    ) -> None:
        self.ops = ops = cpu.CpuBackend()
        rng = np.random.default_rng(seed)

        def normal(*shape: int) -> np.ndarray:
            return ops.upload(rng.standard_normal(shape, dtype=np.float32))

        self.x, self.W, self.b = normal(B, n), normal(n, 1), normal(1)
        self.other_x, self.other_W = normal(B, n), normal(n, 1)
        shapes: tuple[tuple[int, ...], ...] = ((B, 1), (B, 1), (1,), (n, 1), (1,), (B, n))
        self.logits, self.dlogits, self.loss, self.dW, self.db, self.dx = (ops.empty(shape) for shape in shapes)
        for out in self.outputs():
            out.fill(np.nan)
        (self.player, self.kind), self.weights, self.activation = loss, weights, activation
        self.n_real = max(1, B // 3)
        self.smoothing = float(rng.choice([0.0, 0.2]))

    def outputs(self) -> list[np.ndarray]:
        return [getattr(self, name) for name in OUTPUTS]

    def forward(self) -> None:
        self.ops.dense_forward(self.x, self.W, self.b, self.logits)

    def judge(self) -> None:
        if self.player == "discriminator":
            settings = self.kind, self.smoothing
            self.ops.gan_loss_discriminator(self.logits, self.n_real, self.dlogits, self.loss, *settings)
        else:
            self.ops.gan_loss_generator(self.logits, self.dlogits, self.loss, self.kind)

    def backward(self) -> None:
        if self.weights:
            self.ops.dense_wgrad(self.x, self.dlogits, self.dW, self.db)
        self.ops.dense_dgrad(self.dlogits, self.W, self.dx, self.x, self.activation)

    def step(self) -> None:
        self.forward()
        self.judge()
        self.backward()

    def run(self, step: Callable[[], None]) -> list[str]:
        program = self.ops.capture(step)
        program.run(1)
        return [call["operation"] for call in program.describe()]


@pytest.fixture(autouse=True)
def keep_threads() -> Any:
    before = cpu.get_num_threads()
    yield
    cpu.set_num_threads(before)


def check(seed: int, B: int, n: int, loss: tuple[str, str], weights: bool, activation: str) -> None:
    fused, plain = (Head(seed, B, n, loss, weights, activation) for _ in range(2))
    assert fused.run(fused.step) == ["gan_head"]
    plain.step()
    for name, got, wanted in zip(OUTPUTS, fused.outputs(), plain.outputs(), strict=True):
        terms = {"dW": np.abs(plain.x).T @ np.abs(plain.dlogits), "db": np.abs(plain.dlogits).sum()}  # they cancel
        scale = np.abs(terms.get(name, wanted)).max()
        np.testing.assert_allclose(got, wanted, rtol=2e-6, atol=2e-6 * scale, err_msg=f"{name} {seed} {B} {n}")


@pytest.mark.parametrize("activation", ["linear", "relu", "leaky_relu", "tanh"])
@pytest.mark.parametrize("weights", [True, False])
@pytest.mark.parametrize("loss", LOSSES)
def test_it_is_what_the_calls_one_by_one_are(
    rng: np.random.Generator, loss: tuple[str, str], weights: bool, activation: str
) -> None:
    for B, n in ((2, 1), (256, 128), (300, 1000), *rng.integers(2, 200, (4, 2)).tolist()):
        check(int(rng.integers(2**32)), B, n, loss, weights, activation)


@pytest.mark.parametrize("loss", LOSSES)
def test_bits_do_not_depend_on_threads(rng: np.random.Generator, loss: tuple[str, str]) -> None:
    for B, n in ((700, 130), (65, 300)):
        seed, results = int(rng.integers(2**32)), set()
        for threads in (1, 2, 3):
            use_threads(threads)
            head = Head(seed, B, n, loss, True)
            head.run(head.step)
            results.add(b"".join(out.tobytes() for out in head.outputs()))
        assert len(results) == 1, (seed, B, n)


def test_large_logits_stay_finite(rng: np.random.Generator) -> None:
    for loss in LOSSES:
        head = Head(int(rng.integers(2**32)), 64, 10, loss, True)
        head.W *= 1e4
        assert head.run(head.step) == ["gan_head"]
        assert all(np.isfinite(out).all() for out in head.outputs())


def other_weights(head: Head) -> None:
    head.forward()
    head.judge()
    head.ops.dense_dgrad(head.dlogits, head.other_W, head.dx, head.x, head.activation)


def other_rows(head: Head) -> None:
    head.forward()
    head.judge()
    head.ops.dense_wgrad(head.other_x, head.dlogits, head.dW, head.db)
    head.ops.dense_dgrad(head.dlogits, head.W, head.dx, head.x, head.activation)


def something_between(head: Head) -> None:
    head.forward()
    head.ops.activation_forward(head.logits, head.logits, "tanh")
    head.judge()
    head.backward()


def loss_over_the_bias(head: Head) -> None:
    head.forward()
    head.ops.gan_loss_discriminator(head.logits, head.n_real, head.dlogits, head.b)
    head.backward()


def no_input_gradient(head: Head) -> None:
    head.forward()
    head.judge()
    head.ops.dense_wgrad(head.x, head.dlogits, head.dW, head.db)


@pytest.mark.parametrize("step", [other_weights, other_rows, something_between, loss_over_the_bias, no_input_gradient])
def test_what_is_no_head(rng: np.random.Generator, step: Callable[[Head], None]) -> None:
    seed = int(rng.integers(2**32))
    program, plain = (Head(seed, 40, 30, DISCRIMINATOR, True) for _ in range(2))
    assert "gan_head" not in program.run(lambda: step(program))
    step(plain)
    for got, wanted in zip(program.outputs(), plain.outputs(), strict=True):
        assert got.tobytes() == wanted.tobytes()


@pytest.mark.parametrize("activation", ["relu", "leaky_relu"])
def test_nan_in_a_row_goes_back_with_it(activation):
    for loss in LOSSES:
        fused, plain = (Head(5, 18, 41, loss, True, activation) for _ in range(2))
        for head in (fused, plain):
            head.x[3, 7] = np.nan
        assert fused.run(fused.step) == ["gan_head"]
        plain.step()
        for one, other in zip(fused.outputs(), plain.outputs(), strict=True):
            np.testing.assert_array_equal(np.isnan(one), np.isnan(other))
        assert np.isnan(fused.dx[3, 7]) and np.isnan(fused.dW[7, 0])
