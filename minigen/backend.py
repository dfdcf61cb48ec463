"""The operations of the engine: one list of names, implemented once on every floor.

A model never asks on which device it runs. It holds a :class:`Backend` and spells its training step
out as calls on it. Each call reads its inputs and writes its outputs into buffers that the caller
owns, so that a step allocates nothing and can be replayed.

Shapes: ``B`` rows of a batch, ``I`` inputs and ``O`` outputs of a dense layer, ``L`` latent
variables, ``D`` columns of the data. Every buffer is C-contiguous and of the backend's floating
dtype (float32, except in gradient checks) unless a line says otherwise. ``step`` is a ``uint64[1]``
buffer in the device's memory that counts the training steps done so far and ``lr`` a float ``[1]``
buffer: both live in memory so that a captured step can be replayed while they change.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import numpy as np

from minigen.placement import Placement

Array = Any
"""A buffer in the memory of a backend: ``numpy.ndarray`` on the CPU floors, ``cupy.ndarray`` on CUDA."""

ACTIVATIONS = ("linear", "relu", "leaky_relu", "tanh", "sigmoid", "softplus")
GAN_LOSSES = ("non_saturating", "minimax")
PRECISIONS = ("ieee", "bf16x6", "tf32x3", "tf32", "bf16")
"""How matrix products may be taken; each floor has some of them. Factors of 24 bits, 24 (six products of 8), 22 (three
products of 11), 11 and 8. Sums are float32."""
LEAKY_SLOPE = 0.2
"""Slope of ``leaky_relu`` below zero (Radford et al. 2016, section 4)."""


class Program(Protocol):
    """A captured step that can be repeated without spelling it out again."""

    def run(self, steps: int) -> None:
        """Repeat the captured step ``steps`` times."""


class Reader(Protocol):
    """Brings something about a buffer to the host while the floor goes on computing, again and again."""

    def begin(self) -> None:
        """Ask for it as the work so far leaves it; what :meth:`get` gave before may be overwritten."""

    def get(self) -> np.ndarray:
        """What the last :meth:`begin` asked for. Waits for that and for nothing that was begun later."""


class HostReader:
    """A :class:`Reader` where the work so far is done already: ``read`` is called at once."""

    def __init__(self, read: Callable[[], np.ndarray]) -> None:
        self.read = read

    def begin(self) -> None:
        """Read."""
        self.host = self.read()

    def get(self) -> np.ndarray:
        """What was read."""
        return self.host


class Backend(Placement, Protocol):
    """One floor of the house. See the module's docstring for the conventions."""

    name: str
    dtype: np.dtype[Any]
    precision: str
    """How its matrix products are taken, one of its own :data:`PRECISIONS`."""
    ahead: int
    """How many runs of a program to begin beyond the one whose results are waited for: 0 where a run ends done."""

    @staticmethod
    def default_precision() -> str:
        """The fastest of its precisions on this machine that is as accurate as float32."""

    # --- memory -------------------------------------------------------------------------------

    def empty(self, shape: tuple[int, ...], dtype: Any = None) -> Array:
        """A new uninitialised C-contiguous buffer, aligned to 64 bytes; ``dtype=None`` is the backend's own."""

    def upload(self, host: np.ndarray, out: Array | None = None) -> Array:
        """Copy ``host`` into device memory: into ``out`` when given, else into a new buffer of the same dtype.

        ``host`` may also be a buffer of this backend; the copy then does not leave the device.
        """

    def resident(self, host: np.ndarray) -> Array:
        """``host`` where :meth:`batch_gather` can read it for a whole training.

        That is ``host`` itself on the CPU floors, so that a memory-mapped file stays mapped; a copy on CUDA.
        """

    def download(self, buffer: Array) -> np.ndarray:
        """A new host array with the contents of ``buffer``; waits for the work that writes it."""

    def is_finite(self, buffer: Array) -> bool:
        """Whether no element of a ``buffer`` of the backend's dtype is NaN or infinite; waits as :meth:`download` does.

        Only the answer leaves the device.
        """

    def reader(self, buffer: Array) -> Reader:
        """A :meth:`download` of ``buffer`` in two halves; it allocates nothing after this call."""

    def finite_reader(self, buffer: Array) -> Reader:
        """:meth:`is_finite` in two halves: flags, any of them set where an element is NaN or infinite."""

    def capture(self, step: Callable[[], None]) -> Program:
        """Turn ``step``, a function that only calls operations of this backend on fixed buffers, into a program.

        The NumPy floor calls it each time; the CPU floor keeps its list of kernel calls and runs that without
        the interpreter; the CUDA floor keeps a graph. Both fuse what they can: after a program has run, a gradient
        that only its optimizer reads need not be in its buffer. In a flat buffer of several parameters, what lies
        between the end of one and the next line of 64 bytes is padding if no operation but the optimizer touches it:
        it must be zero in weights, gradients and moments, and a program may leave it alone.
        """

    # --- dense: y = act(x W + b) --------------------------------------------------------------

    def dense_forward(self, x: Array, W: Array, b: Array, y: Array, activation: str = "linear") -> None:
        """``y[B,O] = act(x[B,I] @ W[I,O] + b[O])``."""

    def dense_dgrad(self, dz: Array, W: Array, dx: Array, x: Array | None = None, activation: str = "linear") -> None:
        """``dx[B,I] = (dz[B,O] @ W[I,O].T) * act'(z_before)``.

        ``x[B,I] = act(z_before)`` is the stored output of the layer before, whose ``activation`` is named here, and
        the derivative at ``z_before`` is computed from it; with ``"linear"`` it is 1 and ``x`` is not needed. With any
        other activation the result is the previous layer's ``dz``, not ``dL/dx``.
        """

    def dense_wgrad(self, x: Array, dz: Array, dW: Array, db: Array) -> None:
        """``dW[I,O] = x[B,I].T @ dz[B,O]`` and ``db[O] = dz.sum(axis=0)``."""

    # --- activations --------------------------------------------------------------------------

    def activation_forward(self, z: Array, y: Array, activation: str) -> None:
        """``y = act(z)``, elementwise; ``y`` may be ``z``."""

    def activation_backward(self, dy: Array, y: Array, dz: Array, activation: str) -> None:
        """``dz = dy * act'(z)`` with the derivative taken from the stored output ``y``; ``dz`` may be ``dy``."""

    # --- gan_loss: from logits s, where D(x) = sigmoid(s) ---------------------------------------

    def gan_loss_discriminator(self, logits: Array, n_real: int, dlogits: Array, loss: Array) -> None:
        """``logits[B,1]``, the first ``n_real`` rows of real samples, the others of generated ones.

        ``loss[0] = mean softplus(-s_real) + mean softplus(s_fake)``; ``dlogits[B,1]`` its gradient.
        """

    def gan_loss_generator(self, logits: Array, dlogits: Array, loss: Array, kind: str = "non_saturating") -> None:
        """``non_saturating``: ``loss[0] = mean softplus(-s)``; ``minimax``: ``loss[0] = -mean softplus(s)``."""

    # --- vae_loss: reconstruction terms, in nats ------------------------------------------------

    def vae_loss_bernoulli(self, logits: Array, x: Array, dlogits: Array, rows: Array, loss: Array) -> None:
        """``rows[B] = sum_d softplus(l) - x l``, ``loss[0] = mean rows``, ``dlogits[B,D] = (sigmoid(l) - x) / B``."""

    def vae_loss_gaussian(
        self, mean: Array, x: Array, dmean: Array, rows: Array, loss: Array, variance: float = 1.0
    ) -> None:
        """``rows[B] = sum_d (x - mean)^2 / (2 variance) + log(2 pi variance) / 2``, ``loss[0] = mean rows``.

        ``dmean[B,D] = (mean - x) / (variance B)``.
        """

    # --- latent: heads = [mu | h], logvar = min(h, 40) ------------------------------------------

    def latent_forward(self, heads: Array, eps: Array, z: Array, rows: Array, loss: Array) -> None:
        """``z[B,L] = mu + exp(logvar / 2) * eps``; ``rows[B]`` the KL to N(0, I) in nats, ``loss[0]`` its mean.

        ``heads[B,2L]`` holds ``mu`` in its first ``L`` columns and ``h`` in the others, ``logvar`` before its bound.
        """

    def latent_backward(self, dz: Array, heads: Array, eps: Array, dheads: Array, beta: float = 1.0) -> None:
        """``dheads[B,2L]``: gradient of (loss behind ``dz[B,L]``) + ``beta`` * mean KL."""

    # --- optimizer: all parameters of a network lie in one flat buffer -------------------------

    def sgd(
        self, p: Array, g: Array, velocity: Array, lr: Array, momentum: float = 0.0, weight_decay: float = 0.0
    ) -> None:
        """``g += weight_decay p; velocity = momentum velocity + g; p -= lr velocity`` (``g`` itself is left alone)."""

    def adam(
        self,
        p: Array,
        g: Array,
        m: Array,
        v: Array,
        lr: Array,
        step: Array,
        beta1: float = 0.9,
        beta2: float = 0.999,
        eps: float = 1e-8,
    ) -> None:
        """Adam (Kingma and Ba 2015, algorithm 1) at t = ``step[0] + 1``; ``p, g, m, v`` flat and equally long."""

    def adamw(
        self,
        p: Array,
        g: Array,
        m: Array,
        v: Array,
        lr: Array,
        step: Array,
        beta1: float = 0.9,
        beta2: float = 0.999,
        eps: float = 1e-8,
        weight_decay: float = 0.01,
    ) -> None:
        """Adam after ``p -= lr weight_decay p``, decoupled weight decay (Loshchilov and Hutter 2019, algorithm 2)."""

    # --- random: Philox4x32-10, key (seed, stream), counter (step, element // 4) ----------------

    def random_uniform(self, out: Array, seed: int, stream: int, step: Array) -> None:
        """Fill ``out`` (any shape, element e in C order) with uniforms in [0, 1)."""

    def random_normal(self, out: Array, seed: int, stream: int, step: Array) -> None:
        """Fill ``out`` with standard normals: Box-Muller on the same integers."""

    # --- batch --------------------------------------------------------------------------------

    def batch_indices(
        self, indices: Array, n: int, seed: int, stream: int, step: Array, batch_size: int, steps_per_epoch: int
    ) -> None:
        """``indices[r]`` (int32) ``= permutation(epoch)[k * batch_size + r]``.

        ``epoch, k = divmod(step[0], steps_per_epoch)``.

        The permutation of ``0..n-1`` is keyed by (seed, stream, epoch) and computed, not stored.
        """

    def batch_gather(self, data: Array, indices: Array, out: Array, scale: float = 1.0, shift: float = 0.0) -> None:
        """``out[B,D] = data[indices] * scale + shift``; ``data[N,D]`` is uint8 or the backend's dtype."""

    # --- bookkeeping --------------------------------------------------------------------------

    def advance(self, step: Array, losses: Array, history: Array) -> None:
        """End of a step: ``history[step % len(history)] = losses``, then ``step += 1``."""
