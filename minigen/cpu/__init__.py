"""The CPU floor: the operations of :mod:`minigen.backend` as compiled C++ kernels (``csrc/cpu``), float32.

The kernels exist once for each instruction set (x86-64: ``baseline``, ``avx2``, ``avx512``; Arm64: ``baseline``,
``neon``). The best one that the machine has is picked at the first use; the environment variable ``MINIGEN_ISA`` names
another. Results have the same bits for any number of threads, not for any instruction set.

A processor with AMX takes a dense layer's products on its tiles of bf16: see :attr:`CpuBackend.PRECISIONS`. With
``precision="bf16"`` one with AVX512-BF16 alone takes its dot products, which can be slower than float32, as
``_native.bf16_peak_gflops`` and ``_native.fma_peak_gflops`` tell. ``MINIGEN_BF16`` (``amx``, ``avx512bf16``) names one.
The first such backend asks Linux for AMX's registers, for the whole process, which may then have no signal stack
(``sigaltstack``) too small for them; a process that has one already is refused, and goes without AMX.

The threads are a team of minigen's own, started at the first operation that is worth them, one for each core at most.
Those that wait sleep, so that other programs have their cores. Where another program takes a core nevertheless, a
training measures now and then how long its steps take with fewer threads, and goes on with the number that is faster.
A forked child starts a team of its own, whatever OpenMP's threads do in the process. The team serves one Python thread
at a time; the others' operations meanwhile run on those threads alone.

``threadpoolctl.threadpool_limits`` has no effect here: it knows the libraries of OpenMP and BLAS, and minigen has
neither. ``OMP_NUM_THREADS`` has, as it is when minigen is first asked to compute, and so have :func:`set_num_threads`
and the command line's ``--threads``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from minigen import checks
from minigen.backend import Array, HostReader, Program
from minigen.placement import Placement

try:
    from minigen import _native
except ImportError as error:
    from minigen.missing_native import explain

    raise ImportError(explain(error)) from error

ALIGNMENT = 64
MAX_THREADS = 1024  # the compiled module's own limit


def isa() -> str:
    """Name of the instruction set in use. Raises ValueError if ``MINIGEN_ISA`` names none that this machine has."""
    return _native.isa()


def bf16() -> str:
    """What multiplies in the precision ``"bf16"``: ``"amx"``, or ``"avx512bf16"``, the slower one.

    Raises ValueError where the processor, the system or this build has neither, or ``MINIGEN_BF16`` names none of them.
    """
    return _native.bf16()


def get_num_threads() -> int:
    """How many threads the operations may use: the physical cores that this process may use (its affinity mask, and the
    CPU quotas of its control groups), or fewer if ``OMP_NUM_THREADS`` or :func:`set_num_threads` says so."""
    return _native.get_num_threads()


def set_num_threads(threads: int) -> None:
    """Let the operations use so many ``threads``, 1 to 1024, but no more than one a core: more would only take turns.

    Small operations use fewer. Results do not depend on it. Raises ValueError for a number out of range, TypeError for
    what is no integer.
    """
    _native.set_num_threads(checks.integer("threads", threads, 1, MAX_THREADS))


def aligned_empty(shape: tuple[int, ...], dtype: Any) -> np.ndarray:
    """An uninitialised C-contiguous array that begins at a multiple of 64 bytes: a cache line, an AVX-512 vector."""
    dtype = np.dtype(dtype)
    size = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
    raw = np.empty(size + ALIGNMENT, np.uint8)
    start = -raw.ctypes.data % ALIGNMENT
    return raw[start : start + size].view(dtype).reshape(shape)


class CpuBackend(Placement):
    """See :class:`minigen.backend.Backend`. Buffers are NumPy arrays; every operation refuses, by name, a buffer that
    is not a C-contiguous float32 array of the right shape, or an output that is read-only or overlaps an input.

    One thread at a time may use a backend while it captures; otherwise operations run concurrently, without the
    interpreter lock. Raises ValueError for a ``precision`` that is unknown or that this processor lacks, and if the
    environment variable ``MINIGEN_ISA`` names no instruction set of this machine.
    """

    name = "cpu"
    ahead = 0
    PRECISIONS = ("ieee", "bf16x6", "bf16")
    """``"ieee"`` multiplies float32. ``"bf16"`` rounds both operands of a dense layer's products to bf16 and sums in
    float32, on AVX512-BF16 or AMX. ``"bf16x6"`` takes each operand for the sum of three bf16 that hold all its bits,
    and the six largest of their nine products, on AMX: as good as ``"ieee"``, but infinities become NaN. In a captured
    step pixels, bytes that :meth:`batch_gather` has put in [0, 1] or [-1, 1], take three: whole numbers over 255, they
    are one bf16 each. Everything else, a head of one output included, is as in ``"ieee"``, and so are a small layer's
    products in ``"bf16x6"``, where splitting the operands does not pay."""

    @staticmethod
    def default_precision() -> str:
        """``"bf16x6"`` where AMX multiplies, else ``"ieee"``. Raises as :func:`bf16` for a wrong ``MINIGEN_BF16``."""
        return "bf16x6" if _native.supported_bf16() and bf16() == "amx" else "ieee"

    def __init__(self, precision: str = "ieee") -> None:
        self.precision = checks.choice("precision", precision, self.PRECISIONS)
        self.dtype = np.dtype(np.float32)
        self.isa = isa()
        if precision != "ieee":
            instructions = bf16()  # raises where there are none
            if precision == "bf16x6" and instructions != "amx":
                raise ValueError(f"precision must be ieee or bf16 with {instructions}, not 'bf16x6': that needs AMX")
        self._program: Any = None  # the program that records, while capture() runs

    def __repr__(self) -> str:
        return f"CpuBackend(isa={self.isa!r}, precision={self.precision!r}, threads={get_num_threads()})"

    # --- memory -------------------------------------------------------------------------------

    def empty(self, shape: tuple[int, ...], dtype: Any = None) -> Array:
        return aligned_empty(shape, self.dtype if dtype is None else dtype)

    def upload(self, host: np.ndarray, out: Array | None = None) -> Array:
        self._forbid_in_capture("upload")
        host = np.asarray(host)
        if out is None:
            out = self.empty(host.shape, host.dtype)
        elif out.shape != host.shape:
            raise ValueError(f"out must have shape {host.shape}, not {out.shape}")
        np.copyto(out, host)
        return out

    def resident(self, host: np.ndarray) -> Array:
        return host

    def download(self, buffer: Array) -> np.ndarray:
        self._forbid_in_capture("download")
        return np.array(buffer)

    def is_finite(self, buffer: Array) -> bool:
        self._forbid_in_capture("is_finite")
        return bool(np.isfinite(buffer).all())

    def reader(self, buffer: Array) -> HostReader:
        return HostReader(lambda: self.download(buffer))

    def finite_reader(self, buffer: Array) -> HostReader:
        return HostReader(lambda: np.array([not self.is_finite(buffer)]))

    def capture(self, step: Callable[[], None]) -> Program:
        """Record the operations that ``step`` calls, without running them; the program keeps their buffers alive."""
        self._forbid_in_capture("capture")
        program = _native.Program()
        self._program = program
        try:
            step()
        finally:
            self._program = None
        program.close()
        return program

    def _forbid_in_capture(self, name: str) -> None:
        if self._program is not None:
            raise RuntimeError(f"{name} cannot be part of a captured step: it would run now, not when the step runs")

    # --- operations ---------------------------------------------------------------------------

    def dense_forward(self, x: Array, W: Array, b: Array, y: Array, activation: str = "linear") -> None:
        _native.dense_forward(x, W, b, y, activation, self._program, self.precision)

    def dense_dgrad(self, dz: Array, W: Array, dx: Array, x: Array | None = None, activation: str = "linear") -> None:
        _native.dense_dgrad(dz, W, dx, x, activation, self._program, self.precision)

    def dense_wgrad(self, x: Array, dz: Array, dW: Array, db: Array) -> None:
        _native.dense_wgrad(x, dz, dW, db, self._program, self.precision)

    def activation_forward(self, z: Array, y: Array, activation: str) -> None:
        _native.activation_forward(z, y, activation, self._program)

    def activation_backward(self, dy: Array, y: Array, dz: Array, activation: str) -> None:
        _native.activation_backward(dy, y, dz, activation, self._program)

    def gan_loss_discriminator(self, logits: Array, n_real: int, dlogits: Array, loss: Array) -> None:
        _native.gan_loss_discriminator(logits, n_real, dlogits, loss, self._program)

    def gan_loss_generator(self, logits: Array, dlogits: Array, loss: Array, kind: str = "non_saturating") -> None:
        _native.gan_loss_generator(logits, dlogits, loss, kind, self._program)

    def vae_loss_bernoulli(self, logits: Array, x: Array, dlogits: Array, rows: Array, loss: Array) -> None:
        _native.vae_loss_bernoulli(logits, x, dlogits, rows, loss, self._program)

    def vae_loss_gaussian(
        self, mean: Array, x: Array, dmean: Array, rows: Array, loss: Array, variance: float = 1.0
    ) -> None:
        _native.vae_loss_gaussian(mean, x, dmean, rows, loss, variance, self._program)

    def latent_forward(self, heads: Array, eps: Array, z: Array, rows: Array, loss: Array) -> None:
        _native.latent_forward(heads, eps, z, rows, loss, self._program)

    def latent_backward(self, dz: Array, heads: Array, eps: Array, dheads: Array, beta: float = 1.0) -> None:
        _native.latent_backward(dz, heads, eps, dheads, beta, self._program)

    def sgd(
        self, p: Array, g: Array, velocity: Array, lr: Array, momentum: float = 0.0, weight_decay: float = 0.0
    ) -> None:
        _native.sgd(p, g, velocity, lr, momentum, weight_decay, self._program)

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
        _native.adam(p, g, m, v, lr, step, beta1, beta2, eps, self._program)

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
        _native.adamw(p, g, m, v, lr, step, beta1, beta2, eps, weight_decay, self._program)

    def random_uniform(self, out: Array, seed: int, stream: int, step: Array) -> None:
        _native.random_uniform(out, seed, stream, step, self._program)

    def random_normal(self, out: Array, seed: int, stream: int, step: Array) -> None:
        _native.random_normal(out, seed, stream, step, self._program)

    def batch_indices(
        self, indices: Array, n: int, seed: int, stream: int, step: Array, batch_size: int, steps_per_epoch: int
    ) -> None:
        _native.batch_indices(indices, n, seed, stream, step, batch_size, steps_per_epoch, self._program)

    def batch_gather(self, data: Array, indices: Array, out: Array, scale: float = 1.0, shift: float = 0.0) -> None:
        _native.batch_gather(data, indices, out, scale, shift, self._program)

    def advance(self, step: Array, losses: Array, history: Array) -> None:
        _native.advance(step, losses, history, self._program)
