"""The rows of a GAN's losses and penalties.

How to read them: :mod:`minigen.ops`, whose :class:`~minigen.ops.Operations` has them all.
"""

from __future__ import annotations

from typing import Any

from minigen.errors import ArgumentError
from minigen.reference.activations import DENSE_ACTIVATIONS
from minigen.reference.gan_loss import GAN_LOSSES
from minigen.reference.penalty import PENALTIES
from minigen.registry import OneOf, operation, whole, within
from minigen.step.record import Array


def _real_and_fake(sizes: dict[str, int], given: dict[str, Any]) -> None:
    B, n_real = sizes["B"], given["n_real"]
    if not 0 < n_real < B:
        raise ArgumentError("n_real", f"must leave a real and a generated row, 1 to {B - 1} of {B}, not {n_real}")


class GanOperations:
    """Part of :class:`minigen.ops.Operations`."""

    # --- gan_loss: of logits s ------------------------------------------------------------------------------

    @operation(
        "logits[B+,1] =loss[1] =dlogits[B,1]",
        "loss = mean real(s) of the first {n_real} logits + mean fake(s) of the others, "
        "terms of {kind}; dlogits = d loss / ds",
        recorded_as="gan_loss",
        implied={"player": "discriminator"},
        n_real=whole(0),
        kind=OneOf(GAN_LOSSES),
        smoothing=within(0, 1),
        flops=lambda n: 2 * n["B"],
        also=_real_and_fake,
    )
    def gan_loss_discriminator(
        self,
        logits: Array,
        n_real: int,
        dlogits: Array,
        loss: Array,
        kind: str = "non_saturating",
        smoothing: float = 0.0,
    ) -> None:
        """``loss[0]``, the mean of a real row's term plus the mean of a generated row's, and its gradient.

        The first ``n_real`` rows of ``logits[B,1]`` are of real samples, the others of generated ones. ``smoothing``
        replaces so much of a real row's term by that of a generated row. The terms: :mod:`minigen.reference.gan_loss`.
        """

    @operation(
        "logits[B+,1] =loss[1] =dlogits[B,1]",
        "loss = mean generator(s) of the logits, term of {kind}; dlogits = d loss / ds",
        recorded_as="gan_loss",
        implied={"player": "generator", "n_real": 0, "smoothing": 0.0},
        kind=OneOf(GAN_LOSSES),
        flops=lambda n: 2 * n["B"],
    )
    def gan_loss_generator(self, logits: Array, dlogits: Array, loss: Array, kind: str = "non_saturating") -> None:
        """``loss[0]``, the mean of the generator's term over ``logits[B,1]`` of generated rows, and its gradient."""

    # --- gumbel_softmax: a generator's output, numbers in blocks of one column and labels in wider ones -------

    @operation(
        "z[B,D] u?[B,D] ends:int32[G] =y[B,D]",
        "y = {activation}(z) of the blocks of one column, softmax((z + gumbel(u)) / {temperature}) of the wider ones; "
        "without u it is softmax(z)",
        activation=OneOf(DENSE_ACTIVATIONS),
        temperature=within(0, exclude_low=True),
        flops=lambda n: 8 * n["B"] * n["D"],
    )
    def gumbel_softmax_forward(
        self, z: Array, u: Array | None, ends: Array, y: Array, activation: str, temperature: float
    ) -> None:
        """``y[B,D]``: an activation of numbers, a softmax with Gumbel noise from uniforms ``u`` of labels.

        Block g ends before column ``ends[g]``; a block of one column is a number. The ends rise to D, which is not
        checked. Where ``u`` is None there is no noise, and the temperature is 1.
        """

    @operation(
        "dy[B,D] y[B,D] ends:int32[G] =dz[B,D]",
        "dz = dy {activation}'(z) of the blocks of one column, y (dy - sum over the block of dy y) / {temperature} of "
        "the wider ones",
        activation=OneOf(DENSE_ACTIVATIONS),
        temperature=within(0, exclude_low=True),
        flops=lambda n: 6 * n["B"] * n["D"],
    )
    def gumbel_softmax_backward(
        self, dy: Array, y: Array, ends: Array, dz: Array, activation: str, temperature: float
    ) -> None:
        """``dz[B,D]`` of ``gumbel_softmax_forward`` from its output ``y`` and the gradient ``dy`` of that."""

    # --- penalty: on the gradient g of the logit by the discriminator's input -------------------------------

    @operation(
        "g[B+,D] =v[B,D] =rows[B] =loss[1]",
        "loss = mean of rows, rows = {kind} penalty of g, weight {weight}; v = d loss / dg",
        kind=OneOf(PENALTIES),
        weight=within(0),
        flops=lambda n: 4 * n["B"] * n["D"],
    )
    def gradient_penalty(self, g: Array, v: Array, rows: Array, loss: Array, kind: str, weight: float = 1.0) -> None:
        """``rows[B]``, the penalty of each row of ``g[B,D]``, ``loss[0]`` their mean, and ``v[B,D]``, its gradient.

        The kinds: :mod:`minigen.reference.penalty`.
        """

    @operation("real[B,D] fake[B,D] u[B] =out[B,D]", "out = u real + (1 - u) fake", flops=lambda n: 3 * n["B"] * n["D"])
    def interpolate(self, real: Array, fake: Array, u: Array, out: Array) -> None:
        """``out[B,D] = u real + (1 - u) fake`` with one ``u[B]`` a row."""
