"""Settings that go together, by the names that a user gives: ``minigen.GAN.preset("quality")``."""

from __future__ import annotations

from typing import Any

GAN: dict[str, dict[str, Any]] = {
    "article": {},
    # The discriminator is smaller than the generator. In reverse, 1024-512-256, it learns the 5,000 bundled digits
    # by heart: after 100 epochs a classifier finds 37 ones in 100 samples and hardly a 0; with this one, 12.
    # R1 (Mescheder et al. 2018) goes with beta1 = 0 and a high rate, which falls to 0 as the average settles.
    # Samples are made of wider noise than in training, for recall, and 22 % are left out, for precision: both are above
    # .83 on MNIST. On Fashion-MNIST this makes shirts, which are hard to draw, rarer than they are; latent_std=1 with
    # reject=0 does not.
    # `python -m bench.digits` measures the preset; bench/RESULTS.md has the figures.
    "quality": {
        "latent_dim": 64,
        "hidden": (256, 512, 512),
        "hidden_discriminator": (512, 256),
        "r1": 1.0,
        "ema": 0.999,
        "latent_std": 1.35,
        "reject": 0.22,
        "learning_rate": 1.5e-3,
        "schedule": "linear",
        "beta1": 0.0,
        "batch_size": 64,
        "epochs": 120,
    },
}
