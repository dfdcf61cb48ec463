"""Ways between two points of latent space."""

from __future__ import annotations

import numpy as np


def great_circle(a: np.ndarray, b: np.ndarray, steps: int) -> np.ndarray:
    """``steps`` points from ``a[L]`` to ``b[L]``, ends included, ``[steps, L]``: slerp of White 2016."""
    t = np.linspace(0, 1, steps)[:, None]
    cosine = np.dot(a, b) / max(np.linalg.norm(a) * np.linalg.norm(b), 1e-12)
    angle = np.arccos(np.clip(cosine, -1, 1))
    if np.sin(angle) < 1e-6:  # the same direction or opposite ones: no circle to follow, a line will do
        return (1 - t) * a + t * b
    return (np.sin((1 - t) * angle) * a + np.sin(t * angle) * b) / np.sin(angle)
