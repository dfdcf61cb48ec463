"""From a decoder's output to data: the mean of ``p(x | z)``, and draws from it, in the units of the model."""

from __future__ import annotations

from typing import Any

import numpy as np

from minigen.backend import Array
from minigen.reference import activations, categorical_loss, mixed_loss, vae_loss


def mean(likelihood: str, output: Array, ends: np.ndarray | None) -> Array:
    """The mean of ``p(x | z)``, ``[n, D]`` for the decoder's ``output[n, D]``; ``ends`` of the blocks of labels.

    Of a continuous Bernoulli it is not ``sigmoid(output)``: see :mod:`minigen.reference.vae_loss`. Of a multinomial it
    is that of a single count.
    """
    if likelihood == "bernoulli":
        return activations.forward(output, "sigmoid")
    if likelihood == "continuous_bernoulli":
        return vae_loss.continuous_bernoulli_mean(output)
    if likelihood in ("categorical", "multinomial"):
        assert ends is not None
        return categorical_loss.probabilities(output, ends)
    if likelihood == "mixed":
        assert ends is not None
        return mixed_loss.means(output, ends)
    return output


def draw(
    likelihood: str, output: Array, ends: np.ndarray | None, variance: Any, normals: Any, uniforms: Any
) -> np.ndarray:
    """One draw from ``p(x | z)`` for each row of ``output[n, D]``, float32.

    ``normals()`` and ``uniforms()`` give numbers of its shape; a mixed likelihood needs both, others one of them.
    """
    if likelihood == "gaussian":
        return output + np.sqrt(variance).astype(np.float32) * normals()
    if likelihood == "mixed":
        assert ends is not None
        drawn, columns = with_labels_drawn(mean(likelihood, output, ends), ends, uniforms()), mixed_loss.numbers(ends)
        std = np.sqrt(np.broadcast_to(variance, output.shape[1])[columns]).astype(np.float32)
        drawn[:, columns] += std * normals()[:, columns]
        return drawn
    if likelihood == "continuous_bernoulli":
        return continuous_bernoulli(output, uniforms())
    if likelihood == "categorical":
        return _one_hot(mean(likelihood, output, ends), ends, uniforms())
    return (uniforms() < mean(likelihood, output, ends)).astype(np.float32)


def with_labels_drawn(rows: Array, ends: np.ndarray, u: np.ndarray) -> Array:
    """``rows[n, D]`` with a label drawn in each block wider than one column, which holds their probabilities.

    ``u[n, D]`` are uniforms. Drawn so, a label has the distribution of the largest logit with Gumbel noise.
    """
    drawn, columns = _one_hot(rows, ends, u), mixed_loss.numbers(ends)
    drawn[:, columns] = rows[:, columns]
    return drawn


def continuous_bernoulli(logits: Array, u: Array) -> Array:
    """Draws by the inverse of the distribution function ``u = (e^(l x) - 1) / (e^l - 1)``, in float64 inside.

    With ``a = |l|``: where ``l < 0`` it is ``x = -log(1 - u (1 - e^-a)) / a``, and where ``l > 0`` one less that of
    ``1 - u``, so that nothing overflows; near ``l = 0`` it is ``u``.
    """
    a = np.maximum(np.abs(logits).astype(np.float64), 1e-9)
    lower = np.where(logits < 0, u, 1 - u.astype(np.float64))
    x = np.clip(-np.log1p(lower * np.expm1(-a)) / a, 0, 1)
    return np.where(logits < 0, x, 1 - x).astype(np.float32)


def _one_hot(probabilities: Array, ends: Any, u: Array) -> Array:
    """A label of each block; of the uniforms ``u[n, D]`` those in the first column of a block are used."""
    labels = np.zeros_like(probabilities)
    for block in categorical_loss.slices(ends):
        reached = np.cumsum(probabilities[:, block], axis=1) <= u[:, block.start, None]
        chosen = np.minimum(reached.sum(axis=1), reached.shape[1] - 1)
        labels[:, block] = np.arange(reached.shape[1]) == chosen[:, None]
    return labels
