"""What to recommend: a multinomial VAE on who has chosen what (Liang et al. 2018), beside what is popular anyway.

The data are made up, so that the best possible recommendation is known: each user mixes a few of twelve tastes, each
taste prefers some of 600 items, and some items are popular with everybody. Users of the test show four fifths of their
choices; recall@20 says how many of the others are among the 20 items that are recommended (over 20 or over their
number, whichever is less, as in the paper).

    python examples/recommendation.py
    python examples/recommendation.py --quick

Writes runs/examples/recommendation.png, and prints the figures. Needs matplotlib.
"""

import sys
from pathlib import Path

import matplotlib
import numpy as np

import minigen

matplotlib.use("Agg")
from matplotlib import pyplot  # noqa: E402

QUICK = "--quick" in sys.argv
OUT = Path("runs/examples")
OUT.mkdir(parents=True, exist_ok=True)
ITEMS, TASTES, USERS, HELD_OUT = 600, 12, 1000 if QUICK else 10000, 200 if QUICK else 1000

# --- users, of whom all is known ----------------------------------------------------------------------

rng = np.random.default_rng(0)
popularity = rng.gamma(1.0, size=ITEMS) + 0.1
likes = rng.gamma(0.2, size=(TASTES, ITEMS)) * popularity
likes /= likes.sum(axis=1, keepdims=True)
wants = rng.dirichlet(np.full(TASTES, 0.15), USERS) @ likes  # [users, items], each row adds up to 1


def choose(shares, n):
    """``n`` different items, drawn by these shares (Efraimidis and Spirakis 2006)."""
    return np.argsort(rng.exponential(size=ITEMS) / shares)[:n]


chosen = np.zeros((USERS, ITEMS), np.float32)
for user, shares in enumerate(wants):
    chosen[user, choose(shares, rng.integers(20, 60))] = 1

train, test = chosen[HELD_OUT:], chosen[:HELD_OUT]
hidden = (rng.random(test.shape) < 0.2) * test
shown = test - hidden

# --- the model ----------------------------------------------------------------------------------------

vae = minigen.VAE(
    likelihood="multinomial",
    hidden=(200,),
    latent_dim=16,
    activation="tanh",
    beta=0.2,  # less than 1, as in the paper: the ranking counts here, not the samples
    kl_warmup=1 if QUICK else 10,
    epochs=2 if QUICK else 30,
    batch_size=100,
    seed=0,
)
vae.fit(train, progress=False)
recommenders = {
    "what is popular": np.broadcast_to(train.sum(axis=0), shown.shape),
    "multinomial VAE": vae.decode(vae.encode(shown)),
    "who knows the users' tastes": wants[:HELD_OUT],
}

# --- how good are they --------------------------------------------------------------------------------


def recall(scores, k):
    """Mean over the users that hide something of the share of it among the k best items that they do not show."""
    best = np.argsort(-np.where(shown > 0, -np.inf, scores), axis=1)[:, :k]
    found, there = np.take_along_axis(hidden, best, axis=1).sum(axis=1), hidden.sum(axis=1)
    return np.mean(found[there > 0] / np.minimum(k, there[there > 0]))


sizes = (1, 5, 10, 20, 50)
figure, axes = pyplot.subplots(figsize=(6, 4), layout="constrained")
for name, scores in recommenders.items():
    values = [recall(scores, k) for k in sizes]
    print(f"{name:<28} " + ", ".join(f"recall@{k} {value:.3f}" for k, value in zip(sizes, values, strict=True)))
    axes.plot(sizes, values, marker="o", label=name)
axes.set(xscale="log", xlabel="items recommended, k", ylabel="recall@k", ylim=(0, None))
axes.set_xticks(sizes, [str(k) for k in sizes])
axes.minorticks_off()
axes.set_title(f"{ITEMS} items, {len(train)} users to learn from, {HELD_OUT} others to recommend to", fontsize=10)
axes.grid(alpha=0.3)
axes.legend()
figure.savefig(OUT / "recommendation.png", dpi=100)
