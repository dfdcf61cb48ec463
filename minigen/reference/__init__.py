"""The NumPy floor. Its modules are the book: one operation each, the derivation and under it the formula.

:class:`NumpyBackend` lends those pure functions to the models: it checks the buffers it is given, calls the function,
and copies the results into the caller's output buffers.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from .. import checks
from ..backend import HostReader
from ..placement import Placement
from . import activations, batch, dense, gan_loss, initializers, latent, optimizer, random, vae_loss

__all__ = [
    "NumpyBackend",
    "activations",
    "batch",
    "dense",
    "gan_loss",
    "initializers",
    "latent",
    "optimizer",
    "random",
    "vae_loss",
]

ALIGNMENT = 64
Size = int | None
"""One dimension of an expected shape; ``None`` is any."""


class Repeat:
    """A program that spells its step out anew each time."""

    def __init__(self, step: Callable[[], None]) -> None:
        self.step = step

    def run(self, steps: int) -> None:
        """Call the step ``steps`` times."""
        for _ in range(checks.integer("steps", steps, 0)):
            self.step()


class NumpyBackend(Placement):
    """The operations of :class:`minigen.backend.Backend` on ``numpy.ndarray`` of ``dtype``, float32 or float64.

    Each call raises TypeError for a buffer that is no array or of the wrong dtype and ValueError for one that has
    the wrong shape, is not C-contiguous, or is an output that is read-only;
    the message names the argument. Inputs are only read.
    """

    name = "numpy"
    ahead = 0
    PRECISIONS = ("ieee",)

    @staticmethod
    def default_precision() -> str:
        return "ieee"

    def __init__(self, dtype: Any = np.float32, precision: str = "ieee") -> None:
        self.dtype = np.dtype(dtype)
        self.precision = checks.choice("precision", precision, self.PRECISIONS)
        if self.dtype not in (np.dtype(np.float32), np.dtype(np.float64)):
            raise ValueError(f"dtype must be float32 or float64, not {self.dtype}")

    # --- checks -------------------------------------------------------------------------------

    def _in(self, name: str, array: Any, *shape: Size, dtype: Any = None) -> np.ndarray:
        """``array`` if it has the shape and dtype (None: the backend's own) and is C-contiguous."""
        dtype = self.dtype if dtype is None else np.dtype(dtype)
        if not isinstance(array, np.ndarray):
            raise TypeError(f"{name} must be a numpy.ndarray, not {type(array).__name__}")
        if array.dtype != dtype:
            raise TypeError(f"{name} must be {dtype}, not {array.dtype}")
        if array.ndim != len(shape) or any(want not in (None, n) for n, want in zip(array.shape, shape, strict=True)):
            wanted = ", ".join("any" if want is None else str(want) for want in shape)
            raise ValueError(f"{name} must have shape ({wanted}), not {array.shape}")
        if not array.flags.c_contiguous:
            raise ValueError(f"{name} must be C-contiguous, its strides are {array.strides}")
        return array

    def _out(self, name: str, array: Any, *shape: Size, dtype: Any = None) -> np.ndarray:
        """``array`` if :meth:`_in` takes it and it can be written."""
        self._in(name, array, *shape, dtype=dtype)
        if not array.flags.writeable:
            raise ValueError(f"{name} is an output, but read-only")
        return array

    def _step(self, step: Any) -> int:
        return int(self._in("step", step, 1, dtype=np.uint64)[0])

    # --- memory -------------------------------------------------------------------------------

    def empty(self, shape: tuple[int, ...], dtype: Any = None) -> np.ndarray:
        """A new uninitialised C-contiguous array, aligned to 64 bytes."""
        dtype = self.dtype if dtype is None else np.dtype(dtype)
        size = int(np.prod(shape)) * dtype.itemsize
        memory = np.empty(size + ALIGNMENT, np.uint8)
        first = -memory.ctypes.data % ALIGNMENT
        return memory[first : first + size].view(dtype).reshape(shape)

    def upload(self, host: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
        """Copy ``host`` into ``out`` of the same shape and dtype, or into a new buffer."""
        if out is None:
            out = self.empty(host.shape, host.dtype)
        self._out("out", out, *host.shape, dtype=host.dtype)[...] = host
        return out

    def resident(self, host: np.ndarray) -> np.ndarray:
        """``host`` itself: a memory-mapped file stays mapped."""
        return host

    def download(self, buffer: np.ndarray) -> np.ndarray:
        """A copy of ``buffer``."""
        return buffer.copy()

    def is_finite(self, buffer: np.ndarray) -> bool:
        """Whether no element is NaN or infinite."""
        return bool(np.isfinite(buffer).all())

    def reader(self, buffer: np.ndarray) -> HostReader:
        """:meth:`download`, at once."""
        return HostReader(lambda: self.download(buffer))

    def finite_reader(self, buffer: np.ndarray) -> HostReader:
        """:meth:`is_finite`, at once; one flag."""
        return HostReader(lambda: np.array([not self.is_finite(buffer)]))

    def capture(self, step: Callable[[], None]) -> Repeat:
        """A program that calls ``step``; capturing alone runs nothing."""
        if not callable(step):
            raise TypeError(f"step must be a function without arguments, not {type(step).__name__}")
        return Repeat(step)

    # --- dense --------------------------------------------------------------------------------

    def dense_forward(
        self, x: np.ndarray, W: np.ndarray, b: np.ndarray, y: np.ndarray, activation: str = "linear"
    ) -> None:
        """See :func:`minigen.reference.dense.forward`."""
        B, n_in = self._in("x", x, None, None).shape
        n_out = self._in("W", W, n_in, None).shape[1]
        self._in("b", b, n_out)
        self._out("y", y, B, n_out)[...] = dense.forward(x, W, b, activation)

    def dense_dgrad(
        self, dz: np.ndarray, W: np.ndarray, dx: np.ndarray, x: np.ndarray | None = None, activation: str = "linear"
    ) -> None:
        """See :func:`minigen.reference.dense.dgrad`."""
        B, n_out = self._in("dz", dz, None, None).shape
        n_in = self._in("W", W, None, n_out).shape[0]
        if x is not None:
            self._in("x", x, B, n_in)
        self._out("dx", dx, B, n_in)[...] = dense.dgrad(dz, W, x, activation)

    def dense_wgrad(self, x: np.ndarray, dz: np.ndarray, dW: np.ndarray, db: np.ndarray) -> None:
        """See :func:`minigen.reference.dense.wgrad`."""
        B, n_in = self._in("x", x, None, None).shape
        n_out = self._in("dz", dz, B, None).shape[1]
        self._out("dW", dW, n_in, n_out)
        self._out("db", db, n_out)
        dW[...], db[...] = dense.wgrad(x, dz)

    # --- activations --------------------------------------------------------------------------

    def activation_forward(self, z: np.ndarray, y: np.ndarray, activation: str) -> None:
        """See :func:`minigen.reference.activations.forward`."""
        self._in("z", z, *np.shape(z))
        self._out("y", y, *z.shape)[...] = activations.forward(z, activation)

    def activation_backward(self, dy: np.ndarray, y: np.ndarray, dz: np.ndarray, activation: str) -> None:
        """See :func:`minigen.reference.activations.backward`."""
        self._in("dy", dy, *np.shape(dy))
        self._in("y", y, *dy.shape)
        self._out("dz", dz, *dy.shape)[...] = activations.backward(dy, y, activation)

    # --- gan_loss -----------------------------------------------------------------------------

    def gan_loss_discriminator(self, logits: np.ndarray, n_real: int, dlogits: np.ndarray, loss: np.ndarray) -> None:
        """See :func:`minigen.reference.gan_loss.discriminator`."""
        B = len(self._in("logits", logits, None, 1))
        self._out("dlogits", dlogits, B, 1)
        self._out("loss", loss, 1)
        loss[0], dlogits[...] = gan_loss.discriminator(logits, n_real)

    def gan_loss_generator(
        self, logits: np.ndarray, dlogits: np.ndarray, loss: np.ndarray, kind: str = "non_saturating"
    ) -> None:
        """See :func:`minigen.reference.gan_loss.generator`."""
        B = len(self._in("logits", logits, None, 1))
        self._out("dlogits", dlogits, B, 1)
        self._out("loss", loss, 1)
        loss[0], dlogits[...] = gan_loss.generator(logits, kind)

    # --- vae_loss -----------------------------------------------------------------------------

    def vae_loss_bernoulli(
        self, logits: np.ndarray, x: np.ndarray, dlogits: np.ndarray, rows: np.ndarray, loss: np.ndarray
    ) -> None:
        """See :func:`minigen.reference.vae_loss.bernoulli`."""
        B, D = self._in("logits", logits, None, None).shape
        self._in("x", x, B, D)
        self._out("dlogits", dlogits, B, D)
        self._out("rows", rows, B)
        self._out("loss", loss, 1)
        rows[...], loss[0], dlogits[...] = vae_loss.bernoulli(logits, x)

    def vae_loss_gaussian(
        self,
        mean: np.ndarray,
        x: np.ndarray,
        dmean: np.ndarray,
        rows: np.ndarray,
        loss: np.ndarray,
        variance: float = 1.0,
    ) -> None:
        """See :func:`minigen.reference.vae_loss.gaussian`."""
        B, D = self._in("mean", mean, None, None).shape
        self._in("x", x, B, D)
        self._out("dmean", dmean, B, D)
        self._out("rows", rows, B)
        self._out("loss", loss, 1)
        rows[...], loss[0], dmean[...] = vae_loss.gaussian(mean, x, variance)

    # --- latent -------------------------------------------------------------------------------

    def latent_forward(
        self, heads: np.ndarray, eps: np.ndarray, z: np.ndarray, rows: np.ndarray, loss: np.ndarray
    ) -> None:
        """See :func:`minigen.reference.latent.forward`."""
        B, L = self._in("eps", eps, None, None).shape
        self._in("heads", heads, B, 2 * L)
        self._out("z", z, B, L)
        self._out("rows", rows, B)
        self._out("loss", loss, 1)
        z[...], rows[...], loss[0] = latent.forward(heads, eps)

    def latent_backward(
        self, dz: np.ndarray, heads: np.ndarray, eps: np.ndarray, dheads: np.ndarray, beta: float = 1.0
    ) -> None:
        """See :func:`minigen.reference.latent.backward`."""
        B, L = self._in("dz", dz, None, None).shape
        self._in("heads", heads, B, 2 * L)
        self._in("eps", eps, B, L)
        self._out("dheads", dheads, B, 2 * L)[...] = latent.backward(dz, heads, eps, beta)

    # --- optimizer ----------------------------------------------------------------------------

    def sgd(
        self,
        p: np.ndarray,
        g: np.ndarray,
        velocity: np.ndarray,
        lr: np.ndarray,
        momentum: float = 0.0,
        weight_decay: float = 0.0,
    ) -> None:
        """See :func:`minigen.reference.optimizer.sgd`."""
        n = len(self._out("p", p, None))
        self._in("g", g, n)
        self._out("velocity", velocity, n)
        rate = float(self._in("lr", lr, 1)[0])
        p[...], velocity[...] = optimizer.sgd(p, g, velocity, rate, momentum, weight_decay)

    def adam(
        self,
        p: np.ndarray,
        g: np.ndarray,
        m: np.ndarray,
        v: np.ndarray,
        lr: np.ndarray,
        step: np.ndarray,
        beta1: float = 0.9,
        beta2: float = 0.999,
        eps: float = 1e-8,
    ) -> None:
        """See :func:`minigen.reference.optimizer.adam`."""
        self.adamw(p, g, m, v, lr, step, beta1, beta2, eps, weight_decay=0.0)

    def adamw(
        self,
        p: np.ndarray,
        g: np.ndarray,
        m: np.ndarray,
        v: np.ndarray,
        lr: np.ndarray,
        step: np.ndarray,
        beta1: float = 0.9,
        beta2: float = 0.999,
        eps: float = 1e-8,
        weight_decay: float = 0.01,
    ) -> None:
        """See :func:`minigen.reference.optimizer.adamw`."""
        n = len(self._out("p", p, None))
        self._in("g", g, n)
        self._out("m", m, n)
        self._out("v", v, n)
        rate, t = float(self._in("lr", lr, 1)[0]), self._step(step) + 1
        p[...], m[...], v[...] = optimizer.adamw(p, g, m, v, rate, t, beta1, beta2, eps, weight_decay)

    # --- random -------------------------------------------------------------------------------

    def random_uniform(self, out: np.ndarray, seed: int, stream: int, step: np.ndarray) -> None:
        """See :func:`minigen.reference.random.uniform`."""
        self._out("out", out, *np.shape(out))[...] = random.uniform(
            np.shape(out), seed, stream, self._step(step), self.dtype
        )

    def random_normal(self, out: np.ndarray, seed: int, stream: int, step: np.ndarray) -> None:
        """See :func:`minigen.reference.random.normal`."""
        self._out("out", out, *np.shape(out))[...] = random.normal(
            np.shape(out), seed, stream, self._step(step), self.dtype
        )

    # --- batch --------------------------------------------------------------------------------

    def batch_indices(
        self,
        indices: np.ndarray,
        n: int,
        seed: int,
        stream: int,
        step: np.ndarray,
        batch_size: int,
        steps_per_epoch: int,
    ) -> None:
        """See :func:`minigen.reference.batch.indices`."""
        rows = len(self._out("indices", indices, None, dtype=np.int32))
        indices[...] = batch.indices(rows, n, seed, stream, self._step(step), batch_size, steps_per_epoch)

    def batch_gather(
        self, data: np.ndarray, indices: np.ndarray, out: np.ndarray, scale: float = 1.0, shift: float = 0.0
    ) -> None:
        """See :func:`minigen.reference.batch.gather`."""
        stored = np.uint8 if getattr(data, "dtype", None) == np.uint8 else self.dtype
        D = self._in("data", data, None, None, dtype=stored).shape[1]
        B = len(self._in("indices", indices, None, dtype=np.int32))
        self._out("out", out, B, D)[...] = batch.gather(data, indices, self.dtype, scale, shift)

    # --- bookkeeping --------------------------------------------------------------------------

    def advance(self, step: np.ndarray, losses: np.ndarray, history: np.ndarray) -> None:
        """``history[step % T] = losses[K]``, for ``history[T,K]`` with T > 0, then ``step += 1``."""
        K = len(self._in("losses", losses, None))
        T = len(self._out("history", history, None, K))
        checks.integer("len(history)", T, 1)
        self._out("step", step, 1, dtype=np.uint64)
        history[self._step(step) % T] = losses
        step += np.uint64(1)
