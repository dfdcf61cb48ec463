"""The CUDA floor: the operations of :class:`minigen.backend.Backend` as kernel launches."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from minigen import checks
from minigen.backend import ACTIVATIONS, GAN_LOSSES, Array, Program, Reader
from minigen.cuda.flow import Memory
from minigen.cuda.interop import CudaPlacement
from minigen.cuda.jobs import BLOCK, Target, blocks
from minigen.cuda.launch import Executor
from minigen.cuda.operations import Operation, operation
from minigen.cuda.schedule import Schedule, clear, plan

PRECISIONS = ("ieee", "tf32x3", "tf32", "bf16")
Size = int | None
"""One dimension of an expected shape; ``None`` is any."""


class CapturedStep:
    """A program with its ``schedule``, which can be printed."""

    def __init__(self, schedule: Schedule, program: Program) -> None:
        self.schedule, self.program = schedule, program

    def run(self, steps: int) -> None:
        """Repeat the step ``steps`` times."""
        self.program.run(checks.integer("steps", steps, 0))


class FiniteReader:
    """See :meth:`CudaBackend.finite_reader`. ``look`` launches what fills the flags that ``flags`` reads."""

    def __init__(self, look: Callable[[], None], flags: Reader) -> None:
        self.look, self.flags = look, flags

    def begin(self) -> None:
        """Look, and ask for the flags."""
        self.look()
        self.flags.begin()

    def get(self) -> np.ndarray:
        """``int32[programs]``, not 0 for each program of the launch that found something."""
        return self.flags.get()


class CudaBackend(CudaPlacement):
    """The operations on GPU number ``index``, or on another ``executor``; see :class:`minigen.cuda.launch.Executor`.

    ``precision`` is how matrix products are taken, one of ``"ieee"``, ``"tf32x3"``, ``"tf32"``, ``"bf16"``; sums and
    storage are float32 in all. The default is ``"tf32x3"``: it has float32's accuracy (so that a training takes the
    path that it takes on the other floors) and runs on the tensor cores, where ``"ieee"`` cannot.

    Calls run at once. A captured step is fused instead (``fuse=False`` leaves each call a launch of its own): what the
    step writes without reading it again, and all that it brings to the next step, is as if spelled out, up to
    rounding; buffers that it writes and reads itself may be left unwritten, holding zeros. A captured
    program repeats bit for bit.

    Each call raises TypeError for a buffer that is not of the executor's type or has the wrong dtype, and ValueError
    for one with the wrong shape, or not C-contiguous, or read-only though an output; the message names the argument.
    What only the device knows cannot raise: a row that is not in the data is NaN.
    """

    name = "cuda"
    ahead = 1
    PRECISIONS = PRECISIONS

    @staticmethod
    def default_precision() -> str:
        return "tf32x3"

    def __init__(
        self, index: int = 0, *, executor: Executor | None = None, precision: str = "tf32x3", fuse: bool = True
    ) -> None:
        self.precision = checks.choice("precision", precision, self.PRECISIONS)
        if executor is None:
            from minigen.cuda.device import DeviceExecutor

            executor = DeviceExecutor(index)
        self.dtype = np.dtype(np.float32)
        self.executor, self.fuse = executor, fuse
        self.target = Target(executor.architecture, precision, executor.empty)
        self.memory = Memory(executor.address, executor.empty)
        self._recorded: list[Operation] | None = None

    # --- checks -------------------------------------------------------------------------------

    def _in(self, name: str, array: Any, *shape: Size, dtype: Any = None) -> Array:
        """``array`` if it has the shape and dtype (None: float32) and is C-contiguous."""
        dtype = self.dtype if dtype is None else np.dtype(dtype)
        wanted: Any = self.executor.array_type
        if not isinstance(array, wanted):
            library = wanted.__module__.partition(".")[0]
            raise TypeError(f"{name} must be a {library}.ndarray, not {type(array).__name__}")
        if array.dtype != dtype:
            raise TypeError(f"{name} must be {dtype}, not {array.dtype}")
        if array.ndim != len(shape) or any(want not in (None, n) for n, want in zip(array.shape, shape, strict=True)):
            sizes = ", ".join("any" if want is None else str(want) for want in shape)
            raise ValueError(f"{name} must have shape ({sizes}), not {array.shape}")
        if not array.flags.c_contiguous:
            raise ValueError(f"{name} must be C-contiguous, its strides are {array.strides}")
        return array

    def _out(self, name: str, array: Any, *shape: Size, dtype: Any = None) -> Array:
        """``array`` if :meth:`_in` takes it and it can be written."""
        self._in(name, array, *shape, dtype=dtype)
        if isinstance(array, np.ndarray) and not array.flags.writeable:
            raise ValueError(f"{name} is an output, but read-only")
        return array

    def _any_shape(self, name: str, array: Any) -> Array:
        return self._in(name, array, *getattr(array, "shape", ()))

    def _do(self, kind: str, fuses: str, buffers: dict[str, Array | None], **settings: Any) -> None:
        """Record one operation while capturing, else run it."""
        op = operation(kind, (fuses,), buffers, **settings)
        if self._recorded is not None:
            self._recorded.append(op)
            return
        for launch in plan([op], self.memory, self.target, fused=False).launches:
            self.executor.run(launch)

    # --- memory -------------------------------------------------------------------------------

    def empty(self, shape: tuple[int, ...], dtype: Any = None) -> Array:
        """A new uninitialised C-contiguous buffer, aligned to 64 bytes."""
        return self.executor.empty(shape, self.dtype if dtype is None else np.dtype(dtype))

    def upload(self, host: np.ndarray, out: Array | None = None) -> Array:
        """Copy ``host`` into ``out`` of the same shape and dtype, or into a new buffer."""
        if out is not None:
            self._out("out", out, *host.shape, dtype=host.dtype)
        return self.executor.upload(host, out)

    def resident(self, host: np.ndarray) -> Array:
        """A copy of ``host`` in device memory, or where a whole training can gather from it."""
        return self.executor.resident(host)

    def download(self, buffer: Array) -> np.ndarray:
        """A new host array with the contents of ``buffer``."""
        return self.executor.download(buffer)

    def is_finite(self, buffer: Array) -> bool:
        """Whether no element is NaN or infinite: the device looks, and one flag of each program is read back."""
        flags = self._flags(buffer)
        self._look(buffer, flags)
        return not self.download(flags).any()

    def reader(self, buffer: Array) -> Reader:
        """A download of ``buffer`` that the host need not wait for."""
        return self.executor.reader(buffer)

    def finite_reader(self, buffer: Array) -> Reader:
        """:meth:`is_finite` that the host need not wait for: one flag of each program."""
        flags = self._flags(buffer)
        return FiniteReader(partial(self._look, buffer, flags), self.reader(flags))

    def _flags(self, buffer: Array) -> Array:
        return self.empty((blocks(self._any_shape("buffer", buffer).size, BLOCK),), np.int32)

    def _look(self, buffer: Array, flags: Array) -> None:
        if self._recorded is not None:
            raise RuntimeError("is_finite cannot be part of a captured step: it would run now, not when the step runs")
        self._do("is_finite", "is_finite", {"x": buffer, "flags": flags})

    def schedule(self, step: Callable[[], None], fuse: bool | None = None) -> Schedule:
        """The schedule that :meth:`capture` makes of ``step``; nothing runs."""
        if not callable(step):
            raise TypeError(f"step must be a function without arguments, not {type(step).__name__}")
        if self._recorded is not None:
            raise RuntimeError("a step is being captured already")
        self._recorded = []
        try:
            step()
            recorded = self._recorded
        finally:
            self._recorded = None
        return plan(recorded, self.memory, self.target, self.fuse if fuse is None else fuse)

    def capture(self, step: Callable[[], None]) -> CapturedStep:
        """A program that repeats ``step``; capturing runs none of it."""
        schedule = self.schedule(step)
        clear(schedule, self.executor.upload)
        return CapturedStep(schedule, self.executor.capture(schedule.launches))

    # --- dense --------------------------------------------------------------------------------

    def dense_forward(self, x: Array, W: Array, b: Array, y: Array, activation: str = "linear") -> None:
        """See :func:`minigen.reference.dense.forward`."""
        B, n_in = self._in("x", x, None, None).shape
        n_out = self._in("W", W, n_in, None).shape[1]
        self._in("b", b, n_out)
        self._out("y", y, B, n_out)
        checks.choice("activation", activation, ACTIVATIONS)
        self._do("dense_forward", "dense_forward", {"x": x, "W": W, "b": b, "y": y}, activation=activation)

    def dense_dgrad(self, dz: Array, W: Array, dx: Array, x: Array | None = None, activation: str = "linear") -> None:
        """See :func:`minigen.reference.dense.dgrad`."""
        B, n_out = self._in("dz", dz, None, None).shape
        n_in = self._in("W", W, None, n_out).shape[0]
        if x is not None:
            self._in("x", x, B, n_in)
        self._out("dx", dx, B, n_in)
        if checks.choice("activation", activation, ACTIVATIONS) == "linear":
            x = None
        elif x is None:
            raise ValueError(f"x: the output of the layer before is needed for activation {activation!r}, got None")
        self._do("dense_dgrad", "dense_dgrad", {"dz": dz, "W": W, "dx": dx, "x": x}, activation=activation)

    def dense_wgrad(self, x: Array, dz: Array, dW: Array, db: Array) -> None:
        """See :func:`minigen.reference.dense.wgrad`."""
        B, n_in = self._in("x", x, None, None).shape
        n_out = self._in("dz", dz, B, None).shape[1]
        self._out("dW", dW, n_in, n_out)
        self._out("db", db, n_out)
        self._do("dense_wgrad", "dense_wgrad", {"x": x, "dz": dz, "dW": dW, "db": db})

    # --- activations --------------------------------------------------------------------------

    def activation_forward(self, z: Array, y: Array, activation: str) -> None:
        """See :func:`minigen.reference.activations.forward`."""
        shape = self._any_shape("z", z).shape
        self._out("y", y, *shape)
        checks.choice("activation", activation, ACTIVATIONS)
        self._do("activation_forward", "activation_forward", {"z": z, "y": y}, activation=activation)

    def activation_backward(self, dy: Array, y: Array, dz: Array, activation: str) -> None:
        """See :func:`minigen.reference.activations.backward`."""
        shape = self._any_shape("dy", dy).shape
        self._in("y", y, *shape)
        self._out("dz", dz, *shape)
        checks.choice("activation", activation, ACTIVATIONS)
        self._do("activation_backward", "activation_backward", {"dy": dy, "y": y, "dz": dz}, activation=activation)

    # --- gan_loss -----------------------------------------------------------------------------

    def gan_loss_discriminator(self, logits: Array, n_real: int, dlogits: Array, loss: Array) -> None:
        """See :func:`minigen.reference.gan_loss.discriminator`."""
        B = len(self._in("logits", logits, None, 1))
        self._out("dlogits", dlogits, B, 1)
        self._out("loss", loss, 1)
        if B < 2:
            raise ValueError(f"logits must have a real and a generated row, not {B} in all")
        n_real = checks.integer("n_real", n_real, 1, B - 1)
        buffers = {"logits": logits, "dlogits": dlogits, "loss": loss}
        self._do("gan_loss", "gan_loss_discriminator", buffers, n_real=n_real, loss_kind="discriminator")

    def gan_loss_generator(self, logits: Array, dlogits: Array, loss: Array, kind: str = "non_saturating") -> None:
        """See :func:`minigen.reference.gan_loss.generator`."""
        B = self._rows("logits", self._in("logits", logits, None, 1))
        self._out("dlogits", dlogits, B, 1)
        self._out("loss", loss, 1)
        checks.choice("kind", kind, GAN_LOSSES)
        buffers = {"logits": logits, "dlogits": dlogits, "loss": loss}
        self._do("gan_loss", "gan_loss_generator", buffers, n_real=0, loss_kind=kind)

    def _rows(self, name: str, array: Array) -> int:
        if len(array) == 0:
            raise ValueError(f"{name} has no rows, the mean loss of nothing is not defined")
        return len(array)

    # --- vae_loss -----------------------------------------------------------------------------

    def vae_loss_bernoulli(self, logits: Array, x: Array, dlogits: Array, rows: Array, loss: Array) -> None:
        """See :func:`minigen.reference.vae_loss.bernoulli`."""
        self._reconstruction("bernoulli", ("logits", logits), x, ("dlogits", dlogits), rows, loss, 1.0)

    def vae_loss_gaussian(
        self, mean: Array, x: Array, dmean: Array, rows: Array, loss: Array, variance: float = 1.0
    ) -> None:
        """See :func:`minigen.reference.vae_loss.gaussian`."""
        variance = checks.number("variance", variance, 0, exclude_low=True)
        self._reconstruction("gaussian", ("mean", mean), x, ("dmean", dmean), rows, loss, variance)

    def _reconstruction(
        self,
        likelihood: str,
        output: tuple[str, Array],
        x: Array,
        gradient: tuple[str, Array],
        rows: Array,
        loss: Array,
        variance: float,
    ) -> None:
        B, D = self._in(*output, None, None).shape
        self._in("x", x, B, D)
        self._out(*gradient, B, D)
        self._out("rows", rows, B)
        self._out("loss", loss, 1)
        self._rows("x", x)
        buffers = {"output": output[1], "x": x, "doutput": gradient[1], "rows": rows, "loss": loss}
        self._do("vae_loss", f"vae_loss_{likelihood}", buffers, likelihood=likelihood, variance=variance)

    # --- latent -------------------------------------------------------------------------------

    def latent_forward(self, heads: Array, eps: Array, z: Array, rows: Array, loss: Array) -> None:
        """See :func:`minigen.reference.latent.forward`."""
        B, L = self._in("eps", eps, None, None).shape
        self._in("heads", heads, B, 2 * L)
        self._out("z", z, B, L)
        self._out("rows", rows, B)
        self._out("loss", loss, 1)
        self._rows("heads", heads)
        buffers = {"heads": heads, "eps": eps, "z": z, "rows": rows, "loss": loss}
        self._do("latent_forward", "latent_forward", buffers)

    def latent_backward(self, dz: Array, heads: Array, eps: Array, dheads: Array, beta: float = 1.0) -> None:
        """See :func:`minigen.reference.latent.backward`."""
        B, L = self._in("dz", dz, None, None).shape
        self._in("heads", heads, B, 2 * L)
        self._in("eps", eps, B, L)
        self._out("dheads", dheads, B, 2 * L)
        buffers = {"dz": dz, "heads": heads, "eps": eps, "dheads": dheads}
        self._do("latent_backward", "latent_backward", buffers, beta=float(beta))

    # --- optimizer ----------------------------------------------------------------------------

    def sgd(
        self, p: Array, g: Array, velocity: Array, lr: Array, momentum: float = 0.0, weight_decay: float = 0.0
    ) -> None:
        """See :func:`minigen.reference.optimizer.sgd`."""
        n = len(self._out("p", p, None))
        self._in("g", g, n)
        self._out("velocity", velocity, n)
        self._in("lr", lr, 1)
        buffers = {"p": p, "g": g, "m": velocity, "lr": lr}
        rule = {"momentum": float(momentum), "weight_decay": float(weight_decay)}
        self._do("optimizer", "sgd", buffers, optimizer="sgd", **rule)

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
        """See :func:`minigen.reference.optimizer.adam`."""
        self._adam("adam", p, g, m, v, lr, step, beta1, beta2, eps, 0.0)

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
        """See :func:`minigen.reference.optimizer.adamw`."""
        self._adam("adamw", p, g, m, v, lr, step, beta1, beta2, eps, weight_decay)

    def _adam(
        self,
        name: str,
        p: Array,
        g: Array,
        m: Array,
        v: Array,
        lr: Array,
        step: Array,
        beta1: float,
        beta2: float,
        eps: float,
        weight_decay: float,
    ) -> None:
        n = len(self._out("p", p, None))
        self._in("g", g, n)
        self._out("m", m, n)
        self._out("v", v, n)
        self._in("lr", lr, 1)
        self._in("step", step, 1, dtype=np.uint64)
        buffers = {"p": p, "g": g, "m": m, "v": v, "lr": lr, "step": step}
        rule = {"beta1": float(beta1), "beta2": float(beta2), "eps": float(eps), "weight_decay": float(weight_decay)}
        self._do("optimizer", name, buffers, optimizer="adam", **rule)

    # --- random -------------------------------------------------------------------------------

    def random_uniform(self, out: Array, seed: int, stream: int, step: Array) -> None:
        """See :func:`minigen.reference.random.uniform`."""
        self._random("random_uniform", out, seed, stream, step)

    def random_normal(self, out: Array, seed: int, stream: int, step: Array) -> None:
        """See :func:`minigen.reference.random.normal`."""
        self._random("random_normal", out, seed, stream, step)

    def _random(self, name: str, out: Array, seed: int, stream: int, step: Array) -> None:
        self._out("out", out, *getattr(out, "shape", ()))
        self._in("step", step, 1, dtype=np.uint64)
        key = {"seed": checks.seed("seed", seed), "stream": checks.seed("stream", stream)}
        self._do(name, name, {"out": out, "step": step}, **key)

    # --- batch --------------------------------------------------------------------------------

    def batch_indices(
        self, indices: Array, n: int, seed: int, stream: int, step: Array, batch_size: int, steps_per_epoch: int
    ) -> None:
        """See :func:`minigen.reference.batch.indices`; -1 where the step would run past the end of the epoch."""
        rows = len(self._out("indices", indices, None, dtype=np.int32))
        self._in("step", step, 1, dtype=np.uint64)
        if rows > checks.integer("batch_size", batch_size, 1, 2**31 - 1):
            raise ValueError(f"batch_size must be at least the {rows} rows of indices, not {batch_size}")
        settings = {
            "n": checks.integer("n", n, 1, 2**31 - 1),
            "seed": checks.seed("seed", seed),
            "stream": checks.seed("stream", stream),
            "batch_size": int(batch_size),
            "steps_per_epoch": checks.integer("steps_per_epoch", steps_per_epoch, 1, 2**31 - 1),
        }
        self._do("batch_indices", "batch_indices", {"indices": indices, "step": step}, **settings)

    def batch_gather(self, data: Array, indices: Array, out: Array, scale: float = 1.0, shift: float = 0.0) -> None:
        """See :func:`minigen.reference.batch.gather`; a row whose index is outside of the data is NaN."""
        stored = np.uint8 if getattr(data, "dtype", None) == np.uint8 else self.dtype
        D = self._in("data", data, None, None, dtype=stored).shape[1]
        B = len(self._in("indices", indices, None, dtype=np.int32))
        self._out("out", out, B, D)
        buffers = {"data": data, "indices": indices, "out": out}
        self._do("batch_gather", "batch_gather", buffers, scale=float(scale), shift=float(shift))

    # --- bookkeeping --------------------------------------------------------------------------

    def advance(self, step: Array, losses: Array, history: Array) -> None:
        """``history[step % T] = losses[K]``, for ``history[T,K]`` with T > 0, then ``step += 1``."""
        K = len(self._in("losses", losses, None))
        T = len(self._out("history", history, None, K))
        checks.integer("len(history)", T, 1)
        self._out("step", step, 1, dtype=np.uint64)
        if math.prod(history.shape) == 0:
            raise ValueError("losses must hold at least one loss")
        self._do("advance", "advance", {"step": step, "losses": losses, "history": history})
