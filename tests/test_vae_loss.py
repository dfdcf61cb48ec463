"""vae_loss: every backend against the float64 reference, that against differences, PyTorch and the densities."""

from __future__ import annotations

import math

import numpy as np
import pytest

from helpers import Out, assert_close, f32, normals, refuses_bad_buffers, relative_error, shapes, tolerance
from minigen.backend import LIKELIHOODS
from minigen.gradcheck import differences
from minigen.reference import vae_loss
from minigen.reference.activations import sigmoid


def test_bernoulli(arena, rng):
    for B, D in [*shapes(rng, 2), (9, 784), (1030, 3)]:  # the last: more rows than a block of the GPU's sum
        logits, x = 3 * f32(normals(rng, B, D)), f32(rng.random((B, D)))
        outputs = arena.call("vae_loss", logits, x, Out(B, D), Out(B), Out(1), "bernoulli")
        rows, loss, dlogits = vae_loss.forward(logits, x, "bernoulli")
        terms = (np.abs(logits) * (1 + x)).sum(axis=1)
        assert_close(arena.backend, outputs[0], dlogits, (sigmoid(logits) + x) / B)
        assert_close(arena.backend, outputs[1], rows, rows + terms)
        assert_close(arena.backend, outputs[2], [loss], loss + terms.mean())


@pytest.mark.parametrize("variance", [0.01, 1.0, 37.0])
def test_gaussian(arena, rng, variance):
    for B, D in [*shapes(rng, 2), (9, 784)]:
        mean, x = normals(rng, B, D), normals(rng, B, D)
        outputs = arena.call("vae_loss", mean, x, Out(B, D), Out(B), Out(1), "gaussian", variance)
        rows, loss, dmean = vae_loss.forward(mean, x, "gaussian", variance)
        terms = ((x - mean) ** 2 / (2 * variance) + abs(math.log(2 * math.pi * variance)) / 2).sum(axis=1)
        assert_close(arena.backend, outputs[0], dmean)
        assert_close(arena.backend, outputs[1], rows, terms)
        assert_close(arena.backend, outputs[2], [loss], terms.mean())


@pytest.mark.parametrize("size", [20.0, 100.0, 1e4])
def test_bernoulli_is_stable_at_large_logits(arena, size):
    """Rows by hand: right (log1p(e^-size), to the last digits), wrong (size more), and half (size / 2 more)."""
    logits, x = np.array([[size, -size], [size, -size], [size, -size]]), np.array([[1.0, 0], [0, 1], [0.5, 0.5]])
    dlogits, rows, loss = arena.call("vae_loss", logits, x, Out(3, 2), Out(3), Out(1), "bernoulli")
    e = math.exp(-size)
    right, s = math.log1p(e), 1 / (1 + e)
    rtol = {"rtol": tolerance(arena.backend), "atol": np.finfo(arena.backend.dtype).tiny}
    np.testing.assert_allclose(rows, 2 * np.array([right, right + size, right + size / 2]), **rtol)
    np.testing.assert_allclose(loss, [2 * right + size], **rtol)
    wrong = np.array([[0, 0], [s, -s], [s - 0.5, 0.5 - s]]) / 3
    np.testing.assert_allclose(dlogits, wrong, rtol=tolerance(arena.backend), atol=2 * e)


def test_nan_stays_in_its_row(arena, rng):
    a, b = normals(rng, 9, 5), rng.random((9, 5))
    a[4, 2] = np.nan
    for likelihood in LIKELIHOODS:
        dlogits, rows, loss = arena.call("vae_loss", a, b, Out(9, 5), Out(9), Out(1), likelihood)
        assert np.flatnonzero(np.isnan(rows)).tolist() == [4] and np.isnan(loss[0])
        assert np.argwhere(np.isnan(dlogits)).tolist() == [[4, 2]]


def test_reference_is_the_density(rng):
    logits, bits = normals(rng, 6, 4), rng.integers(0, 2, (6, 4)).astype(float)
    p = sigmoid(logits)
    probability = np.where(bits == 1, p, 1 - p).prod(axis=1)
    assert relative_error(vae_loss.forward(logits, bits, "bernoulli")[0], -np.log(probability)) < 1e-12
    density = np.exp(-((bits - logits) ** 2) / (2 * 0.3)) / np.sqrt(2 * np.pi * 0.3)
    assert relative_error(vae_loss.forward(logits, bits, "gaussian", 0.3)[0], -np.log(density.prod(axis=1))) < 1e-12


def test_grey_values_under_a_bernoulli_have_no_density(rng):
    """As ``score_samples`` and the derivation say: over [0, 1] it does not integrate to 1; it does for bits."""
    logit, x = rng.uniform(-3, 3), (np.arange(1000) + 0.5) / 1000
    grey, bits = (
        np.exp(-vae_loss.forward(np.full((len(v), 1), logit), v[:, None])[0]) for v in (x, np.array([0, 1.0]))
    )
    expected = np.expm1(logit) / (logit * (1 + np.exp(logit)))  # of e^(x l) / (1 + e^l)
    assert abs(grey.mean() - expected) < 1e-6 and grey.mean() < 0.51 and abs(bits.sum() - 1) < 1e-12


def test_reference_against_differences(rng):
    a, x = normals(rng, 4, 5), rng.random((4, 5))
    numeric = differences(lambda a: vae_loss.forward(a, x, "bernoulli")[1], a)
    assert relative_error(vae_loss.forward(a, x, "bernoulli")[2], numeric) < 1e-9
    numeric = differences(lambda a: vae_loss.forward(a, x, "gaussian", 0.3)[1], a)
    assert relative_error(vae_loss.forward(a, x, "gaussian", 0.3)[2], numeric) < 1e-9


def test_reference_against_pytorch(rng):
    torch = pytest.importorskip("torch")
    x = rng.random((6, 11))
    for likelihood, theirs in (
        (
            "bernoulli",
            lambda a: torch.nn.functional.binary_cross_entropy_with_logits(a, torch.tensor(x), reduction="sum"),
        ),
        (
            "gaussian",
            lambda a: torch.nn.functional.gaussian_nll_loss(
                a, torch.tensor(x), torch.ones(6, 11, dtype=torch.float64), full=True, reduction="sum"
            ),
        ),
    ):
        a = torch.tensor(3 * normals(rng, 6, 11), requires_grad=True)
        loss = theirs(a) / 6
        loss.backward()
        rows, mean, da = vae_loss.forward(a.detach().numpy(), x, likelihood)
        assert mean == pytest.approx(loss.item(), rel=1e-12) and rows.shape == (6,)
        assert relative_error(da, a.grad.numpy()) < 1e-12


def test_bad_arguments_are_refused(arena, backend, rng):
    a, x = normals(rng, 4, 3), rng.random((4, 3))
    outputs = {"rows": Out(4), "loss": Out(1)}
    for likelihood in LIKELIHOODS:
        refuses_bad_buffers(backend, "vae_loss", output=a, x=x, doutput=Out(4, 3), **outputs, likelihood=likelihood)
    for variance in (0.0, -1.0, math.nan, math.inf):
        with pytest.raises(ValueError, match="variance"):
            arena.call("vae_loss", a, x, Out(4, 3), Out(4), Out(1), "gaussian", variance)
    for likelihood in LIKELIHOODS:
        with pytest.raises(ValueError, match="rows"):
            arena.call("vae_loss", np.empty((0, 3)), np.empty((0, 3)), Out(0, 3), Out(0), Out(1), likelihood)
