"""The GAN's variants in the comparison: the oracle's gradients, and contenders that compute the same."""

from __future__ import annotations

import importlib
from typing import Any

import numpy as np
import pytest
from test_bench import numerical_gradient

from bench import compare, floor, oracle, oracle_variants
from bench.peers import PEERS
from bench.spec import CLASSES, VARIANTS, Spec, check_inputs, initial_weights, labels


def small(model: str, hidden: tuple[int, ...] = (16, 12)) -> Spec:
    """A batch that is a power of two: the gradient of a critic's last bias, real rows less generated ones, is then 0
    also in float32, where Adam would make a step of its rounding."""
    return Spec(model, hidden, 8, 24, columns=9)


def drawn(spec: Spec) -> tuple[Any, Any, np.ndarray, Any, np.ndarray, Any]:
    """Layers of both networks in float64, real rows, their classes, and a step's normals and places."""
    first, second = oracle_variants.layers_of(spec, [w.astype(np.float64) for w in initial_weights(spec)])
    real = np.random.default_rng(4).standard_normal((8, 9))
    normals, u = spec.parts(check_inputs(spec, 1)[1][0].astype(np.float64))
    return first, second, real, labels(spec)[:8] if spec.model == "gan-conditional" else None, normals, u


def agree(gradients: list[np.ndarray], layers: Any, loss: Any) -> None:
    arrays = [array for layer in layers for array in layer.values()]
    for got, array in zip(gradients, arrays, strict=True):
        np.testing.assert_allclose(got, numerical_gradient(loss, array), rtol=1e-5, atol=2e-8)


@pytest.mark.parametrize("model", VARIANTS)
def test_oracles_gradients_are_those_of_its_losses(model: str) -> None:
    spec = small(model, (9, 7))
    first, second, real, classes, normals, u = drawn(spec)
    given = (spec, first, second, real, classes, normals[0], u)
    _, grads = oracle_variants.discriminator(*given)
    agree(grads, second, lambda: oracle_variants.discriminator(*given)[0])
    given_generator = (spec, first, second, classes, normals[1])
    _, grads = oracle_variants.generator(*given_generator)
    agree(grads, first, lambda: oracle_variants.generator(*given_generator)[0])


@pytest.mark.parametrize("model", VARIANTS)
def test_what_makes_a_variant_changes_its_losses(model: str) -> None:
    """Without the penalty's weight, the places, the normalization or the classes the losses would be others."""
    spec = small(model)
    first, second, real, classes, normals, u = drawn(spec)
    plain = small("gan")
    mean = oracle_variants.discriminator(spec, first, second, real, classes, normals[0], u)[0]
    if model == "gan-conditional":
        other = oracle_variants.discriminator(spec, first, second, real, (classes + 1) % CLASSES, normals[0], u)[0]
    elif model == "gan-batch-norm":
        without = [{key: w for key, w in layer.items() if key not in ("gamma", "beta")} for layer in first]
        other = oracle_variants.discriminator(spec, without, second, real, None, normals[0], None)[0]
    else:
        other = oracle_variants.discriminator(plain, first, second, real, None, normals[0], None)[0]
    assert abs(mean - other) > 1e-6 * abs(mean)


@pytest.mark.parametrize("model", VARIANTS)
@pytest.mark.parametrize("name", ["torch-variants", "jax-variants", "minigen"])
def test_contenders_come_to_the_oracles_losses_and_weights(name: str, model: str) -> None:
    peer = PEERS[name]
    pytest.importorskip(peer.needs)
    spec = small(model)
    data = np.random.default_rng(1).integers(0, 256, (spec.n, spec.columns), np.uint8)
    weights, inputs = initial_weights(spec), check_inputs(spec, compare.CHECK_STEPS)
    contender = importlib.import_module(peer.module).Contender(spec, data, weights)
    contender.run(2)
    contender.reset(weights)
    losses = contender.check(*inputs)
    expected = oracle.train(spec, data, weights, *inputs)
    loss_error, weight_error = oracle.errors(losses, contender.weights(), *expected, weights)
    assert oracle.agrees({"loss_error": loss_error, "weight_error": weight_error}, "ieee"), (loss_error, weight_error)


def test_flops_of_a_penalty() -> None:
    """Counted by hand for 784-128-1: back to the input, forward along it, and both weight gradients."""
    d, batch = 784 * 128 + 128, 128
    plain = floor.flops(Spec("gan", (128,), batch, 60000))
    assert floor.flops(Spec("gan-r1", (128,), batch, 60000)) == plain + 2 * batch * 3 * d
    assert floor.flops(Spec("wgan-gp", (128,), batch, 60000)) == plain + 2 * batch * 4 * d


def test_variants_have_a_file_of_their_own() -> None:
    options = compare.parse(["--model", "variants", "--batch", "128", "--width", "article"])
    assert options.out.name.startswith("variants-")
    assert [spec.model for spec in compare.cells(options, 60000)] == list(VARIANTS)
