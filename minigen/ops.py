"""The operations of the engine: one row each, from which every backend takes its contract.

A row is a method of :class:`Operations`: its signature, its docstring, and above it :func:`operation` with what the
signature cannot say: which buffers there are, in which shapes, which of them are read and which written, what values
a setting may have, how many FLOPs the operation takes. From the rows come the checks of arguments, with one wording on
every device, what the recorder knows of reads and writes, and the tests that go over all operations.

A buffer is written as ``name[shape]``, in the order in which the reference takes and gives them::

    x[B,I]      read                    =y[B,O]     written              +p[n]       read and written
    x?[B,I]     may be None             z[...]      of any shape, the same for all such buffers of the operation
    step:uint64[1]  of this dtype, not the backend's;  ``data``: the backend's or uint8
    logits[B+,1]    at least one row

Letters are sizes: ``B`` rows of a batch, ``I`` inputs and ``O`` outputs of a dense layer, ``L`` latent variables, ``R``
draws of them, ``D`` columns of the data, ``G`` blocks of columns, ``V`` variances, ``K`` losses, ``n`` elements, also
of buffers of any shape. Every buffer is C-contiguous. What an operation writes overlaps nothing else that it is given.
``step`` counts the training steps done so far and ``lr`` is the learning rate: both lie in the device's memory, so that
a captured step can be repeated while they change.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from minigen import checks
from minigen.errors import ArgumentError
from minigen.ops_gan import GanOperations
from minigen.ops_layers import LayerOperations
from minigen.ops_optimizer import OptimizerOperations
from minigen.ops_vae import VaeOperations
from minigen.reference.activations import DENSE_ACTIVATIONS, LEAKY_SLOPE
from minigen.reference.gan_loss import GAN_LOSSES
from minigen.reference.penalty import PENALTIES
from minigen.reference.schedule import SCHEDULES
from minigen.reference.self_gated import SELF_GATED
from minigen.reference.vae_loss import LIKELIHOODS
from minigen.registry import OPERATIONS, OneOf, flag, operation, real, whole, within
from minigen.step.record import Array, Operation

__all__ = [
    "ACTIVATIONS",
    "DENSE_ACTIVATIONS",
    "GAN_LOSSES",
    "LEAKY_SLOPE",
    "LIKELIHOODS",
    "OPERATIONS",
    "PENALTIES",
    "SCHEDULES",
    "Array",
    "Operations",
]

ACTIVATIONS = (*DENSE_ACTIVATIONS, *SELF_GATED)
"""Of a network's hidden layers: those that are part of a dense layer, and those that are layers of their own."""


def _known_output(sizes: dict[str, int], given: dict[str, Any]) -> None:
    if given["activation"] != "linear" and given["x"] is None:
        activation = given["activation"]
        raise ArgumentError("x", f": the output of the layer before is needed for activation {activation!r}, got None")


def _whole_batch(sizes: dict[str, int], given: dict[str, Any]) -> None:
    if sizes["B"] > given["batch_size"]:
        raise ArgumentError(
            "batch_size", f"must be at least the {sizes['B']} rows of indices, not {given['batch_size']}"
        )


def _some_history(sizes: dict[str, int], given: dict[str, Any]) -> None:
    checks.integer("len(history)", sizes["T"], 1)
    checks.integer("len(losses)", sizes["K"], 1)


class Operations(GanOperations, LayerOperations, OptimizerOperations, VaeOperations):
    """What a model spells its training step out with; a :class:`minigen.backend.Backend` has them all.

    Each call raises TypeError for a buffer that is no array of the backend or has the wrong dtype, and ValueError for
    one with the wrong shape, that is not C-contiguous, that is read-only though written, or that overlaps another where
    one of them is written, and for a setting that is not allowed. The message names the argument; nothing is computed.
    """

    dtype: np.dtype[Any]
    array_type: Any
    """The type of its buffers."""

    def do(self, operation: Operation) -> None:
        """Run a checked call, or record it."""
        raise NotImplementedError

    def address(self, buffer: Array) -> int:
        """Of the first byte, in the device's memory."""
        raise NotImplementedError

    # --- dense: y = act(x W + b) ------------------------------------------------------------------------

    @operation(
        "x[B,I] W[I,O] b?[O] =y[B,O]",
        "y = {activation}(x W[ + b])",
        activation=OneOf(DENSE_ACTIVATIONS),
        flops=lambda n: 2 * n["B"] * n["I"] * n["O"],
    )
    def dense_forward(self, x: Array, W: Array, b: Array | None, y: Array, activation: str = "linear") -> None:
        """``y[B,O] = act(x[B,I] @ W[I,O] + b[O])``, or without ``b`` where that is None."""

    @operation(
        "dz[B,O] W[I,O] x?[B,I] =dx[B,I]",
        "dx = dz W^T * {activation}'(z_before), from x = {activation}(z_before)",
        activation=OneOf(DENSE_ACTIVATIONS),
        flops=lambda n: 2 * n["B"] * n["I"] * n["O"],
        also=_known_output,
        unused=lambda settings: ("x",) if settings["activation"] == "linear" else (),
    )
    def dense_dgrad(self, dz: Array, W: Array, dx: Array, x: Array | None = None, activation: str = "linear") -> None:
        """``dx[B,I] = (dz[B,O] @ W[I,O].T) * act'(z_before)``.

        ``x[B,I] = act(z_before)`` is the stored output of the layer before, whose ``activation`` is named here, and
        the derivative at ``z_before`` is computed from it; with ``"linear"`` it is 1 and ``x`` is not needed. With any
        other activation the result is the previous layer's ``dz``, not ``dL/dx``.
        """

    @operation(
        "x[B,I] dz[B,O] =dW[I,O] =db?[O]",
        "dW {+}= x^T dz[; db {+}= sum over rows of dz]",
        accumulate=flag,
        flops=lambda n: 2 * n["B"] * n["I"] * n["O"] + n["B"] * n["O"],
    )
    def dense_wgrad(self, x: Array, dz: Array, dW: Array, db: Array | None, accumulate: bool = False) -> None:
        """``dW[I,O] = x[B,I].T @ dz[B,O]``, ``db[O] = dz.sum(axis=0)``; with ``accumulate`` on top of what is there.

        Where ``db`` is None it is not computed.
        """

    # --- activations --------------------------------------------------------------------------------------

    @operation(
        "z[...] =y[...]",
        "y = {activation}(z)",
        activation=OneOf(DENSE_ACTIVATIONS),
        flops=lambda n: n["n"],
        in_place=True,
    )
    def activation_forward(self, z: Array, y: Array, activation: str) -> None:
        """``y = act(z)``, elementwise; ``y`` may be ``z``."""

    @operation(
        "dy[...] y[...] =dz[...]",
        "dz = dy * {activation}'(z), from y = {activation}(z)",
        activation=OneOf(DENSE_ACTIVATIONS),
        flops=lambda n: 2 * n["n"],
        in_place=True,
    )
    def activation_backward(self, dy: Array, y: Array, dz: Array, activation: str) -> None:
        """``dz = dy * act'(z)`` with the derivative taken from the stored output ``y``; ``dz`` may be ``dy``."""

    @operation(
        "dz[...] z_tangent[...] y[...] =e[...]",
        "e {+}= dz * z_tangent * {activation}''(z) / {activation}'(z), from y = {activation}(z)",
        activation=OneOf(DENSE_ACTIVATIONS),
        accumulate=flag,
        flops=lambda n: 3 * n["n"],
    )
    def activation_curvature(
        self, dz: Array, z_tangent: Array, y: Array, e: Array, activation: str, accumulate: bool = False
    ) -> None:
        """``e = dz * z_tangent * act''(z) / act'(z)`` from the stored output ``y``; with ``accumulate`` added to ``e``.

        What it is for: :mod:`minigen.reference.penalty`.
        """

    # --- vae_loss: reconstruction terms, in nats ------------------------------------------------------------

    @operation(
        "output[B+,D] x[B,D] =rows[B] =loss[1] =doutput[B,D]",
        "rows = -log p(x|z), {likelihood} of output; loss = mean of rows; doutput = d loss / d output",
        likelihood=OneOf(LIKELIHOODS),
        variance=within(0, exclude_low=True),
        flops=lambda n: 6 * n["B"] * n["D"],
    )
    def vae_loss(
        self,
        output: Array,
        x: Array,
        doutput: Array,
        rows: Array,
        loss: Array,
        likelihood: str = "bernoulli",
        variance: float = 1.0,
    ) -> None:
        """``rows[B] = -log p(x|z)``, ``loss[0]`` their mean, ``doutput[B,D]`` its gradient by the decoder's output.

        What the output means, and what the ``variance`` does, is the ``likelihood``'s:
        :mod:`minigen.reference.vae_loss`.
        """

    # --- latent: heads = [mu | h], logvar = min(h, 40) ------------------------------------------------------

    @operation(
        "heads[B+,2L] eps[B,L] =z[B,L] =rows[B] =loss[1]",
        "z = mu + exp(logvar / 2) eps; rows = sum (mu^2 + exp(logvar) - 1 - logvar) / 2; loss = mean of rows",
        flops=lambda n: 8 * n["B"] * n["L"],
    )
    def latent_forward(self, heads: Array, eps: Array, z: Array, rows: Array, loss: Array) -> None:
        """``z[B,L] = mu + exp(logvar / 2) * eps``; ``rows[B]`` the KL to N(0, I) in nats, ``loss[0]`` its mean.

        ``heads[B,2L]`` holds ``mu`` in its first ``L`` columns and ``h`` in the others, ``logvar`` before its bound.
        """

    @operation(
        "dz[B,L] heads[B,2L] eps[B,L] weights[L] =dheads[B,2L]",
        "dmu = dz + weights mu / B; dlogvar = dz eps exp(logvar / 2) / 2 + weights (exp(logvar) - 1) / 2B",
        flops=lambda n: 8 * n["B"] * n["L"],
    )
    def latent_backward(self, dz: Array, heads: Array, eps: Array, weights: Array, dheads: Array) -> None:
        """``dheads[B,2L]``: gradient of (loss behind ``dz[B,L]``) + the mean KL of each latent times ``weights[L]``."""

    # --- random: Philox4x32-10, key (seed, stream), counter (step, element // 4) --------------------------

    @operation(
        "step:uint64[1] =out[...]",
        "out = uniform, 0 <= out < 1, of (seed {seed}, stream {stream}, step)",
        seed=checks.seed,
        stream=checks.seed,
        flops=lambda n: n["n"],
    )
    def random_uniform(self, out: Array, seed: int, stream: int, step: Array) -> None:
        """Fill ``out`` (any shape, element e in C order) with uniforms in [0, 1)."""

    @operation(
        "step:uint64[1] =out[...]",
        "out = standard normal, of (seed {seed}, stream {stream}, step)",
        seed=checks.seed,
        stream=checks.seed,
        flops=lambda n: 25 * n["n"],
    )
    def random_normal(self, out: Array, seed: int, stream: int, step: Array) -> None:
        """Fill ``out`` with standard normals: Box-Muller on the same integers."""

    @operation(
        "x[...] noise[...] step:uint64[1] =out[...]",
        "out = x + std noise, std = {std}[ (1 - step / {steps})]",
        std=within(0),
        steps=whole(0),
        flops=lambda n: 2 * n["n"],
        in_place=True,
    )
    def add_noise(self, x: Array, noise: Array, step: Array, out: Array, std: float, steps: int = 0) -> None:
        """``out = x + std * noise``; ``std`` falls linearly to 0 at step ``steps``, or stays where that is 0.

        ``out`` may be ``x``.
        """

    # --- batch ---------------------------------------------------------------------------------------------

    @operation(
        "step:uint64[1] =indices:int32[B]",
        "indices = permutation(epoch) of {n} rows, those of this step",
        n=whole(1),
        seed=checks.seed,
        stream=checks.seed,
        batch_size=whole(1),
        steps_per_epoch=whole(1),
        also=_whole_batch,
    )
    def batch_indices(
        self, indices: Array, n: int, seed: int, stream: int, step: Array, batch_size: int, steps_per_epoch: int
    ) -> None:
        """``indices[r]`` (int32) ``= permutation(epoch)[k * batch_size + r]``.

        ``epoch, k = divmod(step[0], steps_per_epoch)``. The permutation of ``0..n-1`` is keyed by (seed, stream, epoch)
        and computed, not stored. A step past the end of the epoch raises ValueError when the operation runs, on a
        device that cannot raise the indices are -1.
        """

    @operation(
        "data:data[N,D] indices:int32[B] =out[B,D]",
        "out = {scale} data(indices)[ + {shift}]",
        scale=real,
        shift=real,
        flops=lambda n: 2 * n["B"] * n["D"],
        moved=lambda n: n["B"] * n["D"] * (n["data.itemsize"] + 4) + 4 * n["B"],
    )
    def batch_gather(self, data: Array, indices: Array, out: Array, scale: float = 1.0, shift: float = 0.0) -> None:
        """``out[B,D] = data[indices] * scale + shift``; ``data[N,D]`` is uint8 or the backend's dtype.

        An index outside of ``data`` raises ValueError when the operation runs; on a device that cannot raise the row is
        NaN.
        """

    @operation("labels:int32[N] indices:int32[B] =out:int32[B]", "out = labels(indices)", moved=lambda n: 12 * n["B"])
    def batch_labels(self, labels: Array, indices: Array, out: Array) -> None:
        """``out[B] = labels[indices]``, int32: the labels of the rows that a step takes.

        An index outside of ``labels`` raises ValueError when the operation runs; on a device that cannot raise the
        label is -1, which no class has.
        """

    # --- condition: what a label, or numbers beside a row, add to a layer -----------------------------------

    @operation(
        "a[...] b[...] =y[...]",
        "y = {activation}(a + b)",
        activation=OneOf(DENSE_ACTIVATIONS),
        flops=lambda n: 2 * n["n"],
        in_place=True,
    )
    def activation_of_sum(self, a: Array, b: Array, y: Array, activation: str = "linear") -> None:
        """``y = act(a + b)``, elementwise; ``y`` may be ``a`` or ``b``."""

    @operation(
        "x[B,O] labels:int32[B] =sums[N,O]",
        "sums_c {+}= sum of the rows of x whose label is c",
        accumulate=flag,
        flops=lambda n: n["B"] * n["O"],
    )
    def class_sums(self, x: Array, labels: Array, sums: Array, accumulate: bool = False) -> None:
        """``sums[N,O]``: for each of N classes the sum of the rows of ``x[B,O]`` whose entry of ``labels`` it is.

        With ``accumulate`` on top of what is there.

        A label outside of the classes raises ValueError when the operation runs; on a device that cannot raise its row
        is left out.
        """

    @operation("x[B,I] e[B,I] +y[B,1]", "y += <x, e>, row by row", flops=lambda n: 2 * n["B"] * n["I"])
    def projection_forward(self, x: Array, e: Array, y: Array) -> None:
        """``y[r] += x[r] . e[r]``: what the condition of a row adds to its logit (Miyato and Koyama 2018)."""

    @operation(
        "dz[B,1] e[B,I] x?[B,I] +dx[B,I]",
        "dx += dz e * {activation}'(z_before), from x = {activation}(z_before)",
        activation=OneOf(DENSE_ACTIVATIONS),
        flops=lambda n: 3 * n["B"] * n["I"],
        also=_known_output,
        unused=lambda settings: ("x",) if settings["activation"] == "linear" else (),
    )
    def projection_dgrad(
        self, dz: Array, e: Array, dx: Array, x: Array | None = None, activation: str = "linear"
    ) -> None:
        """``dx[r] += dz[r] e[r] * act'(z_before)``, where ``x[B,I] = act(z_before)`` as in :meth:`dense_dgrad`."""

    @operation("x[B,I] dz[B,1] =de[B,I]", "de = dz x", flops=lambda n: n["B"] * n["I"])
    def projection_wgrad(self, x: Array, dz: Array, de: Array) -> None:
        """``de[r] = dz[r] x[r]``: the gradient of what :meth:`projection_forward` takes for ``e``."""

    # --- bookkeeping ---------------------------------------------------------------------------------------

    @operation(
        "+step:uint64[1] losses[K] +history[T,K]",
        "history(step) = losses; step = step + 1",
        moved=lambda n: 8 * n["K"] + 16,
        also=_some_history,
    )
    def advance(self, step: Array, losses: Array, history: Array) -> None:
        """End of a step: ``history[step % len(history)] = losses``, then ``step += 1``."""
