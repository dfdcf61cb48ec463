"""The CUDA backend without a GPU: launches run by Triton's interpreter on NumPy memory.

The same kernels and schedules as on a GPU, thousands of times slower. ``TRITON_INTERPRET=1`` must be
in the environment before Triton is imported. The interpreter would take every product in float32; :func:`dot` rounds
the factors as the tensor cores do. It runs the programs of a launch one after the other, which hides races. Hence two
aids: ``shuffle`` runs them in a random order, and ``check`` records every address that a program touches, and raises
for one that another program of the launch writes or that lies outside of the launch's buffers.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from typing import Any
from unittest import mock

import interpreter_types
import numpy as np

from minigen import checks
from minigen.backend import HostReader
from minigen.cuda.plan import tiles
from minigen.cuda.plan.launch import Launch
from minigen.errors import DeviceError

ALIGNMENT = 64
_patched: set[str] = set()  # Triton's modules that have the interpreter's functions


class HostExecutor(ABC):
    """The memory of an :class:`~minigen.cuda.plan.launch.Executor` whose launches run on the host, in whatever way."""

    name: str
    array_type = np.ndarray

    def __init__(self, architecture: int) -> None:
        self.architecture = architecture
        self.shared_limit = tiles.shared_memory(architecture)

    @abstractmethod
    def run(self, launch: Launch) -> None:
        """Run one launch, after those before it."""

    def empty(self, shape: tuple[int, ...], dtype: Any) -> np.ndarray:
        """A new array, aligned to 64 bytes, full of NaN or -1: what reads it before it is written shows."""
        size = int(np.prod(shape)) * np.dtype(dtype).itemsize
        memory = np.full(size + ALIGNMENT, 255, np.uint8)
        first = -memory.ctypes.data % ALIGNMENT
        return memory[first : first + size].view(dtype).reshape(shape)

    def upload(self, host: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
        """A copy of ``host``, in ``out`` if given."""
        out = self.empty(host.shape, host.dtype) if out is None else out
        out[...] = host
        return out

    def resident(self, host: np.ndarray) -> np.ndarray:
        """A copy, as on a GPU."""
        return self.upload(host)

    def download(self, buffer: np.ndarray) -> np.ndarray:
        """A copy."""
        return buffer.copy()

    def reader(self, buffer: np.ndarray) -> HostReader:
        """A copy, at once: what was launched has run."""
        return HostReader(lambda: self.download(buffer))

    def address(self, buffer: np.ndarray) -> int:
        """Where ``buffer`` begins in this process."""
        return int(buffer.ctypes.data)

    def capture(self, launches: Sequence[Launch]) -> Repeat:
        """The launches, to be run again and again."""
        return Repeat(self, launches)


class InterpreterExecutor(HostExecutor):
    """An :class:`minigen.cuda.plan.launch.Executor`. ``architecture`` is the one whose tiles are taken.

    Raises DeviceError where Triton is missing, too old for this NumPy, or not in the mode of the interpreter.
    """

    name = "interpreter"

    def __init__(self, architecture: int = 90, shuffle: np.random.Generator | None = None, check: bool = False) -> None:
        problem = find_problem()
        if problem:
            raise DeviceError(problem)
        from triton.runtime import interpreter

        self.module, self.builder = interpreter, interpreter.interpreter_builder
        # Integers wrap around, as on a GPU; without this every sum of integers is computed twice to look for that.
        self.builder.options = replace(self.builder.options, sanitize_overflow=False)
        interpreter_types.make_once()
        super().__init__(architecture)
        self.shuffle, self.check = shuffle, check
        self.sees: dict[Any, set[str]] = {}  # which of Triton's modules are among a function's globals

    def run(self, launch: Launch) -> None:
        """Interpret one launch. Raises RuntimeError for what ``check`` finds."""
        arguments = [Pointer(a) if isinstance(a, np.ndarray) else a for a in launch.args]
        trace = Trace()
        with self._order(launch.grid, trace), trace.recording(self.builder) if self.check else nullcontext():
            with np.errstate(all="ignore"):  # NaN and infinity pass silently, as on a GPU
                launch.source[launch.grid](*arguments, **launch.constexprs)
        trace.raise_for_faults(launch)

    @contextmanager
    def _order(self, grid: tuple[int, int, int], trace: Trace) -> Iterator[None]:
        """Tell ``trace`` which program runs, and renumber the programs at random with ``shuffle``."""
        programs = grid[0] * grid[1]
        numbers = np.arange(programs) if self.shuffle is None else self.shuffle.permutation(programs)
        original = self.builder.set_grid_idx

        def renumbered(x: int, y: int, z: int) -> None:
            number = int(numbers[x + y * grid[0]])
            trace.begin(number)
            original(number % grid[0], number // grid[0], z)

        # Triton puts the interpreter's functions into its language again at each call of a function, which takes almost
        # half of a step's time, and takes them out after each launch. Here they stay until the process ends, in each of
        # the two modules that functions may see: such a process compiles nothing.
        patch, scope = self.module._patch_lang, self.module._LangPatchScope

        def patch_once(function: Any) -> Any:
            if function not in self.sees:
                values = function.__globals__.values()
                self.sees[function] = {name for name in languages if any(value is languages[name] for value in values)}
            seen = self.sees[function]
            if not seen <= _patched:
                _patched.update(seen)
                patch(function)
            return scope()

        languages = {"tl": self.module.tl, "core": self.module.tl.core}
        with (
            _replaced(self.builder, set_grid_idx=renumbered, create_dot=dot),
            mock.patch.object(self.module, "_patch_lang", patch_once),
        ):
            yield


class Repeat:
    """A program that runs its launches in order."""

    def __init__(self, executor: HostExecutor, launches: Sequence[Launch]) -> None:
        self.executor, self.launches = executor, tuple(launches)

    def run(self, steps: int) -> None:
        """Run all launches ``steps`` times."""
        for _ in range(checks.integer("steps", steps, 0)):
            for launch in self.launches:
                self.executor.run(launch)


class Pointer:
    """A NumPy array as what Triton's interpreter takes for a tensor in host memory."""

    def __init__(self, array: np.ndarray) -> None:
        self.array, self.dtype = array, array.dtype.name

    def data_ptr(self) -> int:
        return int(self.array.ctypes.data)

    def untyped_storage(self) -> Pointer:
        return self

    def cpu(self) -> Pointer:
        return self

    def new_empty(self, *size: int, **options: Any) -> Pointer:
        return Pointer(self.array)

    def set_(self, storage: Pointer, *place: Any) -> None:
        self.array = storage.array

    def copy_(self, storage: Pointer) -> None:
        pass  # the interpreter wrote into the array itself

    def storage_offset(self) -> int:
        return 0

    def size(self) -> tuple[int, ...]:
        return self.array.shape

    def stride(self) -> tuple[int, ...]:
        return self.array.strides


def dot(a: Any, b: Any, total: Any, precision: Any, *rest: Any) -> Any:
    """``total + a b`` in the manner of the tensor cores: rounded factors, exact products, a chunk's sum in float32.

    It is taken in float64 first: in float32 NumPy's order, and so the bits, would depend on the tile's other sides.
    """
    if a.data.dtype == np.uint16:  # bf16 is the upper half of a float32
        products = [tuple((x.data.astype(np.uint32) << np.uint32(16)).view(np.float32) for x in (a, b))]
    elif str(precision).endswith("IEEE"):
        products = [(a.data, b.data)]
    elif str(precision).endswith("TF32x3"):
        high = [rounded_to_tf32(x.data) for x in (a, b)]
        low = [rounded_to_tf32(x.data - y) for x, y in zip((a, b), high, strict=True)]
        products = [(low[0], high[1]), (high[0], low[1]), (high[0], high[1])]
    else:
        products = [(cut_to_tf32(a.data), cut_to_tf32(b.data))]
    summed = sum(np.matmul(x, y, dtype=np.float64).astype(np.float32) for x, y in products)
    return type(total)(summed + total.data, total.dtype.scalar)


def rounded_to_tf32(x: np.ndarray) -> np.ndarray:
    """The nearest number with 11 significant bits (infinity and NaN stay what they are)."""
    bits = x.view(np.uint32)
    rounded = ((bits + np.uint32(0x1000)) & np.uint32(0xFFFFE000)).view(np.float32)
    return np.where(np.isfinite(x), rounded, x)


def cut_to_tf32(x: np.ndarray) -> np.ndarray:
    """The first 11 significant bits: the tensor cores do not read the others (a NaN keeps one that tells it)."""
    return np.where(np.isnan(x), x, (x.view(np.uint32) & np.uint32(0xFFFFE000)).view(np.float32))


class Trace:
    """The addresses that the programs of one launch read and write."""

    def __init__(self) -> None:
        self.program = -1
        self.reads: list[tuple[int, np.ndarray]] = []
        self.writes: list[tuple[int, np.ndarray]] = []
        self.stale: list[int] = []  # programs that read what they had written: no barrier guards that

    def begin(self, program: int) -> None:
        self.program = program

    @contextmanager
    def recording(self, builder: Any) -> Iterator[None]:
        load, store = builder.create_masked_load, builder.create_masked_store

        def create_masked_load(pointers: Any, mask: Any, *rest: Any) -> Any:
            touched = _touched(pointers, mask)
            mine = [addresses for program, addresses in self.writes if program == self.program]
            if any(np.isin(touched, addresses).any() for addresses in mine):
                self.stale.append(self.program)
            self.reads.append((self.program, touched))
            return load(pointers, mask, *rest)

        def create_masked_store(pointers: Any, value: Any, mask: Any, *rest: Any) -> Any:
            self.writes.append((self.program, _touched(pointers, mask)))
            return store(pointers, value, mask, *rest)

        with _replaced(builder, create_masked_load=create_masked_load, create_masked_store=create_masked_store):
            yield

    def raise_for_faults(self, launch: Launch) -> None:
        """Raise RuntimeError for a race or an access outside of the launch's buffers."""
        name = launch.name
        if self.stale:
            raise RuntimeError(f"{name}: program {self.stale[0]} reads what it has written, without a barrier")
        read, readers = _flat(self.reads)
        written, writers = _flat(self.writes)
        touched = np.unique(np.concatenate([read, written]))
        inside = np.zeros(len(touched), bool)
        for buffer in (a for a in (*launch.args, *launch.moved_to) if isinstance(a, np.ndarray)):
            inside |= (touched >= buffer.ctypes.data) & (touched < buffer.ctypes.data + buffer.nbytes)
        if not inside.all():
            raise RuntimeError(f"{name}: {np.sum(~inside)} addresses outside of its buffers")
        # The first program to write an address; another one there, writing or reading, is a race.
        owned, first = np.unique(written, return_index=True)
        for addresses, programs, what in ((written, writers, "writes"), (read, readers, "reads")):
            if len(owned) == 0:
                break
            place = np.searchsorted(owned, addresses).clip(max=len(owned) - 1)
            shared = (owned[place] == addresses) & (writers[first][place] != programs)
            if shared.any():
                other = int(programs[np.flatnonzero(shared)[0]])
                raise RuntimeError(f"{name}: program {other} {what} what another program of the launch writes")


def find_problem() -> str | None:
    """Why Triton's interpreter cannot run here, or None."""
    try:
        import triton
    except ImportError as error:
        return f"Triton is missing ({error}): pip install triton"
    if not triton.knobs.runtime.interpret or hasattr(triton.language.zeros, "cache_key"):
        return "Triton was imported without TRITON_INTERPRET=1 in the environment"
    return find_mismatch(triton.__version__, np.__version__)


def find_mismatch(triton_version: str, numpy_version: str) -> str | None:
    """Why the interpreter of this Triton cannot work on this NumPy, or None."""
    triton, numpy = (tuple(map(int, version.split(".")[:2])) for version in (triton_version, numpy_version))
    if triton < (3, 7) and numpy >= (2, 4):
        return f"the interpreter of Triton {triton_version} fails on NumPy {numpy_version}: Triton 3.7 is needed"
    return None


def _touched(pointers: Any, mask: Any) -> np.ndarray:
    addresses = np.asarray(pointers.data)
    return addresses[np.broadcast_to(mask.data, addresses.shape).astype(bool)].ravel()


def _flat(accesses: list[tuple[int, np.ndarray]]) -> tuple[np.ndarray, np.ndarray]:
    """All addresses, and beside each its program."""
    if not accesses:
        return np.zeros(0, np.uint64), np.zeros(0, np.int64)
    programs = np.concatenate([np.full(len(addresses), program) for program, addresses in accesses])
    return np.concatenate([addresses for _, addresses in accesses]), programs


@contextmanager
def _replaced(target: Any, **methods: Any) -> Iterator[None]:
    """``target`` with other methods, of the instance only, until the end of the block."""
    for name, method in methods.items():
        setattr(target, name, method)
    try:
        yield
    finally:
        for name in methods:
            delattr(target, name)
