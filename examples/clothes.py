"""Clothes: a variational autoencoder on Fashion-MNIST. What it makes of clothes that it has not seen, and new ones.

    python examples/clothes.py            # downloads Fashion-MNIST (30 MB) the first time; some minutes of one core
    python examples/clothes.py --quick

Writes runs/examples/clothes.png: real test pictures, their reconstructions below, and two rows of new ones.
"""

import sys
from pathlib import Path

import numpy as np

import minigen

QUICK = "--quick" in sys.argv
OUT = Path("runs/examples")
OUT.mkdir(parents=True, exist_ok=True)

train, test = minigen.datasets.fashion_mnist(), minigen.datasets.fashion_mnist("test")
vae = minigen.VAE(
    hidden=(16,) if QUICK else (400,), latent_dim=20, epochs=1 if QUICK else 10, schedule="linear", seed=1
)
vae.fit(train[:256] if QUICK else train)

bound = vae.elbo(test[:1000]).mean()
print(f"test rows: at least {bound:.1f} nats of log likelihood a picture")
shown = test[:16]
picture = minigen.show(np.concatenate([shown, vae.reconstruct(shown), vae.sample(32, seed=3)]), columns=16)
picture.save(OUT / "clothes.png")
print(f"{OUT / 'clothes.png'}: real, reconstructed, and two rows of new ones")
