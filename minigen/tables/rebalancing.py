"""Training by sampling (Xu et al. 2019): rows of rare categories are seen more often."""

from __future__ import annotations

import numpy as np

MOST = 10  # times as many rows as the table has, at most


def by_log_frequency(labels: np.ndarray, seed: int) -> np.ndarray:
    """Numbers of the rows to train on, ``int[M]``, in random order, some of them more than once.

    A label that occurs ``c`` times in ``labels[N]`` gets a share of them proportional to ``log(1 + c)``, and the counts
    of its rows differ by one at most. ``M`` is the smallest number with which every row occurs, but at most 10 N; rows
    of the most frequent labels are then left out at random.
    """
    rng = np.random.default_rng([seed, 6])
    counts = np.bincount(labels)
    shares = np.log1p(counts) / np.log1p(counts).sum()
    there = counts > 0
    total = min((counts[there] / shares[there]).max(), MOST * len(labels))
    wanted = np.maximum(1, np.rint(shares * total).astype(int))
    chosen = []
    for label in np.flatnonzero(there):
        own = rng.permutation(np.flatnonzero(labels == label))
        chosen.append(np.resize(own, wanted[label]))
    return rng.permutation(np.concatenate(chosen))
