"""mixed_loss: a VAE's reconstruction term for a table of numbers and labels; nats, a value a row.

The columns of ``x[B,D]`` are cut into blocks; block g ends before column ``ends[g]``. A block of one column is a
number, Gaussian about the decoder's output with a variance ``exp(logvar)`` that is a parameter; a wider one is a label,
one-hot, whose probabilities are the softmax of the decoder's output. Given ``z`` the blocks are independent, so their
terms add up (Xu et al. 2019, section 4.4, whose TVAE has numbers and labels like this)::

    -log p(x|z) = sum over numbers of  (x_d - m_d)^2 / (2 v_d) + (log(2 pi) + logvar_d) / 2
                + sum over labels of  log(sum_k e^l_k) - sum_k x_k l_k,      k over the columns of the block

    dm_d = (m_d - x_d) / (v_d B)           dl_k = (softmax(l)_k - x_k) / B

The two terms, their gradients and the bounds of ``logvar`` are those of :mod:`minigen.reference.gaussian_loss` and
:mod:`minigen.reference.categorical_loss`. ``logvar[D]`` has one of each column, of which those of labels count for
nothing and have a gradient of 0, or ``logvar[1]`` is that of all numbers.
"""

from __future__ import annotations

import numpy as np

from . import categorical_loss, gaussian_loss
from .categorical_loss import slices


def numbers(ends: np.ndarray) -> np.ndarray:
    """The columns that are blocks of their own."""
    return np.array([block.start for block in slices(ends) if block.stop - block.start == 1], np.int64)


def labels(ends: np.ndarray) -> list[slice]:
    """The columns of each wider block."""
    return [block for block in slices(ends) if block.stop - block.start > 1]


def forward(
    output: np.ndarray, x: np.ndarray, ends: np.ndarray, logvar: np.ndarray
) -> tuple[np.ndarray, np.floating, np.ndarray]:
    """``rows[B]``, their mean, and ``doutput[B,D]``, from ``output[B,D]``, ``x[B,D]``, the blocks' ``ends[G]`` and
    ``logvar[D]`` or ``[1]``.

    Raises ValueError for ``B = 0``.
    """
    doutput, columns = np.empty_like(output), numbers(ends)
    of_numbers = logvar if len(logvar) == 1 else logvar[columns]
    rows, _, doutput[:, columns] = gaussian_loss.forward(output[:, columns], x[:, columns], of_numbers)
    for block in labels(ends):
        width = np.array([block.stop - block.start])
        of_block, _, doutput[:, block] = categorical_loss.forward(output[:, block], x[:, block], width)
        rows = rows + of_block
    return rows, rows.mean(), doutput


def logvar_gradient(
    doutput: np.ndarray, output: np.ndarray, x: np.ndarray, ends: np.ndarray, logvar: np.ndarray
) -> np.ndarray:
    """``dlogvar`` of the shape of ``logvar``, from ``doutput[B,D]`` as :func:`forward` gives it, or with its rows
    weighted."""
    columns = numbers(ends)
    given = doutput[:, columns], output[:, columns], x[:, columns]
    if len(logvar) == 1:
        return gaussian_loss.logvar_gradient(*given, logvar)
    gradient = np.zeros_like(logvar)
    gradient[columns] = gaussian_loss.logvar_gradient(*given, logvar[columns])
    return gradient


def means(output: np.ndarray, ends: np.ndarray) -> np.ndarray:
    """The numbers of ``output[N,D]`` as they are, and the softmax of each wider block."""
    mean = output.copy()
    for block in labels(ends):
        width = np.array([block.stop - block.start])
        mean[:, block] = categorical_loss.probabilities(output[:, block], width)
    return mean
