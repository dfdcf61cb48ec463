"""gan_loss: every backend against the float64 reference, that against differences, PyTorch and equation 1 itself."""

from __future__ import annotations

import numpy as np
import pytest

from helpers import Out, assert_close, f32, normals, refuses_bad_buffers, relative_error, tolerance
from minigen.backend import GAN_LOSSES
from minigen.gradcheck import differences
from minigen.reference import gan_loss
from minigen.reference.activations import sigmoid

ROWS = [(1, 1), (1, 2), (2, 1), (17, 33), (128, 128), (129, 1), (1, 300)]
ROWS += [(700, 330)]  # more than a block of the GPU's sum


@pytest.mark.parametrize("kind", GAN_LOSSES)
def test_discriminator(arena, rng, kind):
    for n_real, n_fake in ROWS:
        B = n_real + n_fake
        s = 5 * f32(normals(rng, B, 1))
        for smoothing in (0.0, 0.25):
            arguments = (s, n_real, Out(B, 1), Out(1), kind, smoothing)
            dlogits, loss = arena.call("gan_loss_discriminator", *arguments)
            reference_loss, reference = gan_loss.discriminator(s, n_real, kind, smoothing)
            assert_close(arena.backend, dlogits, reference)
            assert_close(arena.backend, loss, [reference_loss], abs(reference_loss) + np.abs(s).mean())


@pytest.mark.parametrize("kind", GAN_LOSSES)
def test_generator(arena, rng, kind):
    for B in (1, 2, 17, 128, 301, 1030):
        s = 5 * f32(normals(rng, B, 1))
        dlogits, loss = arena.call("gan_loss_generator", s, Out(B, 1), Out(1), kind)
        reference_loss, reference = gan_loss.generator(s, kind)
        assert_close(arena.backend, dlogits, reference)
        assert_close(arena.backend, loss, [reference_loss], abs(reference_loss) + np.abs(s).mean())  # terms may cancel


@pytest.mark.parametrize("size", [20.0, 100.0, 1e4])
def test_stable_at_large_logits(arena, size):
    """Right and wrong at once, by hand: softplus(size) = size, and the gradient is a full 1 or (nearly) 0."""
    backend = arena.backend
    s = np.array([[size], [-size], [size], [-size]])
    dlogits, loss = arena.call("gan_loss_discriminator", s, 2, Out(4, 1), Out(1))
    e = np.exp(-size)
    rtol = {"rtol": tolerance(backend), "atol": np.finfo(backend.dtype).tiny}
    np.testing.assert_allclose(loss, [size + 2 * np.log1p(e)], **rtol)
    np.testing.assert_allclose(dlogits[:, 0], np.array([-e, -1, 1, e]) / (1 + e) / 2, **rtol)
    for kind, expected in (("non_saturating", [-e, -1, -e, -1]), ("minimax", [-1, -e, -1, -e])):
        dlogits, loss = arena.call("gan_loss_generator", s, Out(4, 1), Out(1), kind)
        np.testing.assert_allclose(dlogits[:, 0], np.array(expected) / (1 + e) / 4, **rtol)
        sign = 1 if kind == "non_saturating" else -1
        np.testing.assert_allclose(loss, [sign * (size / 2 + np.log1p(e))], **rtol)


def test_nan_passes_through(arena, rng):
    s = normals(rng, 20, 1)
    s[13] = np.nan
    dlogits, loss = arena.call("gan_loss_discriminator", s, 10, Out(20, 1), Out(1))
    assert np.isnan(loss[0]) and np.flatnonzero(np.isnan(dlogits)).tolist() == [13]
    dlogits, loss = arena.call("gan_loss_generator", s, Out(20, 1), Out(1))
    assert np.isnan(loss[0]) and np.flatnonzero(np.isnan(dlogits)).tolist() == [13]


def test_reference_is_equation_1(rng):
    s = 2 * normals(rng, 12, 1)
    D = sigmoid(s)
    V = np.log(D[:5]).mean() + np.log(1 - D[5:]).mean()
    assert gan_loss.discriminator(s, 5)[0] == pytest.approx(-V, rel=1e-12)
    assert gan_loss.generator(s, "minimax")[0] == pytest.approx(np.log(1 - D).mean(), rel=1e-12)
    assert gan_loss.generator(s, "non_saturating")[0] == pytest.approx(-np.log(D).mean(), rel=1e-12)


@pytest.mark.parametrize("kind", GAN_LOSSES)
def test_reference_against_differences(rng, kind):
    s = 2 * normals(rng, 7, 1)
    s += 0.1 * np.sign(s - 1) + 0.1 * np.sign(s + 1)  # the hinge has no derivative there
    numeric = differences(lambda s: gan_loss.discriminator(s, 3, kind)[0], s)
    assert relative_error(gan_loss.discriminator(s, 3, kind)[1], numeric) < 1e-9
    numeric = differences(lambda s: gan_loss.generator(s, kind)[0], s)
    assert relative_error(gan_loss.generator(s, kind)[1], numeric) < 1e-9


@pytest.mark.parametrize("kind", GAN_LOSSES)
def test_reference_against_pytorch(rng, kind):
    torch = pytest.importorskip("torch")
    functional = torch.nn.functional

    def log_terms(real, fake):
        bce = functional.binary_cross_entropy_with_logits
        return bce(real, torch.ones_like(real)) + bce(fake, torch.zeros_like(fake))

    discriminators = {
        "non_saturating": log_terms,
        "minimax": log_terms,
        "least_squares": lambda real, fake: ((real - 1) ** 2).mean() / 2 + (fake**2).mean() / 2,
        "hinge": lambda real, fake: functional.relu(1 - real).mean() + functional.relu(1 + fake).mean(),
        "wasserstein": lambda real, fake: fake.mean() - real.mean(),
    }
    generators = {
        "non_saturating": lambda s: -functional.logsigmoid(s).mean(),
        "minimax": lambda s: functional.logsigmoid(-s).mean(),
        "least_squares": lambda s: ((s - 1) ** 2).mean() / 2,
        "hinge": lambda s: -s.mean(),
        "wasserstein": lambda s: -s.mean(),
    }
    s = torch.tensor(4 * normals(rng, 15, 1), requires_grad=True)
    for loss, ours in (
        (discriminators[kind](s[:6], s[6:]), gan_loss.discriminator(s.detach().numpy(), 6, kind)),
        (generators[kind](s), gan_loss.generator(s.detach().numpy(), kind)),
    ):
        s.grad = None
        loss.backward()
        assert ours[0] == pytest.approx(loss.item(), rel=1e-12)
        assert relative_error(ours[1], s.grad.numpy()) < 1e-12


def test_a_smoothed_label_against_pytorch(rng):
    """Salimans et al. 2016: cross entropy with the label 0.9 for real rows; for any loss, a mean of its two terms."""
    torch = pytest.importorskip("torch")
    bce = torch.nn.functional.binary_cross_entropy_with_logits
    s = torch.tensor(4 * normals(rng, 15, 1), requires_grad=True)
    loss = bce(s[:6], torch.full((6, 1), 0.9, dtype=s.dtype)) + bce(s[6:], torch.zeros_like(s[6:]))
    loss.backward()
    ours = gan_loss.discriminator(s.detach().numpy(), 6, smoothing=0.1)
    assert ours[0] == pytest.approx(loss.item(), rel=1e-12)
    assert relative_error(ours[1], s.grad.numpy()) < 1e-12
    one = np.array([[0.3], [-2.0]])
    loss, dlogits = gan_loss.discriminator(one, 1, "least_squares", 0.25)
    assert loss == pytest.approx(0.75 * (0.3 - 1) ** 2 / 2 + 0.25 * 0.3**2 / 2 + 2.0)
    np.testing.assert_allclose(dlogits[:, 0], [0.75 * (0.3 - 1) + 0.25 * 0.3, -2.0])


def test_hinge_by_hand(arena):
    """On either side of the margin, and at the kinks, where the derivative counts as 0."""
    s = np.array([[2.0], [1.0], [0.5], [-3.0], [-2.0], [-1.0], [0.0], [3.0]])
    dlogits, loss = arena.call("gan_loss_discriminator", s, 4, Out(8, 1), Out(1), "hinge")
    np.testing.assert_allclose(loss, [(0 + 0 + 0.5 + 4) / 4 + (0 + 0 + 1 + 4) / 4], rtol=1e-6)
    np.testing.assert_allclose(dlogits[:, 0], np.array([0, 0, -1, -1, 0, 0, 1, 1]) / 4)


def test_bad_arguments_are_refused(arena, backend, rng):
    s = normals(rng, 6, 1)
    refuses_bad_buffers(backend, "gan_loss_discriminator", logits=s, n_real=2, dlogits=Out(6, 1), loss=Out(1))
    refuses_bad_buffers(backend, "gan_loss_generator", logits=s, dlogits=Out(6, 1), loss=Out(1), kind="minimax")
    for smoothing in (-0.1, 1.0, np.nan):
        with pytest.raises(ValueError, match="smoothing"):
            arena.call("gan_loss_discriminator", s, 2, Out(6, 1), Out(1), "hinge", smoothing)
    for n_real in (-1, 0, 6, 7):
        with pytest.raises(ValueError, match="n_real"):
            arena.call("gan_loss_discriminator", s, n_real, Out(6, 1), Out(1))
    with pytest.raises(ValueError, match="logits"):
        arena.call("gan_loss_generator", np.empty((0, 1)), Out(0, 1), Out(1))
    with pytest.raises(ValueError, match="kind") as error:
        arena.call("gan_loss_generator", s, Out(6, 1), Out(1), "wgan")
    assert "wgan" in str(error.value) and all(name in str(error.value) for name in GAN_LOSSES)
