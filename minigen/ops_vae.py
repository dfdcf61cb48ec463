"""The operations that only a VAE's step has: learned variances, labels, weights of the KL, several draws of the latent.

Rows as in :mod:`minigen.ops`, which says how to read them.
"""

from __future__ import annotations

from typing import Any

from minigen.errors import ArgumentError
from minigen.registry import operation, whole, within
from minigen.step.record import Array


def _one_or_all(sizes: dict[str, int], given: dict[str, Any]) -> None:
    V, D = sizes["V"], sizes["D"]
    if V not in (1, D):
        raise ArgumentError("logvar", f"must have one element, or one for each of the {D} columns, not {V}")


def _whole_draws(sizes: dict[str, int], given: dict[str, Any]) -> None:
    if sizes["R"] % given["draws"]:
        raise ArgumentError("draws", f"must divide the {sizes['R']} rows of nats, not be {given['draws']}")


class VaeOperations:
    """Part of :class:`minigen.ops.Operations`."""

    # --- gaussian_loss: the same with log variances that are learned ----------------------------------------

    @operation(
        "output[B+,D] x[B,D] logvar[V] =rows[B] =loss[1] =doutput[B,D]",
        "rows = sum over columns of ((x - output)^2 exp(-logvar) + logvar + log 2 pi) / 2; "
        "loss = mean of rows; doutput = d loss / d output",
        flops=lambda n: 8 * n["B"] * n["D"],
        also=_one_or_all,
    )
    def gaussian_loss(self, output: Array, x: Array, logvar: Array, doutput: Array, rows: Array, loss: Array) -> None:
        """``rows[B] = -log p(x|z)`` of a Gaussian of means ``output``, variances ``exp(logvar)``; as ``vae_loss``.

        ``logvar`` has one element, or one for each column; it is taken as bounded to [-14, 80].
        """

    @operation(
        "doutput[B+,D] output[B,D] x[B,D] logvar[V] =dlogvar[V]",
        "dlogvar = (1 - sum over rows of doutput (output - x)) / 2, for each column or all together",
        flops=lambda n: 3 * n["B"] * n["D"],
        also=_one_or_all,
    )
    def gaussian_logvar_gradient(self, doutput: Array, output: Array, x: Array, logvar: Array, dlogvar: Array) -> None:
        """``dlogvar[V]`` of ``gaussian_loss``, from the ``doutput`` that it gave, whose rows may have been weighted."""

    # --- categorical_loss: one-hot columns in blocks ---------------------------------------------------------

    @operation(
        "output[B+,D] x[B,D] ends:int32[G] =rows[B] =loss[1] =doutput[B,D]",
        "rows = sum over blocks of (log sum exp(output) - output x); loss = mean of rows; "
        "doutput = (softmax(output) - x) / B",
        flops=lambda n: 8 * n["B"] * n["D"],
    )
    def categorical_loss(self, output: Array, x: Array, ends: Array, doutput: Array, rows: Array, loss: Array) -> None:
        """``rows[B] = -log p(x|z)`` of labels whose logits are ``output``; as ``vae_loss``.

        Columns are one-hot in blocks; block g ends before column ``ends[g]``. The ends rise to D, which is not checked.
        """

    # --- mixed_loss: columns of numbers, Gaussian with learned variances, and of labels in blocks ------------

    @operation(
        "output[B+,D] x[B,D] ends:int32[G] logvar[V] =rows[B] =loss[1] =doutput[B,D]",
        "rows = gaussian_loss of the blocks of one column + categorical_loss of the wider ones; loss = mean of rows; "
        "doutput = d loss / d output",
        flops=lambda n: 8 * n["B"] * n["D"],
        also=_one_or_all,
    )
    def mixed_loss(
        self, output: Array, x: Array, ends: Array, logvar: Array, doutput: Array, rows: Array, loss: Array
    ) -> None:
        """``rows[B] = -log p(x|z)`` of numbers in blocks of one column and labels in wider blocks; as ``vae_loss``.

        ``ends`` as in ``categorical_loss``, ``logvar`` as in ``gaussian_loss``: those of labels are not read.
        """

    @operation(
        "doutput[B+,D] output[B,D] x[B,D] ends:int32[G] logvar[V] =dlogvar[V]",
        "dlogvar = gaussian_logvar_gradient of the blocks of one column, 0 of wider ones",
        flops=lambda n: 3 * n["B"] * n["D"],
        also=_one_or_all,
    )
    def mixed_logvar_gradient(
        self, doutput: Array, output: Array, x: Array, ends: Array, logvar: Array, dlogvar: Array
    ) -> None:
        """``dlogvar[V]`` of ``mixed_loss``, from the ``doutput`` that it gave; 0 in the columns of labels."""

    # --- kl_weights, ramp: what the KL counts for ------------------------------------------------------------

    @operation(
        "heads[B+,2L] beta[1] =weights[L] =penalty[1]",
        "weights = beta where the mean KL of a latent is above {free_bits}, else 0; penalty"
        " = beta sum of max({free_bits}, mean KL)",
        free_bits=within(0),
        flops=lambda n: 5 * n["B"] * n["L"],
    )
    def kl_weights(self, heads: Array, beta: Array, weights: Array, penalty: Array, free_bits: float = 0.0) -> None:
        """``weights[L]`` for ``latent_backward``: ``beta[0]``, or 0 where the mean KL is within ``free_bits`` nats.

        ``penalty[0] = beta[0] * sum of max(free_bits, mean KL of a latent)``.
        """

    @operation("step:uint64[1] =out[1]", "out = {high} min(1, step / {steps})", high=within(0), steps=whole(1))
    def ramp(self, step: Array, out: Array, high: float, steps: int) -> None:
        """``out[0]`` grows from 0 at step 0 linearly to ``high`` at ``steps``, and stays there."""

    # --- importance: R rows are draws, a block of the B rows of data after the other -------------------------

    @operation("x[B+,D] =y[R,D]", "y_r = x_(r mod B)")
    def repeat_rows(self, x: Array, y: Array) -> None:
        """``y[r] = x[r % B]``."""

    @operation(
        "heads[B+,2L] eps[R+,L] =z[R,L] =rows[R] =loss[1]",
        "z = mu + exp(logvar / 2) eps; rows = log q(z|x) - log p(z); loss = mean of rows",
        flops=lambda n: 8 * n["R"] * n["L"],
    )
    def importance_sample(self, heads: Array, eps: Array, z: Array, rows: Array, loss: Array) -> None:
        """``z[R,L] = mu + exp(logvar / 2) * eps``, ``rows[R] = log q(z|x) - log p(z)`` in nats, ``loss[0]`` their mean.

        Row r is drawn for row ``r % B`` of ``heads``.
        """

    @operation(
        "nats[R+] ratios[R] =weights[R] =loss[1]",
        "weights = {draws} softmax over a row's draws of log w, log w = -(nats + ratios); loss = -mean log mean w",
        draws=whole(1),
        also=_whole_draws,
        flops=lambda n: 6 * n["R"],
    )
    def importance_weights(self, nats: Array, ratios: Array, weights: Array, loss: Array, draws: int) -> None:
        """``weights[R] = draws softmax(log w)`` over a row's draws, ``log w = -(nats + ratios)``; the loss."""

    @operation("+g[R,D] weights[R]", "g = weights g, row by row", flops=lambda n: n["R"] * n["D"])
    def scale_rows(self, g: Array, weights: Array) -> None:
        """``g[r] *= weights[r]``."""

    @operation(
        "dz[R,L] z[R,L] heads[B+,2L] eps[R,L] weights[R] =dheads[B,2L]",
        "g = dz + weights z / R; dmu = sum over draws of g; dlogvar = sum over draws of g "
        "eps exp(logvar / 2) / 2 - weights / 2R",
        flops=lambda n: 10 * n["R"] * n["L"],
    )
    def importance_backward(self, dz: Array, z: Array, heads: Array, eps: Array, weights: Array, dheads: Array) -> None:
        """``dheads[B,2L]``: gradient of (loss behind ``dz[R,L]``) + weighted mean of ``importance_sample``'s rows."""
