"""The discriminator's last layer gives a logit ``s`` for each row, and ``D = 1 / (1 + exp(-s))`` is the probability
that the row is real. Its loss is ``-mean(log D)`` over the real rows plus ``-mean(log(1 - D))`` over the generated
ones.

Write it and its gradient in terms of ``s``. Logits of 1000 and -1000 must give finite numbers (and no warnings): what
is ``-log D``, written with ``log(1 + exp(...))``? ``np.logaddexp(0, a)`` is ``log(1 + exp(a))`` for any ``a``.
"""

import numpy as np  # noqa: F401 (your lines use it)


def discriminator_loss(real, fake):
    """The loss, a number, and its gradients ``dreal[N,1]`` and ``dfake[M,1]``, by the logits ``real[N,1]`` and
    ``fake[M,1]``."""
    raise NotImplementedError
