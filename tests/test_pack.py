"""A discriminator that judges several rows together: its step against PyTorch, and the estimator's part.

Whole trainings with it on every device: test_whole_steps.py; gradients of drawn settings: test_combinations.py.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import minigen
from minigen.reference import random
from models import blobs, gan_training

SMALL: dict[str, Any] = {"hidden": (7,), "latent_dim": 3, "batch_size": 12, "seed": 4, "epochs": 2, "device": "numpy"}
QUIET: dict[str, Any] = {"progress": False}


@pytest.mark.parametrize("pack", [2, 3, 6])
def test_gradients_of_a_step_agree_with_autograd(backend, rng, pack):
    torch = pytest.importorskip("torch")
    B, softplus = 6 * int(rng.integers(1, 4)), torch.nn.functional.softplus
    training = gan_training(
        backend, blobs(40, int(rng.integers(1, 9))), (9,), batch_size=B, pack=pack, seed=int(rng.integers(2**32))
    )
    step = training.step
    p = {
        key: torch.tensor(value, dtype=torch.float64, requires_grad=True)
        for net in step.networks
        for key, value in net.state().items()
    }

    def apply(name, x):
        hidden = torch.nn.functional.leaky_relu(x @ p[f"{name}.0.W"] + p[f"{name}.0.b"], 0.2)
        return hidden @ p[f"{name}.1.W"] + p[f"{name}.1.b"]

    def judge(rows):
        """Groups of neighbours, one after the other."""
        groups = [torch.cat([rows[g + i] for i in range(pack)]) for g in range(0, len(rows), pack)]
        return apply("discriminator", torch.stack(groups))

    step.generate()
    step.discriminator_gradient()
    step.generator_gradient()
    noise = torch.tensor(random.normal((2 * B, 8), step.seed, random.NOISE, 0, np.float64))
    fakes = torch.tanh(apply("generator", noise))
    real = torch.tensor(np.asarray(backend.download(step.real_rows), np.float64))
    loss_d = softplus(-judge(real)).mean() + softplus(judge(fakes[:B].detach())).mean()
    loss_g = softplus(-judge(fakes[B:])).mean()
    tolerance = {"float32": 5e-5, "float64": 1e-11}[backend.dtype.name]
    np.testing.assert_allclose(backend.download(step.losses)[:2], [loss_d.item(), loss_g.item()], rtol=tolerance)
    for net, loss in zip(step.networks, (loss_g, loss_d), strict=True):
        keys = [key for key in p if key.startswith(net.name)]
        expected = torch.autograd.grad(loss, [p[key] for key in keys])
        size = max(g.abs().max().item() for g in expected)
        gradients = dict(zip(net.state(), net._split(net.grads).values(), strict=True))
        for key, g in zip(keys, expected, strict=True):
            np.testing.assert_allclose(
                backend.download(gradients[key]), g.numpy(), rtol=tolerance, atol=tolerance * size
            )


def test_discriminate_judges_groups_of_neighbours(tmp_path):
    X = blobs(48)
    model = minigen.GAN(**SMALL, pack=3).fit(X, **QUIET)
    assert model.discriminator_.sizes == (36, 7, 1)
    judged = model.discriminate(X)
    assert judged.shape == (16,) and judged.dtype == np.float32
    np.testing.assert_allclose(judged[[2, 0]], model.discriminate(X[[6, 7, 8, 0, 1, 2]]), rtol=1e-6)
    assert abs(model.discriminate(X[[7, 6, 8]])[0] - judged[2]) > 1e-6
    model.save(tmp_path / "m")
    loaded = minigen.load(tmp_path / "m", device="numpy")
    np.testing.assert_array_equal(loaded.discriminate(X), judged)
    with pytest.raises(ValueError, match="X must have a multiple of 3 rows, which pack=3 judges together, not 47"):
        loaded.discriminate(X[1:])
    whole = minigen.GAN(**SMALL | {"epochs": 3}, pack=3).fit(X, **QUIET)
    loaded.partial_fit(X, epochs=1, **QUIET)
    for key, value in whole._state.items():
        assert value.tobytes() == loaded._state[key].tobytes(), key


@pytest.mark.parametrize("conditioning", ["input", "projection"])
def test_rows_are_judged_with_their_conditions(conditioning, tmp_path):
    X, labels = blobs(48), np.arange(48) % 3
    one_hot = np.eye(3)[labels]
    model = minigen.GAN(**SMALL, pack=3, conditioning=conditioning).fit(X, labels.astype(str), **QUIET)
    E = model.discriminator_.layers[-1 if conditioning == "projection" else 1].params["E"]
    assert E.shape == (9, 7), "a row of it for each place of a pack and each class"
    judged = model.discriminate(X, labels.astype(str))
    model.save(tmp_path / "m")
    loaded = minigen.load(tmp_path / "m", device="numpy")
    np.testing.assert_array_equal(loaded.discriminate(X, labels.astype(str)), judged)
    first, second = labels.copy(), labels.copy()
    first[0], second[1] = 1, 0
    changed = [model.discriminate(X, y.astype(str)) for y in (first, second)]
    for other in changed:
        assert other[0] != judged[0] and (other[1:] == judged[1:]).all(), "of the pack with the other label alone"
    assert changed[0][0] != changed[1][0]
    numbers = minigen.GAN(**SMALL, pack=3, conditioning=conditioning).fit(X, one_hot, **QUIET)
    assert numbers.discriminate(X, one_hot).shape == (16,)


@pytest.mark.parametrize(
    ("pack", "error", "message"),
    [
        (0, ValueError, "pack must be an integer of at least 1, not 0"),
        (2.0, TypeError, "pack must be an integer of at least 1, not 2.0"),
        (5, ValueError, "batch_size must be a multiple of pack=5, not 12"),
    ],
)
def test_refusals(pack, error, message):
    with pytest.raises(error, match=message):
        minigen.GAN(**SMALL, pack=pack).fit(blobs())
    model = minigen.GAN(**SMALL).fit(blobs(), **QUIET)
    with pytest.raises(ValueError, match="pack must stay 1 in partial_fit, not 2"):
        model.set_params(pack=2).partial_fit(blobs())
