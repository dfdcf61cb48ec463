"""Draw handwritten digits: a GAN on the 5,000 digits that come with minigen, and what it draws as it learns.

    python examples/digits.py            # some minutes
    python examples/digits.py --quick    # a few seconds, to see that it works

Writes runs/examples/digits.png.
"""

import sys
from pathlib import Path

import numpy as np

import minigen

QUICK = "--quick" in sys.argv
OUT = Path("runs/examples")
OUT.mkdir(parents=True, exist_ok=True)

digits = minigen.datasets.mnist_sample()
short = {"epochs": 1, "hidden": (16,)} if QUICK else {"epochs": 40}  # the preset has 120: clearer ones still
gan = minigen.GAN.preset("quality", seed=1, **short)

moments, rows = [1] if QUICK else [1, 4, 12, 40], []


def keep_samples(end):
    """Called after each epoch; the same noise each time, so that a column of the picture shows one digit's way."""
    if end.epoch in moments:
        rows.append(end.model.sample(16, seed=5))


gan.fit(digits[:256] if QUICK else digits, callbacks=[keep_samples])
minigen.show(np.concatenate(rows), columns=16).save(OUT / "digits.png")
print(f"{OUT / 'digits.png'}: a row each after {', '.join(map(str, moments))} epochs")
