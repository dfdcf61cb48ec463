"""Do generated digits help a classifier that has few real ones?

A conditional VAE learns from the same few labelled digits as the classifier, and makes more of each class: by latents
drawn from the prior, or by latents between those of two real digits of the class. The classifier is trained on the real
digits, on generated ones, on both, and, since that is what one would try first, on the real ones moved by up to two
pixels. It takes equally many steps each time, and is tested on digits that neither it nor the VAE has seen. The VAE
knows nothing that the few digits do not say: what it may add is that what lies between two threes is a three.

    python examples/conditional_digits.py            # some minutes
    python examples/conditional_digits.py --quick

Writes runs/examples/conditional_digits.png, and prints the figures. Needs scikit-learn and matplotlib.
"""

import sys
import warnings
from pathlib import Path

import matplotlib
import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sklearn.neural_network import MLPClassifier

import minigen

matplotlib.use("Agg")
from matplotlib import pyplot  # noqa: E402

QUICK = "--quick" in sys.argv
OUT = Path("runs/examples")
OUT.mkdir(parents=True, exist_ok=True)

digits = minigen.datasets.mnist_sample()
X, y = np.reshape(digits, (len(digits), -1)), np.asarray(digits.labels)
test_X, test_y = X[4000:], y[4000:]
counts, seeds, ROWS = ([100], [0], 300) if QUICK else ([100, 300, 1000], [0, 1], 5000)
warnings.simplefilter("ignore", ConvergenceWarning)  # a fixed number of passes is what is wanted


def accuracy(X, y, seed):
    """Percent right after 10 passes over ROWS rows, which are those given, again and again."""
    rows = np.resize(np.arange(len(X)), ROWS)
    classifier = MLPClassifier((100,), alpha=1e-2, max_iter=1 if QUICK else 10, random_state=seed)
    return 100 * classifier.fit(X[rows] / 255.0, y[rows]).score(test_X / 255.0, test_y)


def moved(X, rng):
    """Each picture by -2 to 2 pixels, down and to the right."""
    pictures = np.pad(X.reshape(-1, 28, 28), ((0, 0), (2, 2), (2, 2)))
    places = rng.integers(0, 5, (len(X), 2))
    return np.array([picture[a : a + 28, b : b + 28].ravel() for picture, (a, b) in zip(pictures, places, strict=True)])


def between(vae, X, y, n, rng):
    """``n`` digits, each decoded from a point between the latents of two real ones of its class; and their classes."""
    z, first = vae.encode(X, y), rng.integers(0, len(X), n)
    second = np.array([rng.choice(np.flatnonzero(y == label)) for label in y[first]])
    t = rng.random((n, 1), np.float32)
    return vae.decode(z[first] + t * (z[second] - z[first]), y[first]), y[first]


figures = {
    name: [] for name in ("real", "drawn", "half real, half drawn", "half real, half between real", "real, moved about")
}
for n in counts:
    percent = {name: [] for name in figures}
    for seed in seeds:
        rng = np.random.default_rng(seed)
        chosen = rng.permutation(4000)[:n]
        real_X, real_y = X[chosen], y[chosen]
        steps = 2 if QUICK else 2000
        vae = minigen.VAE(hidden=(256,), latent_dim=16, dropout=0.2, batch_size=32, epochs=steps * 32 // n, seed=seed)
        vae.fit(real_X, real_y, progress=False)
        drawn_y = rng.permutation(np.resize(np.unique(real_y), ROWS // 2))
        drawn_X = vae.sample(len(drawn_y), seed=seed, y=drawn_y)
        made_X, made_y = between(vae, real_X, real_y, ROWS // 2, rng)
        again = np.resize(np.arange(n), ROWS // 2)
        sets = (
            (real_X, real_y),
            (drawn_X, drawn_y),
            (np.concatenate([real_X[again], drawn_X]), np.concatenate([real_y[again], drawn_y])),
            (np.concatenate([real_X[again], made_X]), np.concatenate([real_y[again], made_y])),
            (moved(np.resize(real_X, (ROWS, 784)), rng), np.resize(real_y, ROWS)),
        )
        for name, (set_X, set_y) in zip(percent, sets, strict=True):
            percent[name].append(accuracy(set_X, set_y, seed))
    for name, values in percent.items():
        figures[name].append((np.mean(values), np.min(values), np.max(values)))
        print(f"{n:>5} real digits; trained on {name:<28} {np.mean(values):5.1f} % right", flush=True)

figure, axes = pyplot.subplots(figsize=(8.2, 4.2), layout="constrained")
for name, values in figures.items():
    mean, low, high = np.transpose(values)
    axes.errorbar(counts, mean, [mean - low, high - mean], marker="o", capsize=3, label=name)
axes.set(xscale="log", xlabel="real labelled digits", ylabel="right on 1,000 others, %")
axes.set_xticks(counts, [str(n) for n in counts])
axes.minorticks_off()
axes.set_title(f"A classifier with and without generated digits\n(mean and range of {len(seeds)} draws)", fontsize=10)
axes.grid(alpha=0.3)
axes.legend(title="trained on digits that are", loc="center left", bbox_to_anchor=(1, 0.5), fontsize=9)
figure.savefig(OUT / "conditional_digits.png", dpi=100)
