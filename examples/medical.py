"""A medical table that can be given away? Synthetic rows of scikit-learn's breast cancer data, and what they betray.

Half of the 569 patients train a conditional VAE, the other half is held out. Two questions about 1,000 rows that it
draws. Are they of use: how good is a classifier that has seen only them, on the patients held out? Do they betray
anybody: do they lie closer to the patients that the model has learned from than to those that it has never seen?

    python examples/medical.py
    python examples/medical.py --quick

Writes runs/examples/medical.png, and prints the figures. Needs scikit-learn and matplotlib.
"""

import sys
from pathlib import Path

import matplotlib
import numpy as np
from sklearn.datasets import load_breast_cancer
from sklearn.ensemble import RandomForestClassifier
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import train_test_split
from sklearn.neighbors import NearestNeighbors
from sklearn.preprocessing import StandardScaler

import minigen

matplotlib.use("Agg")
from matplotlib import pyplot  # noqa: E402

QUICK = "--quick" in sys.argv
OUT = Path("runs/examples")
OUT.mkdir(parents=True, exist_ok=True)

table = load_breast_cancer()
X, y = np.log1p(table.data).astype(np.float32), table.target_names[table.target]  # sizes: the logarithm is about even
train_X, held_X, train_y, held_y = train_test_split(X, y, test_size=0.5, stratify=y, random_state=0)

vae = minigen.VAE(
    likelihood="gaussian",
    variance="learned",
    hidden=(64, 64),
    latent_dim=8,
    batch_size=32,
    epochs=2 if QUICK else 300,
    schedule="cosine",
    seed=0,
)
vae.fit(train_X, train_y, progress=False)
drawn_y = np.random.default_rng(0).permutation(np.resize(train_y, 1000))  # as many of each class as in the training
drawn_X = vae.sample(len(drawn_y), seed=0, y=drawn_y)

# --- of use? ----------------------------------------------------------------------------------------


def auc(X, y):
    forest = RandomForestClassifier(20 if QUICK else 300, random_state=0).fit(X, y)
    return roc_auc_score(
        held_y == "malignant", forest.predict_proba(held_X)[:, list(forest.classes_).index("malignant")]
    )


print(f"finds malignant ones among the held-out patients, ROC-AUC, trained on real rows {auc(train_X, train_y):.3f}")
print(f"                                                trained on synthetic rows {auc(drawn_X, drawn_y):.3f}")

# --- does it betray anybody? ------------------------------------------------------------------------
# Distances in standardised columns. A row that is a copy of a patient has distance 0 to the training half only.

scale = StandardScaler().fit(train_X)


def closest(to, rows):
    """Of each row, the distance to the closest of ``to``."""
    return NearestNeighbors(n_neighbors=1).fit(scale.transform(to)).kneighbors(scale.transform(rows))[0][:, 0]


to_train, to_held, real = closest(train_X, drawn_X), closest(held_X, drawn_X), closest(train_X, held_X)
nearer = np.mean(to_train < to_held)
# An attacker who has a patient's row guesses that it was in the training if a synthetic row is close to it.
member = np.concatenate([np.ones(len(train_X)), np.zeros(len(held_X))])
guess = roc_auc_score(member, -closest(drawn_X, np.concatenate([train_X, held_X])))
print(
    f"median distance to the closest training row: synthetic {np.median(to_train):.2f}, held-out {np.median(real):.2f}"
)
print(f"synthetic rows that are closer to a training row than to any held-out one: {100 * nearer:.1f} %, 50 is best")
print(f"ROC-AUC of guessing who was in the training by the closest synthetic row: {guess:.3f}, .5 is best")

figure, axes = pyplot.subplots(figsize=(7, 4), layout="constrained")
bins = np.linspace(0, np.quantile(np.concatenate([to_train, real]), 0.99), 40)
curves = {
    "synthetic row to training rows": to_train,
    "synthetic row to held-out rows": to_held,
    "held-out row to training rows": real,
}
for (name, distances), style in zip(curves.items(), ("-", "--", ":"), strict=True):
    axes.hist(distances, bins, histtype="step", density=True, linestyle=style, linewidth=1.6, label=name)
axes.set(xlabel="distance to the closest one, standardised columns", ylabel="density", xlim=(0, bins[-1]))
axes.set_title(
    f"Breast cancer data: {100 * nearer:.0f} % of the synthetic rows are closer to a training row\n"
    f"than to any held-out row (50 % would betray nothing)",
    fontsize=10,
)
axes.legend()
figure.savefig(OUT / "medical.png", dpi=100)
