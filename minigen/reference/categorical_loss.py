"""categorical_loss: a VAE's reconstruction term for columns that are labels, one-hot in blocks; nats, a value a row.

The columns of ``x[B,D]`` are cut into blocks; block g ends before column ``ends[g]``. A row is one-hot in each. The
decoder gives logits ``l``, and the probabilities of a block's labels are its softmax (Bridle 1990)::

    p_d = e^l_d / sum_k e^l_k                            k over the block of d

    -log p(x|l) = sum over blocks of  t log(sum_k e^l_k) - sum_k x_k l_k,     t = sum_k x_k, which is 1
    dl_d        = (t p_d - x_d) / B                      since d log(sum_k e^l_k) / dl_d = p_d, and 1/B of the mean

With ``t`` written out both are right for any ``x >= 0``: a block of zeros, a label that is not known, adds nothing, and
a block of counts is a multinomial (Liang et al. 2018, equation 2): ``t`` draws from the block's probabilities. Its
coefficient ``log(t! / prod_k x_k!)``, in how many orders these can come, depends on the data alone and is left out.

Both do not change when a number is added to all logits of a block, so the largest is subtracted first: no ``e^`` is
above 1, and their sum lies between 1 and the width of the block.
"""

from __future__ import annotations

import numpy as np

from .underflow import small_is_zero


@small_is_zero
def forward(logits: np.ndarray, x: np.ndarray, ends: np.ndarray) -> tuple[np.ndarray, np.floating, np.ndarray]:
    """``rows[B]``, their mean, and ``dlogits[B,D]``, from ``logits[B,D]``, ``x[B,D]`` and the blocks' ``ends[G]``.

    Raises ValueError for ``B = 0``.
    """
    if len(x) == 0:
        raise ValueError("x has no rows, the mean loss of nothing is not defined")
    rows, dlogits = np.zeros(len(x), x.dtype), np.empty_like(logits)
    for block in slices(ends):
        below = logits[:, block] - logits[:, block].max(axis=1, keepdims=True)
        e, labels = np.exp(below), x[:, block]
        sums, total = e.sum(axis=1, keepdims=True), labels.sum(axis=1, keepdims=True)
        rows += (total * np.log(sums)).sum(axis=1) - (labels * below).sum(axis=1)
        dlogits[:, block] = (total * (e / sums) - labels) / len(x)
    return rows, rows.mean(), dlogits


def probabilities(logits: np.ndarray, ends: np.ndarray) -> np.ndarray:
    """The softmax of each block of ``logits[N,D]``."""
    p = np.empty_like(logits)
    for block in slices(ends):
        e = np.exp(logits[:, block] - logits[:, block].max(axis=1, keepdims=True))
        p[:, block] = e / e.sum(axis=1, keepdims=True)
    return p


def slices(ends: np.ndarray) -> list[slice]:
    """The columns of each block."""
    stops = [int(end) for end in ends]
    return [slice(start, stop) for start, stop in zip([0, *stops], stops, strict=False)]
