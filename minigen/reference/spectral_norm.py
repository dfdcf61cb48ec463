"""spectral_norm: a weight divided by its largest singular value (Miyato et al. 2018, equations 8 to 12, algorithm 1).

Divided so, ``z = x W/sigma + b`` stretches no direction of ``x`` by more than 1. For ``W[I,O]``, ``u[O]`` and ``v[I]``,
both of length 1, one step of the power iteration from the ``u`` of the step before is::

    v = W u / |W u|        u = W^T v / |W^T v|        sigma = v^T W u

``u`` and ``v`` approach the singular vectors of the largest singular value, and ``sigma`` that value; as the weights
move little in a step, one step of the iteration a pass is enough. Without it (in inference) ``u`` stays,
``v = W u / |W u|``, and ``sigma = |W u|``.

Backward. ``u`` and ``v`` count as constants. (At the singular vectors that is exact: there ``sigma`` is the maximum of
``v^T W u`` over both, so that moving them changes nothing to first order.) ``dsigma/dW[i,o] = v_i u_o``, so of
``N = W / sigma``, with ``dN`` the gradient of the loss by ``N``::

    dL = <dN, dW/sigma - W dsigma/sigma^2> = <dN, dW>/sigma - <dN, N>/sigma <v u^T, dW>
    dL/dW = (dN - <dN, N> v u^T) / sigma

which is their equation 12 for one layer.
"""

from __future__ import annotations

import numpy as np

SMALLEST_NORM = 1e-12


def _normalized(x: np.ndarray) -> tuple[np.ndarray, np.floating]:
    """A vector of length 1, and what the length was."""
    norm = max(np.sqrt((x * x).sum()), x.dtype.type(SMALLEST_NORM))
    return x / norm, norm


def forward(
    W: np.ndarray, u: np.ndarray, iterate: bool = True
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """``u[O]``, ``v[I]``, ``sigma[1]`` and ``W[I,O] / sigma``; with ``iterate`` after one step of the iteration."""
    v, sigma = _normalized(W @ u)
    if iterate:
        u, sigma = _normalized(v @ W)
    return u, v, np.array([sigma], W.dtype), W / sigma


def backward(
    dnormalized: np.ndarray, normalized: np.ndarray, u: np.ndarray, v: np.ndarray, sigma: np.ndarray
) -> np.ndarray:
    """``dW[I,O]`` from the gradient of ``W / sigma``."""
    along = (dnormalized * normalized).sum()
    return (dnormalized - along * np.outer(v, u)) / sigma[0]
