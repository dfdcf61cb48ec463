"""Spectra as vectors: a VAE of made-up spectra finds what they vary by, takes noise out, and draws new ones.

Each spectrum has 200 channels and two peaks on a sloping background. Three hidden numbers make it: how much there is of
each of two substances, and a shift of all channels, as a spectrometer has from day to day. The model sees only noisy
spectra; since they are made up, it can be asked afterwards whether its latents tell the hidden numbers.

    python examples/spectra.py
    python examples/spectra.py --quick

Writes runs/examples/spectra.png, and prints the figures. Needs scikit-learn and matplotlib.
"""

import sys
from pathlib import Path

import matplotlib
import numpy as np
from sklearn.linear_model import LinearRegression

import minigen

matplotlib.use("Agg")
from matplotlib import pyplot  # noqa: E402

QUICK = "--quick" in sys.argv
OUT = Path("runs/examples")
OUT.mkdir(parents=True, exist_ok=True)

# --- spectra ------------------------------------------------------------------------------------------

rng = np.random.default_rng(0)
channel = np.linspace(0, 1, 200)
n, noise = 500 if QUICK else 5000, 0.05
causes = np.column_stack([rng.uniform(0.2, 1, n), rng.uniform(0.2, 1, n), rng.normal(0, 0.02, n)])


def spectra_of(causes):
    first, second, shift = (column[:, None] for column in causes.T)

    def peak(centre, width):
        return np.exp(-(((channel - centre - shift) / width) ** 2) / 2)

    return first * peak(0.35, 0.03) + second * (0.7 * peak(0.55, 0.05) + 0.3 * peak(0.8, 0.02)) + 0.2 * (1 - channel)


clean = spectra_of(causes)
noisy = (clean + rng.normal(0, noise, clean.shape)).astype(np.float32)
train, test = slice(0, n * 4 // 5), slice(n * 4 // 5, n)

# --- the model ----------------------------------------------------------------------------------------

vae = minigen.VAE(
    likelihood="gaussian",
    variance="learned_scalar",
    hidden=(128, 64),
    latent_dim=6,
    batch_size=64,
    epochs=2 if QUICK else 60,
    schedule="cosine",
    seed=0,
)
vae.fit(noisy[train], progress=False)
denoised = vae.reconstruct(noisy[test])

before, after = (np.sqrt(np.mean((values - clean[test]) ** 2)) for values in (noisy[test], denoised))
print(f"error of a test spectrum, root mean square: {before:.4f} as it comes, {after:.4f} reconstructed")
z, z_test = vae.encode(noisy[train]), vae.encode(noisy[test])
used = z.std(axis=0) > 0.3
print(f"latents in use: {used.sum()} of {len(used)}; three numbers made the spectra")
for name, i in (("the first substance", 0), ("the second substance", 1), ("the shift", 2)):
    r2 = LinearRegression().fit(z, causes[train, i]).score(z_test, causes[test, i])
    print(f"a linear function of the latents tells {name} with R2 = {r2:.3f}")

figure, axes = pyplot.subplots(1, 2, figsize=(10, 3.6), layout="constrained", sharey=True)
axes[0].plot(channel, noisy[test][0], ".", color="0.7", markersize=3, label="as measured")
axes[0].plot(channel, clean[test][0], "k--", linewidth=1, label="without noise")
axes[0].plot(channel, denoised[0], label="reconstructed")
axes[0].set(title="A spectrum that the model has not seen", xlabel="channel", ylabel="intensity")
axes[0].legend()
axes[1].plot(channel, vae.sample(6, seed=4, noise=False).T, linewidth=1)
axes[1].set(title="Six new ones", xlabel="channel")
figure.savefig(OUT / "spectra.png", dpi=100)
