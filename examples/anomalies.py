"""What does not belong here? A VAE that has seen all digits but one finds the one that it has not seen.

For each of the ten digits in turn a model learns from a part of the others, and scores the rest of them together with
the digit left out: `score_samples` estimates log p(x), and low scores are anomalies. Beside it scikit-learn's isolation
forest and the error that a PCA leaves. A figure of .5 is chance, 1 is every stranger below every other.

    python examples/anomalies.py
    python examples/anomalies.py --quick

Writes runs/examples/anomalies.png, and prints the figures. Needs scikit-learn and matplotlib.
"""

import sys
from pathlib import Path

import matplotlib
import numpy as np
from sklearn.datasets import load_digits
from sklearn.decomposition import PCA
from sklearn.ensemble import IsolationForest
from sklearn.metrics import roc_auc_score

import minigen

matplotlib.use("Agg")
from matplotlib import pyplot  # noqa: E402

QUICK = "--quick" in sys.argv
OUT = Path("runs/examples")
OUT.mkdir(parents=True, exist_ok=True)

X, y = load_digits(return_X_y=True)  # 1,797 pictures of 8 x 8
X = (X / 16).astype(np.float32)
held_out = np.random.default_rng(0).random(len(X)) < 0.3


def vae_scores(known, asked):
    vae = minigen.VAE(
        likelihood="gaussian",
        variance="learned_scalar",
        standardize=False,  # all columns have one unit
        hidden=(128, 64),
        latent_dim=12,
        batch_size=32,
        epochs=2 if QUICK else 100,
        schedule="cosine",
        seed=0,
    )
    return vae.fit(known, progress=False).score_samples(asked, samples=4 if QUICK else 64)


def forest_scores(known, asked):
    return IsolationForest(n_estimators=10 if QUICK else 300, random_state=0).fit(known).score_samples(asked)


def pca_scores(known, asked):
    pca = PCA(12).fit(known)
    return -np.sum((asked - pca.inverse_transform(pca.transform(asked))) ** 2, axis=1)


methods = {"VAE, log p(x)": vae_scores, "isolation forest": forest_scores, "PCA, error": pca_scores}
figures = {name: [] for name in methods}
for stranger in range(3 if QUICK else 10):
    known, asked = X[(y != stranger) & ~held_out], X[(y == stranger) | held_out]
    belongs = y[(y == stranger) | held_out] != stranger
    for name, scores_of in methods.items():
        figures[name].append(roc_auc_score(belongs, scores_of(known, asked)))
    print(
        f"left out {stranger}: " + ", ".join(f"{name} {values[-1]:.3f}" for name, values in figures.items()), flush=True
    )
print("mean: " + ", ".join(f"{name} {np.mean(values):.3f}" for name, values in figures.items()))

figure, axes = pyplot.subplots(figsize=(7, 4), layout="constrained")
for i, (name, values) in enumerate(figures.items()):
    places = np.arange(len(values)) + 0.27 * (i - 1)
    axes.bar(places, values, width=0.25, label=f"{name}: mean {np.mean(values):.3f}")
axes.axhline(0.5, color="k", linewidth=0.8, linestyle=":")
axes.set(xlabel="digit that the model has not seen", ylabel="ROC-AUC of finding it", ylim=(0, 1.25))
axes.set_xticks(range(len(values)))
axes.legend(loc="upper center", ncols=3, fontsize=8)
figure.savefig(OUT / "anomalies.png", dpi=100)
