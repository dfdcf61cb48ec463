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

Letters are sizes: ``B`` rows of a batch, ``I`` inputs and ``O`` outputs of a dense layer, ``L`` latent variables, ``D``
columns of the data, ``K`` losses, ``n`` elements, also of buffers of any shape. Every buffer is C-contiguous. What an
operation writes overlaps nothing else that it is given. ``step`` counts the training steps done so far and ``lr`` is
the learning rate: both lie in the device's memory, so that a captured step can be repeated while they change.
"""

from __future__ import annotations

import functools
import inspect
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np

from minigen import checks
from minigen.errors import ArgumentError, ArgumentTypeError
from minigen.reference.activations import ACTIVATIONS, LEAKY_SLOPE
from minigen.reference.gan_loss import GAN_LOSSES
from minigen.reference.vae_loss import LIKELIHOODS
from minigen.step.record import Operation, declare

__all__ = ["ACTIVATIONS", "GAN_LOSSES", "LEAKY_SLOPE", "LIKELIHOODS", "OPERATIONS", "Array", "Operations"]

Array = Any
"""A buffer in the memory of a backend: ``numpy.ndarray`` on the CPU, ``cupy.ndarray`` on CUDA."""

Method = TypeVar("Method", bound=Callable[..., None])
Check = Callable[[str, Any], Any]

BUFFER = re.compile(r"([=+]?)(\w+)(\??)(?::(\w+))?\[([^\]]*)\]")
MOST = 2**31 - 1  # rows, steps: what a kernel's int32 holds


@dataclass(frozen=True)
class Buffer:
    """One buffer of an operation; ``access`` is ``""`` (read), ``"="`` (written) or ``"+"`` (both)."""

    name: str
    access: str
    optional: bool
    dtype: str
    shape: tuple[str, ...] | None
    """A number or a letter for each dimension, None for any shape."""

    @property
    def read(self) -> bool:
        return self.access != "="

    @property
    def written(self) -> bool:
        return self.access != ""


def parse(text: str) -> tuple[Buffer, ...]:
    """The buffers of a row."""
    found = []
    for access, name, optional, dtype, shape in BUFFER.findall(text):
        sizes = None if shape == "..." else tuple(shape.split(","))
        found.append(Buffer(name, access, bool(optional), dtype or "float", sizes))
    return tuple(found)


@dataclass(frozen=True)
class Row:
    """What is known of an operation."""

    name: str
    recorded_as: str
    """What the recorder and the backends know it as: several operations may be one kernel with different settings."""
    buffers: tuple[Buffer, ...]
    settings: Mapping[str, Check]
    """By name, what checks a value: ``check(name, value)`` gives it as the kernels take it, or raises."""
    implied: Mapping[str, Any]
    """Settings that the operation's name stands for."""
    renamed: Mapping[str, str]
    """Buffers that are recorded under another name."""
    flops: Callable[[Mapping[str, int]], float]
    moved: Callable[[Mapping[str, int]], float] | None
    """Bytes, where it is not every buffer once for each access."""
    in_place: bool
    """Whether what it writes may be the very buffer that it reads: each element depends on itself alone."""
    also: Callable[[dict[str, int], dict[str, Any]], None] | None
    """Raises where sizes and settings do not fit each other."""
    signature: inspect.Signature = field(repr=False, compare=False)

    def call(self, backend: Operations, given: tuple[Any, ...], named: dict[str, Any]) -> Operation:
        """The checked call. Raises TypeError or ValueError that names the argument."""
        bound = self.signature.bind(backend, *given, **named)
        bound.apply_defaults()
        arguments = bound.arguments
        settings = {name: check(name, arguments[name]) for name, check in self.settings.items()}
        buffers = {buffer.name: arguments[buffer.name] for buffer in self.buffers}
        sizes = self._check_buffers(backend, buffers)
        if self.also:
            self.also(sizes, {**settings, **buffers})
        self._check_overlap(backend, buffers)
        kept = {self.renamed.get(name, name): buffer for name, buffer in buffers.items() if buffer is not None}
        every = sum(
            (b.read + b.written) * int(buffers[b.name].nbytes) for b in self.buffers if buffers[b.name] is not None
        )
        return Operation(
            self.recorded_as,
            kept,
            {"steps_ahead": 0, **self.implied, **settings},
            (self.name,),
            sizes,
            flops=self.flops(sizes),
            bytes=self.moved(sizes) if self.moved else every,
        )

    def _check_buffers(self, backend: Operations, buffers: dict[str, Any]) -> dict[str, int]:
        """The value of each letter."""
        sizes: dict[str, int] = {}
        common: tuple[int, ...] | None = None
        present = [(buffer, buffers[buffer.name]) for buffer in self.buffers]
        present = [(buffer, array) for buffer, array in present if array is not None or not buffer.optional]
        for buffer, array in present:
            self._check_kind(backend, buffer, array)
            if buffer.shape is None:
                common = tuple(array.shape) if common is None else common
            elif array.ndim == len(buffer.shape):
                for letter, size in zip(buffer.shape, array.shape, strict=True):
                    if letter.rstrip("+").isalpha():
                        sizes.setdefault(letter.rstrip("+"), int(size))
        for buffer, array in present:
            wanted = common if buffer.shape is None else tuple(_size(letter, sizes) for letter in buffer.shape)
            if tuple(array.shape) != wanted:
                text = ", ".join("any" if size is None else str(size) for size in wanted or ())
                comma = "," if len(wanted or ()) == 1 else ""
                raise ArgumentError(buffer.name, f"must have shape ({text}{comma}), not {tuple(array.shape)}")
            if buffer.shape and buffer.shape[0].endswith("+") and array.shape[0] == 0:
                raise ArgumentError(buffer.name, "has no rows, the mean loss of nothing is not defined")
        if common is not None:
            sizes["n"] = math.prod(common)
        sizes |= {f"{buffer.name}.itemsize": array.itemsize for buffer, array in present if buffer.dtype == "data"}
        return sizes

    def _check_kind(self, backend: Operations, buffer: Buffer, array: Any) -> None:
        if not isinstance(array, backend.array_type):
            library = backend.array_type.__module__.partition(".")[0]
            raise ArgumentTypeError(buffer.name, f"must be a {library}.ndarray, not {type(array).__name__}")
        dtype = backend.dtype if buffer.dtype in ("float", "data") else np.dtype(buffer.dtype)
        if array.dtype != dtype and not (buffer.dtype == "data" and array.dtype == np.uint8):
            raise ArgumentTypeError(buffer.name, f"must be {dtype}, not {array.dtype}")
        if not array.flags.c_contiguous:
            raise ArgumentError(buffer.name, f"must be C-contiguous, its strides are {array.strides}")
        if isinstance(array, np.ndarray):
            if buffer.written and not array.flags.writeable:
                raise ArgumentError(buffer.name, "is an output and must be writeable, but it is read-only")
            if not array.flags.aligned:
                raise ArgumentError(buffer.name, f"must be aligned to its dtype {array.dtype}")

    def _check_overlap(self, backend: Operations, buffers: dict[str, Any]) -> None:
        spans = {
            name: (start := backend.address(array), start + int(array.nbytes))
            for name, array in buffers.items()
            if array is not None and array.nbytes
        }
        for buffer in self.buffers:
            if not buffer.written or buffer.name not in spans:
                continue
            first, end = spans[buffer.name]
            for other, (start, stop) in spans.items():
                if other == buffer.name or end <= start or stop <= first or (self.in_place and start == first):
                    continue
                raise ArgumentError(buffer.name, f"and {other} must not share memory")


def _size(letter: str, sizes: Mapping[str, int]) -> int | None:
    """``3``, ``B`` or ``2L`` as a number; None for a letter that no buffer has told."""
    factor, name = re.fullmatch(r"(\d*)([A-Za-z]*)\+?", letter).groups()  # type: ignore[union-attr]
    if not name:
        return int(factor)
    return int(factor or 1) * sizes[name] if name in sizes else None


OPERATIONS: dict[str, Row] = {}
"""Every row by the name of its operation."""


def operation(
    buffers: str,
    *,
    recorded_as: str | None = None,
    implied: Mapping[str, Any] | None = None,
    renamed: Mapping[str, str] | None = None,
    flops: Callable[[Mapping[str, int]], float] = lambda n: 0,
    moved: Callable[[Mapping[str, int]], float] | None = None,
    in_place: bool = False,
    also: Callable[[dict[str, int], dict[str, Any]], None] | None = None,
    **settings: Check,
) -> Callable[[Method], Method]:
    """Make a method of :class:`Operations` a row: see the module's docstring and :class:`Row`."""

    def enter(method: Method) -> Method:
        row = Row(
            method.__name__,
            recorded_as or method.__name__,
            parse(buffers),
            settings,
            implied or {},
            renamed or {},
            flops,
            moved,
            in_place,
            also,
            inspect.signature(method),
        )
        OPERATIONS[row.name] = row
        known = [(row.renamed.get(buffer.name, buffer.name), buffer) for buffer in row.buffers]
        reads, writes = ([n for n, b in known if b.read], [n for n, b in known if b.written])
        declare(row.recorded_as, reads, writes)

        @functools.wraps(method)
        def call(self: Operations, *given: Any, **named: Any) -> None:
            self.do(row.call(self, given, named))

        return call  # type: ignore[return-value]

    return enter


# --- checks of settings -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class OneOf:
    """The value has to be one of ``known``."""

    known: tuple[str, ...]

    def __call__(self, name: str, value: Any) -> Any:
        return checks.choice(name, value, self.known)


def within(low: float, high: float = math.inf, exclude_low: bool = False) -> Check:
    return lambda name, value: checks.number(name, value, low, high, exclude_low=exclude_low)


def whole(low: int, high: int = MOST) -> Check:
    return lambda name, value: checks.integer(name, value, low, high)


def flag(name: str, value: Any) -> bool:
    return bool(checks.choice(name, value, (True, False)))


def real(name: str, value: Any) -> float:
    return float(value)


def _known_output(sizes: dict[str, int], given: dict[str, Any]) -> None:
    if given["activation"] != "linear" and given["x"] is None:
        activation = given["activation"]
        raise ArgumentError("x", f": the output of the layer before is needed for activation {activation!r}, got None")


def _real_and_fake(sizes: dict[str, int], given: dict[str, Any]) -> None:
    B, n_real = sizes["B"], given["n_real"]
    if not 0 < n_real < B:
        raise ArgumentError("n_real", f"must leave a real and a generated row, 1 to {B - 1} of {B}, not {n_real}")


def _whole_batch(sizes: dict[str, int], given: dict[str, Any]) -> None:
    if sizes["B"] > given["batch_size"]:
        raise ArgumentError(
            "batch_size", f"must be at least the {sizes['B']} rows of indices, not {given['batch_size']}"
        )


def _some_history(sizes: dict[str, int], given: dict[str, Any]) -> None:
    checks.integer("len(history)", sizes["T"], 1)
    checks.integer("len(losses)", sizes["K"], 1)


class Operations:
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
        "x[B,I] W[I,O] b[O] =y[B,O]", activation=OneOf(ACTIVATIONS), flops=lambda n: 2 * n["B"] * n["I"] * n["O"]
    )
    def dense_forward(self, x: Array, W: Array, b: Array, y: Array, activation: str = "linear") -> None:
        """``y[B,O] = act(x[B,I] @ W[I,O] + b[O])``."""

    @operation(
        "dz[B,O] W[I,O] x?[B,I] =dx[B,I]",
        activation=OneOf(ACTIVATIONS),
        flops=lambda n: 2 * n["B"] * n["I"] * n["O"],
        also=_known_output,
    )
    def dense_dgrad(self, dz: Array, W: Array, dx: Array, x: Array | None = None, activation: str = "linear") -> None:
        """``dx[B,I] = (dz[B,O] @ W[I,O].T) * act'(z_before)``.

        ``x[B,I] = act(z_before)`` is the stored output of the layer before, whose ``activation`` is named here, and
        the derivative at ``z_before`` is computed from it; with ``"linear"`` it is 1 and ``x`` is not needed. With any
        other activation the result is the previous layer's ``dz``, not ``dL/dx``.
        """

    @operation(
        "x[B,I] dz[B,O] =dW[I,O] =db[O]",
        accumulate=flag,
        flops=lambda n: 2 * n["B"] * n["I"] * n["O"] + n["B"] * n["O"],
    )
    def dense_wgrad(self, x: Array, dz: Array, dW: Array, db: Array, accumulate: bool = False) -> None:
        """``dW[I,O] = x[B,I].T @ dz[B,O]``, ``db[O] = dz.sum(axis=0)``; with ``accumulate`` on top of what is there."""

    # --- activations --------------------------------------------------------------------------------------

    @operation("z[...] =y[...]", activation=OneOf(ACTIVATIONS), flops=lambda n: n["n"], in_place=True)
    def activation_forward(self, z: Array, y: Array, activation: str) -> None:
        """``y = act(z)``, elementwise; ``y`` may be ``z``."""

    @operation("dy[...] y[...] =dz[...]", activation=OneOf(ACTIVATIONS), flops=lambda n: 2 * n["n"], in_place=True)
    def activation_backward(self, dy: Array, y: Array, dz: Array, activation: str) -> None:
        """``dz = dy * act'(z)`` with the derivative taken from the stored output ``y``; ``dz`` may be ``dy``."""

    # --- gan_loss: of logits s ------------------------------------------------------------------------------

    @operation(
        "logits[B+,1] =loss[1] =dlogits[B,1]",
        recorded_as="gan_loss",
        implied={"player": "discriminator"},
        n_real=whole(0),
        kind=OneOf(GAN_LOSSES),
        flops=lambda n: 2 * n["B"],
        also=_real_and_fake,
    )
    def gan_loss_discriminator(
        self, logits: Array, n_real: int, dlogits: Array, loss: Array, kind: str = "non_saturating"
    ) -> None:
        """``loss[0]``, the mean of a real row's term plus the mean of a generated row's, and its gradient.

        The first ``n_real`` rows of ``logits[B,1]`` are of real samples, the others of generated ones. The terms:
        :mod:`minigen.reference.gan_loss`.
        """

    @operation(
        "logits[B+,1] =loss[1] =dlogits[B,1]",
        recorded_as="gan_loss",
        implied={"player": "generator", "n_real": 0},
        kind=OneOf(GAN_LOSSES),
        flops=lambda n: 2 * n["B"],
    )
    def gan_loss_generator(self, logits: Array, dlogits: Array, loss: Array, kind: str = "non_saturating") -> None:
        """``loss[0]``, the mean of the generator's term over ``logits[B,1]`` of generated rows, and its gradient."""

    # --- vae_loss: reconstruction terms, in nats ------------------------------------------------------------

    @operation(
        "output[B+,D] x[B,D] =rows[B] =loss[1] =doutput[B,D]",
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

    @operation("heads[B+,2L] eps[B,L] =z[B,L] =rows[B] =loss[1]", flops=lambda n: 8 * n["B"] * n["L"])
    def latent_forward(self, heads: Array, eps: Array, z: Array, rows: Array, loss: Array) -> None:
        """``z[B,L] = mu + exp(logvar / 2) * eps``; ``rows[B]`` the KL to N(0, I) in nats, ``loss[0]`` its mean.

        ``heads[B,2L]`` holds ``mu`` in its first ``L`` columns and ``h`` in the others, ``logvar`` before its bound.
        """

    @operation("dz[B,L] heads[B,2L] eps[B,L] =dheads[B,2L]", beta=real, flops=lambda n: 8 * n["B"] * n["L"])
    def latent_backward(self, dz: Array, heads: Array, eps: Array, dheads: Array, beta: float = 1.0) -> None:
        """``dheads[B,2L]``: gradient of (loss behind ``dz[B,L]``) + ``beta`` * mean KL."""

    # --- optimizer: all parameters of a network lie in one flat buffer -----------------------------------

    @operation(
        "+p[n] g[n] +velocity[n] lr[1]",
        recorded_as="optimizer",
        implied={"optimizer": "sgd"},
        renamed={"velocity": "m"},
        momentum=real,
        weight_decay=real,
        flops=lambda n: 6 * n["n"],
    )
    def sgd(
        self, p: Array, g: Array, velocity: Array, lr: Array, momentum: float = 0.0, weight_decay: float = 0.0
    ) -> None:
        """``g += weight_decay p; velocity = momentum velocity + g; p -= lr velocity`` (``g`` itself is left alone)."""

    @operation(
        "+p[n] g[n] +m[n] +v[n] lr[1] step:uint64[1]",
        recorded_as="optimizer",
        implied={"optimizer": "adam", "weight_decay": 0.0},
        beta1=real,
        beta2=real,
        eps=real,
        flops=lambda n: 14 * n["n"],
    )
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

    @operation(
        "+p[n] g[n] +m[n] +v[n] lr[1] step:uint64[1]",
        recorded_as="optimizer",
        implied={"optimizer": "adam"},
        beta1=real,
        beta2=real,
        eps=real,
        weight_decay=real,
        flops=lambda n: 14 * n["n"],
    )
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

    # --- random: Philox4x32-10, key (seed, stream), counter (step, element // 4) --------------------------

    @operation("step:uint64[1] =out[...]", seed=checks.seed, stream=checks.seed, flops=lambda n: n["n"])
    def random_uniform(self, out: Array, seed: int, stream: int, step: Array) -> None:
        """Fill ``out`` (any shape, element e in C order) with uniforms in [0, 1)."""

    @operation("step:uint64[1] =out[...]", seed=checks.seed, stream=checks.seed, flops=lambda n: 25 * n["n"])
    def random_normal(self, out: Array, seed: int, stream: int, step: Array) -> None:
        """Fill ``out`` with standard normals: Box-Muller on the same integers."""

    # --- batch ---------------------------------------------------------------------------------------------

    @operation(
        "step:uint64[1] =indices:int32[B]",
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

    # --- bookkeeping ---------------------------------------------------------------------------------------

    @operation("+step:uint64[1] losses[K] +history[T,K]", moved=lambda n: 8 * n["K"] + 16, also=_some_history)
    def advance(self, step: Array, losses: Array, history: Array) -> None:
        """End of a step: ``history[step % len(history)] = losses``, then ``step += 1``."""
