"""The article's GAN and the VAE beside it in full size, a step of each without a GPU: run by test_cuda_ptx.py.

These are the kernels that a user's training launches. ``MINIGEN_TEST_BACKENDS=ptx80-bf16`` and so on takes another
architecture and another precision.
"""

from __future__ import annotations

import numpy as np
import pytest
from conftest import without_gpu

from helpers import PRODUCTS, relative_error
from minigen.cuda.tools.explain import training_of
from minigen.cuda.tools.report import MODELS
from minigen.reference_backend import NumpyBackend


@pytest.mark.parametrize("model", MODELS)
def test_a_step(model, rng):
    """Losses, weights and moments against float64."""
    data, settings = rng.integers(0, 256, (300, 784), np.uint8), MODELS[model] | {"seed": int(rng.integers(2**31))}
    ours, reference = (training_of(model, ops, data, settings) for ops in (without_gpu(), NumpyBackend(np.float64)))
    for training in (ours, reference):
        training.run(1)
    allowed = 4 * PRODUCTS[ours.ops.precision]  # a step's products follow each other
    np.testing.assert_allclose(ours.recent_losses(1), reference.recent_losses(1), rtol=allowed)
    expected = reference.state()
    for name, found in ours.state().items():
        wanted = expected[name]
        if name.endswith("params"):  # Adam's first step goes as far with a gradient of almost 0 as with any: not those
            first = np.abs(expected[name.replace("params", "m")])
            steady = first > 1e-3 * np.sqrt(np.mean(first**2))
            found, wanted = found[steady], wanted[steady]
        squared = name.endswith(".v")
        assert relative_error(found, wanted) < allowed * (2 if squared else 1), name
