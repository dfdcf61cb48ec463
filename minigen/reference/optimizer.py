"""optimizer: one update of the flat parameter vector ``p[n]`` from its gradient ``g[n]``.

sgd, with momentum mu (Polyak 1964; the learning rate stays outside of the velocity, so that a change of it takes effect
at once) and L2 weight decay w, whose gradient ``w p`` is added to ``g``::

    velocity = mu velocity + (g + w p)
    p        = p - lr velocity

adam (Kingma and Ba 2015, algorithm 1), at t = 1, 2, ...::

    m = beta1 m + (1 - beta1) g                running mean of g
    v = beta2 v + (1 - beta2) g^2              running mean of g^2
    p = p - lr (m / (1 - beta1^t)) / (sqrt(v / (1 - beta2^t)) + eps)

Both means start from 0. After t steps of a constant g, m = (1 - beta1) (1 + beta1 + ... + beta1^(t-1)) g
= (1 - beta1^t) g: dividing by ``1 - beta^t`` takes that bias away.

adamw (Loshchilov and Hutter 2019, algorithm 2): the decay acts on ``p`` itself, not through m and v. In their symbols
``alpha = 1`` and ``lr`` is the schedule multiplier ``eta``, which scales the step and the decay alike::

    p = p - lr w p, then adam

rmsprop (Tieleman and Hinton 2012, lecture 6e), as PyTorch has it: ``eps`` is added to the root, and momentum and L2
weight decay are those of sgd. The mean starts from 0 and its bias is left in, so the first steps are long::

    v        = beta2 v + (1 - beta2) (g + w p)^2
    velocity = mu velocity + (g + w p) / (sqrt(v) + eps)
    p        = p - lr velocity

lion (Chen et al. 2023, algorithm 2) takes the sign of a blend of the gradient and its running mean, sign(0) = 0, and
keeps a slower mean; the decay is decoupled. They train with beta1 = 0.9, beta2 = 0.99 and a rate 3 to 10 times below
Adam's, since every parameter moves by all of it::

    p = p - lr (sign(beta1 m + (1 - beta1) g) + w p)
    m = beta2 m + (1 - beta2) g
"""

from __future__ import annotations

import numpy as np

from .underflow import small_is_zero


@small_is_zero
def sgd(
    p: np.ndarray, g: np.ndarray, velocity: np.ndarray, lr: float, momentum: float = 0.0, weight_decay: float = 0.0
) -> tuple[np.ndarray, np.ndarray]:
    """The new ``p[n]`` and ``velocity[n]``."""
    velocity = momentum * velocity + (g + weight_decay * p)
    return p - lr * velocity, velocity


@small_is_zero
def adam(
    p: np.ndarray,
    g: np.ndarray,
    m: np.ndarray,
    v: np.ndarray,
    lr: float,
    t: int,
    beta1: float = 0.9,
    beta2: float = 0.999,
    eps: float = 1e-8,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The new ``p[n]``, ``m[n]`` and ``v[n]`` of update number ``t``, counted from 1."""
    m = beta1 * m + (1 - beta1) * g
    v = beta2 * v + (1 - beta2) * (g * g)
    m_hat = m / (1 - beta1**t)
    v_hat = v / (1 - beta2**t)
    return p - lr * m_hat / (np.sqrt(v_hat) + eps), m, v


@small_is_zero
def adamw(
    p: np.ndarray,
    g: np.ndarray,
    m: np.ndarray,
    v: np.ndarray,
    lr: float,
    t: int,
    beta1: float = 0.9,
    beta2: float = 0.999,
    eps: float = 1e-8,
    weight_decay: float = 0.01,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """As :func:`adam`, after ``p`` has been shrunk by ``lr * weight_decay`` of itself."""
    return adam(p - lr * weight_decay * p, g, m, v, lr, t, beta1, beta2, eps)


@small_is_zero
def rmsprop(
    p: np.ndarray,
    g: np.ndarray,
    velocity: np.ndarray,
    v: np.ndarray,
    lr: float,
    beta2: float = 0.99,
    eps: float = 1e-8,
    momentum: float = 0.0,
    weight_decay: float = 0.0,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The new ``p[n]``, ``velocity[n]`` and ``v[n]``."""
    g = g + weight_decay * p
    v = beta2 * v + (1 - beta2) * (g * g)
    velocity = momentum * velocity + g / (np.sqrt(v) + eps)
    return p - lr * velocity, velocity, v


@small_is_zero
def lion(
    p: np.ndarray,
    g: np.ndarray,
    m: np.ndarray,
    lr: float,
    beta1: float = 0.9,
    beta2: float = 0.99,
    weight_decay: float = 0.0,
) -> tuple[np.ndarray, np.ndarray]:
    """The new ``p[n]`` and ``m[n]``."""
    blend = beta1 * m + (1 - beta1) * g
    return p - lr * (np.sign(blend) + weight_decay * p), beta2 * m + (1 - beta2) * g
