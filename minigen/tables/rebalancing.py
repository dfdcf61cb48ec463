"""Training by sampling (Xu et al. 2019): rows of rare categories are seen more often."""

from __future__ import annotations

import numpy as np

MOST = 10  # times as many rows as the table has, at most


def by_log_frequency(labels: np.ndarray, seed: int) -> np.ndarray:
    """Rows to train on, ``int[M]``: a label that ``c`` of ``labels[N]`` have gets a share of them like ``log(1 + c)``.

    Each row is there as often as the others of its label, or once more; ``M`` is the least number for which each is
    there, but 10 N at most, where each of the most frequent ones is there or not by chance. In an order of chance.
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
