"""The default models on the bundled digits go the way they always went: figures of an epoch, seed 0, kept from before.

Bits depend on the instruction set and the compiler, so these are numbers with a tolerance: instruction sets and the
reference differ by less than 1e-5, any change of a formula, of an initial weight or of the order of the data by more.
"""

from __future__ import annotations

import numpy as np
import pytest

import minigen

EPOCH = {  # losses of the last step; size of the networks' weights; mean of 64 samples
    "gan": ([1.0477992, 0.59814036], [21.913150, 16.075222], 121.46152),
    "vae": ([208.19720, 197.25886, 10.938335], [24.847184, 26.150205], 75.340143),
}


@pytest.mark.slow
@pytest.mark.parametrize("kind", EPOCH)
@pytest.mark.parametrize("device", [name for name, found in minigen.devices().items() if found.usable])
def test_an_epoch_on_the_digits(kind, device):
    if device == "cuda":
        pytest.skip("matrix products in tf32x3 go a slightly other way")
    family = {"gan": minigen.GAN, "vae": minigen.VAE}[kind]
    model = family(epochs=1, device=device, precision="ieee").fit(minigen.datasets.mnist_sample(), progress=False)
    losses, sizes, mean = EPOCH[kind]
    np.testing.assert_allclose(model.history_.values[-1], losses, rtol=2e-5)
    norms = [np.linalg.norm(net.ops.download(net.params).astype(np.float64)) for net in model.networks_]
    np.testing.assert_allclose(norms, sizes, rtol=1e-6)
    assert model.sample(64, seed=0).mean() == pytest.approx(mean, rel=1e-5)
    assert model.columns_ is None and not model.binary_ and model.data_dtype_ == np.uint8
