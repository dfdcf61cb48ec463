"""A dense layer is ``z[r,o] = sum_i x[r,i] W[i,o] + b[o]``. Somebody behind it has computed ``dz[B,O]``, the gradient
of the loss by each ``z``. What are the gradients by each weight and each bias?

A weight reaches the ``z`` of its column in every row, and so does a bias: the chain rule sums over the rows. No loops:
one product of matrices and one sum.
"""


def wgrad(x, dz):
    """``dW[I,O]`` and ``db[O]``, from ``x[B,I]`` and ``dz[B,O]``."""
    raise NotImplementedError
