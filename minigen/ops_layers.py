"""The rows of what lies between dense layers: self-gated activations, normalization, dropout, maxout, spectral norm.

How to read them: :mod:`minigen.ops`, whose :class:`~minigen.ops.Operations` has them all.
"""

from __future__ import annotations

from minigen import checks
from minigen.reference.activations import DENSE_ACTIVATIONS
from minigen.reference.self_gated import SELF_GATED
from minigen.registry import OneOf, flag, operation, real, whole, within
from minigen.step.record import Array


class LayerOperations:
    """Part of :class:`minigen.ops.Operations`."""

    # --- self-gated activations ---------------------------------------------------------------------------

    @operation(
        "z[...] =y[...]",
        "y = {activation}(z)",
        activation=OneOf(SELF_GATED),
        flops=lambda n: 10 * n["n"],
        in_place=True,
    )
    def self_gated_forward(self, z: Array, y: Array, activation: str) -> None:
        """``y = z s(p(z))``, elementwise: :mod:`minigen.reference.self_gated`; ``y`` may be ``z``."""

    @operation(
        "dy[...] z[...] =dz[...]",
        "dz = dy * {activation}'(z)",
        activation=OneOf(SELF_GATED),
        flops=lambda n: 15 * n["n"],
        in_place=True,
    )
    def self_gated_backward(self, dy: Array, z: Array, dz: Array, activation: str) -> None:
        """``dz = dy * act'(z)``, elementwise; ``dz`` may be ``dy``."""

    @operation(
        "dy[...] z_tangent[...] z[...] =dz[...]",
        "dz {+}= dy * z_tangent * {activation}''(z)",
        activation=OneOf(SELF_GATED),
        accumulate=flag,
        flops=lambda n: 20 * n["n"],
    )
    def self_gated_curvature(
        self, dy: Array, z_tangent: Array, z: Array, dz: Array, activation: str, accumulate: bool = False
    ) -> None:
        """``dz = dy * z_tangent * act''(z)``, elementwise; with ``accumulate`` added to ``dz``."""

    # --- normalization: z = gamma (x - mean) inv_std + beta ---------------------------------------------

    @operation(
        "x[G,R,O] gamma[O] beta[O] =y[G,R,O] =mean[G,O] =inv_std[G,O] +running_mean[O] +running_var[O]",
        "y = {activation}(gamma h + beta), h = (x - mean) inv_std, over the rows of each batch",
        momentum=within(0, 1),
        eps=real,
        activation=OneOf(DENSE_ACTIVATIONS),
        flops=lambda n: 8 * n["G"] * n["R"] * n["O"],
    )
    def batch_norm_forward(
        self,
        x: Array,
        gamma: Array,
        beta: Array,
        y: Array,
        mean: Array,
        inv_std: Array,
        running_mean: Array,
        running_var: Array,
        momentum: float = 0.1,
        eps: float = 1e-5,
        activation: str = "linear",
    ) -> None:
        """``y = act(gamma h + beta)``, ``h`` the columns of each of ``G`` batches of ``R`` rows, normalised.

        The running statistics are moved by each batch in turn: :mod:`minigen.reference.normalization`.
        """

    @operation(
        "x[B,O] gamma[O] beta[O] running_mean[O] running_var[O] =y[B,O]",
        "y = {activation}(gamma h + beta), h = (x - running_mean) / sqrt(running_var + {eps})",
        eps=real,
        activation=OneOf(DENSE_ACTIVATIONS),
        flops=lambda n: 4 * n["B"] * n["O"],
    )
    def batch_norm_infer(
        self,
        x: Array,
        gamma: Array,
        beta: Array,
        running_mean: Array,
        running_var: Array,
        y: Array,
        eps: float = 1e-5,
        activation: str = "linear",
    ) -> None:
        """``y = act(gamma h + beta)``, ``h`` the columns normalised by the running statistics."""

    @operation(
        "dz[G,R,O] x[G,R,O] gamma[O] mean[G,O] inv_std[G,O] =dx[G,R,O]",
        "dx = inv_std (g - mean(g) - h mean(g h)), g = dz gamma, over the rows of each batch",
        flops=lambda n: 10 * n["G"] * n["R"] * n["O"],
    )
    def batch_norm_dgrad(self, dz: Array, x: Array, gamma: Array, mean: Array, inv_std: Array, dx: Array) -> None:
        """``dx = inv_std (g - mean g - h mean(g h))`` with ``g = dz gamma``, means over a batch's rows."""

    @operation(
        "dz[G,R,O] x[G,R,O] mean[G,O] inv_std[G,O] =dgamma[O] =dbeta[O]",
        "dgamma = sum over rows of dz h; dbeta = sum over rows of dz",
        flops=lambda n: 5 * n["G"] * n["R"] * n["O"],
    )
    def batch_norm_wgrad(self, dz: Array, x: Array, mean: Array, inv_std: Array, dgamma: Array, dbeta: Array) -> None:
        """``dgamma = sum of dz h``, ``dbeta = sum of dz``, over the rows of all batches."""

    @operation(
        "x[B,O] gamma[O] beta[O] =y[B,O] =mean[B] =inv_std[B]",
        "y = {activation}(gamma h + beta), h = (x - mean) inv_std, over the columns of each row",
        eps=real,
        activation=OneOf(DENSE_ACTIVATIONS),
        flops=lambda n: 8 * n["B"] * n["O"],
    )
    def layer_norm_forward(
        self,
        x: Array,
        gamma: Array,
        beta: Array,
        y: Array,
        mean: Array,
        inv_std: Array,
        eps: float = 1e-5,
        activation: str = "linear",
    ) -> None:
        """``y = act(gamma h + beta)``, ``h`` each row normalised over its columns."""

    @operation(
        "dz[B,O] x[B,O] gamma[O] mean[B] inv_std[B] =dx[B,O]",
        "dx = inv_std (g - mean(g) - h mean(g h)), g = dz gamma, over the columns of each row",
        flops=lambda n: 10 * n["B"] * n["O"],
    )
    def layer_norm_dgrad(self, dz: Array, x: Array, gamma: Array, mean: Array, inv_std: Array, dx: Array) -> None:
        """``dx = inv_std (g - mean g - h mean(g h))`` with ``g = dz gamma``, means over a row's columns."""

    @operation(
        "dz[B,O] x[B,O] mean[B] inv_std[B] =dgamma[O] =dbeta[O]",
        "dgamma {+}= sum over rows of dz h; dbeta {+}= sum over rows of dz",
        accumulate=flag,
        flops=lambda n: 5 * n["B"] * n["O"],
    )
    def layer_norm_wgrad(
        self, dz: Array, x: Array, mean: Array, inv_std: Array, dgamma: Array, dbeta: Array, accumulate: bool = False
    ) -> None:
        """``dgamma = sum of dz h``, ``dbeta = sum of dz``, over the rows; with ``accumulate`` added."""

    @operation(
        "x_tangent[B,O] x[B,O] gamma[O] mean[B] inv_std[B] =z_tangent[B,O]",
        "z_tangent = gamma inv_std (t - mean(t) - h mean(h t)), t = x_tangent",
        flops=lambda n: 10 * n["B"] * n["O"],
    )
    def layer_norm_tangent(
        self, x_tangent: Array, x: Array, gamma: Array, mean: Array, inv_std: Array, z_tangent: Array
    ) -> None:
        """How ``z`` moves when ``x`` moves along ``x_tangent``: ``gamma inv_std (t - mean t - h mean(h t))``."""

    @operation(
        "dz[B,O] x_tangent[B,O] x[B,O] mean[B] inv_std[B] +dgamma[O]",
        "dgamma += d<dz, z_tangent> / dgamma",
        flops=lambda n: 12 * n["B"] * n["O"],
    )
    def layer_norm_tangent_wgrad(
        self, dz: Array, x_tangent: Array, x: Array, mean: Array, inv_std: Array, dgamma: Array
    ) -> None:
        """The gradient of ``<dz, z_tangent>`` by ``gamma``, added to ``dgamma``."""

    @operation(
        "dz[B,O] x_tangent[B,O] x[B,O] gamma[O] mean[B] inv_std[B] =dx[B,O]",
        "dx {+}= d<dz, z_tangent> / dx",
        accumulate=flag,
        flops=lambda n: 20 * n["B"] * n["O"],
    )
    def layer_norm_curvature(
        self,
        dz: Array,
        x_tangent: Array,
        x: Array,
        gamma: Array,
        mean: Array,
        inv_std: Array,
        dx: Array,
        accumulate: bool = False,
    ) -> None:
        """The gradient of ``<dz, z_tangent>`` by ``x``; with ``accumulate`` added to ``dx``."""

    # --- dropout, maxout, spectral_norm ---------------------------------------------------------------------

    @operation(
        "x[...] step:uint64[1] =y[...]",
        "y = x m / (1 - {rate}), m = 0 for a share {rate}, else 1",
        seed=checks.seed,
        stream=checks.seed,
        first=whole(0, 2**62),
        rate=within(0, 1),
        flops=lambda n: n["n"],
        in_place=True,
    )
    def dropout(self, x: Array, y: Array, seed: int, stream: int, step: Array, first: int, rate: float) -> None:
        """``y = x m / (1 - rate)`` with ``m = 0`` for a share ``rate`` of the elements, else 1; ``y`` may be ``x``.

        Element ``e`` of ``x`` is number ``first + e`` for Philox, so that part of a buffer has that part of its mask.
        """

    @operation("x[B,K,O] =y[B,O]", "y = max over pieces of x", flops=lambda n: n["B"] * n["K"] * n["O"])
    def maxout_forward(self, x: Array, y: Array) -> None:
        """``y[B,O]``, the largest of ``K`` pieces of each output."""

    @operation(
        "dy[B,O] x[B,K,O] =dx[B,K,O]",
        "dx = dy at the largest piece, 0 at the others",
        flops=lambda n: n["B"] * n["K"] * n["O"],
    )
    def maxout_backward(self, dy: Array, x: Array, dx: Array) -> None:
        """``dx[B,K,O]``: ``dy`` at the first of the largest pieces, 0 at the others."""

    @operation(
        "x_tangent[B,K,O] x[B,K,O] =y_tangent[B,O]",
        "y_tangent = x_tangent of the largest piece of x",
        flops=lambda n: n["B"] * n["K"] * n["O"],
    )
    def maxout_tangent(self, x_tangent: Array, x: Array, y_tangent: Array) -> None:
        """``y_tangent[B,O]``: of ``x_tangent`` the piece that is the first of the largest of ``x``."""

    @operation(
        "W[I,O] +u[O] =v[I] =sigma[1] =normalized[I,O]",
        "normalized = W / sigma; v = W u / |W u|, then u = W^T v / |W^T v|, sigma = v^T W u",
        iterate=flag,
        flops=lambda n: 5 * n["I"] * n["O"],
    )
    def spectral_norm(
        self, W: Array, u: Array, v: Array, sigma: Array, normalized: Array, iterate: bool = True
    ) -> None:
        """``normalized = W / sigma``, ``sigma`` the largest singular value by a step of the power iteration from ``u``.

        Without ``iterate`` ``u`` stays as it is.
        """

    @operation(
        "dnormalized[I,O] normalized[I,O] u[O] v[I] sigma[1] =dW[I,O]",
        "dW {+}= (dN - <dN, N> v u^T) / sigma, N = normalized",
        accumulate=flag,
        flops=lambda n: 5 * n["I"] * n["O"],
    )
    def spectral_norm_backward(
        self,
        dnormalized: Array,
        normalized: Array,
        u: Array,
        v: Array,
        sigma: Array,
        dW: Array,
        accumulate: bool = False,
    ) -> None:
        """``dW = (dN - <dN, N> v u^T) / sigma`` for ``N = W / sigma``; with ``accumulate`` on top of what is there."""
