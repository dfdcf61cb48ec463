"""penalty: what is added to the discriminator's loss for the gradient of its logit, and how its own gradient is found.

``s(x)`` is the logit of a row ``x[D]`` and ``g(x) = ds/dx``, one gradient ``[D]`` a row. Of ``B`` rows ::

    r1         P = weight / 2  mean |g|^2          x: real rows        (Mescheder, Geiger and Nowozin 2018, equation 9)
    two_sided  P = weight  mean (|g| - 1)^2        x: between a real row and a generated one
                                                                       (Gulrajani et al. 2017, equation 3)

with the Euclidean norm over all of a row's columns. A row between two others is :func:`interpolate`'s, with one ``u`` a
row, uniform in [0, 1) (Gulrajani et al., algorithm 1)::

    x = u real + (1 - u) fake

First, by the gradient. With ``n = |g|``, ``dn/dg = g / n``; where ``g = 0`` the norm has no derivative: 0 is taken::

    r1         v = dP/dg = weight / B  g
    two_sided  v = dP/dg = 2 weight / B  (n - 1)  g / n

Then by the parameters. ``g`` itself is what a backward pass gives, so ``dP/dtheta`` is a derivative through that pass.
It takes no new kind of pass: with ``v`` held fixed, the chain rule is ::

    dP/dtheta = sum_rows sum_d v_d dg_d/dtheta = d/dtheta  sum_rows <v, g>

and ``<v, ds/dx>`` is how fast the logit changes when ``x`` moves along ``v``, the *tangent* of ``s`` along ``v``. It
can be computed forward, beside the layers' values (the R-operator of Pearlmutter 1994), and that forward pass is
differentiated as any other is. All of it for ``L`` layers ``z_l = y_(l-1) W_l + b_l``, ``y_l = act(z_l)``, ``y_0 = x``,
``s = z_L``; products are elementwise where no matrix is::

    the gradient      delta_L = 1
                      delta_l = (delta_(l+1) W_(l+1)^T) act'(z_l)            delta_l = ds/dz_l
                      g       = delta_1 W_1^T

    the tangent       t_0    = v
                      zdot_l = t_(l-1) W_l                                   no bias: it does not move
                      t_l    = zdot_l act'(z_l)                              <v, g> = sdot = zdot_L

``sdot`` depends on the parameters in two ways. Through the tangent pass: ``zdot_l`` is linear in ``t_(l-1)`` and in
``W_l``, and everything behind it is linear too, with the factors of the ordinary backward pass. So ``dsdot/dzdot_l =
delta_l``, which is there already, and a layer's share is ::

    dW_l += t_(l-1)^T delta_l                                                db_l gets nothing

And through the values ``z_l`` at which ``act'`` is taken. ``t_l = zdot_l act'(z_l)`` changes with ``z_l`` at the rate
``zdot_l act''(z_l)``, and what comes back to ``t_l`` is ``delta_(l+1) W_(l+1)^T = delta_l / act'(z_l)``::

    e_l = (delta_(l+1) W_(l+1)^T) zdot_l act''(z_l) = delta_l zdot_l (act'' / act')(z_l)

The quotient is a plain function of the stored output (:func:`minigen.reference.activations.bend`), so nothing is
divided. It is 0 for linear, relu and leaky_relu, and then this part is nothing. Else ``d_l = dsdot/dz_l`` collects the
``e_l`` on an ordinary backward pass through the layers' values::

    the curvature     d_L = e_L
                      d_l = (d_(l+1) W_(l+1)^T) act'(z_l) + e_l
                      dW_l += y_(l-1)^T d_l        db_l += sum over rows of d_l

In all: a backward pass to the input, a forward pass and the weights' gradients, that is one forward and backward pass
over B rows, and for smooth activations one more backward pass. :mod:`minigen.models.penalty` spells it out in calls.
"""

from __future__ import annotations

import numpy as np

from minigen import checks
from minigen.reference.underflow import small_is_zero

PENALTIES = ("r1", "two_sided")


@small_is_zero
def penalty(g: np.ndarray, kind: str, weight: float) -> tuple[np.ndarray, np.ndarray, np.floating]:
    """``v[B,D] = dP/dg``, the penalty of each row ``[B]`` and their mean ``P``, from the gradients ``g[B,D]``.

    Raises ValueError for an unknown ``kind`` and for ``B = 0``.
    """
    checks.choice("kind", kind, PENALTIES)
    if len(g) == 0:
        raise ValueError("g has no rows, the mean penalty of nothing is not defined")
    squares = (g * g).sum(axis=1)
    if kind == "r1":
        rows, slope = weight / 2 * squares, np.full_like(squares, weight)
    else:
        n = np.sqrt(squares)
        rows = weight * (n - 1) ** 2
        slope = 2 * weight * (n - 1) / np.where(n > 0, n, 1)  # times g, which is 0 where n is
    return g * (slope / len(g))[:, None], rows, rows.mean()


@small_is_zero
def interpolate(real: np.ndarray, fake: np.ndarray, u: np.ndarray) -> np.ndarray:
    """``u real + (1 - u) fake``, ``[B,D]``, with one ``u[B]`` a row."""
    return u[:, None] * real + (1 - u)[:, None] * fake
