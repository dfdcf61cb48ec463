"""Launches on a GPU: memory, copies, kernels and graphs, all on one stream of one device, through CuPy.

The stream is not the default one, because that cannot be captured into a graph. Nothing here waits for the GPU but
:meth:`DeviceExecutor.download`, :meth:`DeviceExecutor.synchronize` and :meth:`PinnedReader.get`.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any

import numpy as np

from minigen import checks
from minigen.backend import Array
from minigen.cuda import cpp
from minigen.cuda.plan import tiles
from minigen.cuda.plan.launch import Launch
from minigen.cuda.run import compiler, dependent
from minigen.cuda.run.cache import Binary
from minigen.cuda.run.driver import GIB, architecture, find_problem
from minigen.cuda.run.memory import Arena, Block, Staging, allocate
from minigen.errors import DeviceError

Call = Callable[[], None]
"""A launch with its loaded function and packed arguments: puts it on the stream."""

STEPS_PER_GRAPH = 32
"""Repetitions of a program in one graph. To be replaced by what ``bench/gpu.sh`` measures for 1 to 256."""
UNASKED_SHARED = 48 * 1024  # bytes of shared memory that a block gets without asking
DLPACK_CUDA = (2, 13)  # kDLCUDA, kDLCUDAManaged

_functions: dict[tuple[int, Binary], Any] = {}  # loaded kernels, by device: they outlive the models that use them


def on_gpu(array: Any) -> bool:
    """Whether ``array`` is a CuPy array, or any that DLPack knows to be in a GPU's memory."""
    return hasattr(array, "__dlpack_device__") and array.__dlpack_device__()[0] in DLPACK_CUDA


class DeviceExecutor:
    """GPU number ``index``, counted from 0. See :class:`minigen.cuda.plan.launch.Executor`.

    Raises :class:`~minigen.DeviceError` where it cannot be used. ``architecture`` is its compute capability times ten,
    ``dependent_problem`` says why its graphs are made without programmatic dependent launches, None if with them
    (:mod:`minigen.cuda.run.dependent`).
    """

    name = "cuda"

    def __init__(self, index: int = 0) -> None:
        problem = find_problem(index)
        if problem:
            raise DeviceError(f"device 'cuda:{index}' cannot be used here: {problem}")
        import cupy

        self.cupy = cupy
        self.index = index
        self.array_type = cupy.ndarray
        self.architecture = architecture(index)
        runtime = cupy.cuda.runtime
        self.device = cupy.cuda.Device(index)
        with self.device:
            self.stream = cupy.cuda.Stream(non_blocking=True)
        self.shared_limit = runtime.deviceGetAttribute(runtime.cudaDevAttrMaxSharedMemoryPerBlockOptin, index)
        self.dependent_problem = dependent.find_problem(self.architecture, runtime.driverGetVersion())
        # Not a method: the arena outlives this object as long as anybody holds a buffer, and must not keep it alive.
        self.arena = Arena(partial(allocate, cupy, self.device))
        self.common = self  # what several models share: the executor that `with_arena` copied, or this one
        self.residents: dict[int, tuple[Any, Array]] = {}  # by id: a host array that several models use, and its copy
        self._staging: Staging | None = None
        self._capturing = False
        tiles.load_measured(self.architecture)

    def with_arena(self, arena: Arena) -> DeviceExecutor:
        """The same GPU and stream with other memory, for one of several models in training at once."""
        other = copy.copy(self)
        other.arena = arena
        return other

    # --- memory -------------------------------------------------------------------------------

    def empty(self, shape: tuple[int, ...], dtype: Any) -> Array:
        """A new uninitialised C-contiguous array, aligned to 256 bytes.

        Raises MemoryError, saying what was needed and what is free, where the GPU has too little memory left.
        """
        if self._capturing:
            raise RuntimeError("a buffer was asked for during graph capture: allocate it before")
        dtype = np.dtype(dtype)
        nbytes = math.prod(shape) * dtype.itemsize
        block = self._take(nbytes, f"a buffer of shape {tuple(shape)} and type {dtype}")
        memory = self.cupy.cuda.UnownedMemory(block.address, block.size, block, self.index)
        return self.cupy.ndarray(shape, dtype, self.cupy.cuda.MemoryPointer(memory, 0))

    def upload(self, host: Any, out: Array | None = None) -> Array:
        """Copy ``host`` through pinned memory into ``out`` of the same shape and dtype, or into a new buffer.

        ``host`` may also be in GPU memory (CuPy, DLPack): the copy then stays on the device.
        """
        on_device = on_gpu(host)
        source = self.adopt(host) if on_device else np.asarray(host)
        if out is None:
            out = self.empty(source.shape, source.dtype)
        self._check_out(out, source)
        if on_device:
            self._copy(out, source)
        else:
            with self.device, self.reporting():
                self._pinned().to_device(np.ascontiguousarray(source), self.address(out))
        return out

    def resident(self, host: Any) -> Array:
        """A copy of ``host`` for a whole training; an array in this GPU's memory stays where it is.

        Raises MemoryError, with the figures, for data larger than the memory that is left.
        """
        if on_gpu(host):
            array = self.adopt(host)
            return array if array.flags.c_contiguous else self.upload(array)
        if self.common is not self:
            return self.common.resident_once(host)
        free = self.memory_info()[0] + self.arena.reserved - self.arena.in_use
        if host.nbytes > free:
            raise MemoryError(
                f"the data take {_gib(host.nbytes)} and must lie in GPU memory as a whole, where {_gib(free)} of "
                f"{_gib(self.memory_info()[1])} are free on cuda:{self.index}; train on fewer rows, on uint8 in place "
                "of float32, or with device='cpu', which reads a memory-mapped file as it goes"
            )
        return self.upload(host)

    def resident_once(self, host: Any) -> Array:
        """:meth:`resident` for several models, which share the copy of an array that they share."""
        if id(host) not in self.residents:
            self.residents[id(host)] = host, self.resident(host)
        return self.residents[id(host)][1]

    def download(self, buffer: Array) -> np.ndarray:
        """A new host array with the contents of ``buffer``; waits for the work that writes it."""
        host = np.empty(buffer.shape, buffer.dtype)
        with self.device, self.stream, self.reporting():
            contiguous = self.cupy.ascontiguousarray(buffer)
            self._pinned().to_host(self.address(contiguous), host)
        return host

    def reader(self, buffer: Array) -> PinnedReader:
        """A download of contiguous ``buffer`` in two halves, through pinned memory of its own."""
        return PinnedReader(self, buffer)

    def adopt(self, array: Any, name: str = "the array") -> Array:
        """The CuPy array that shares the memory of ``array`` (CuPy or DLPack), ready for use on this stream.

        Raises ValueError for an array on another GPU, which calls it ``name``.
        """
        kind, index = array.__dlpack_device__()
        if index != self.index:
            raise ValueError(f"{name} must be on cuda:{self.index} like the model, not on cuda:{index}: copy it first")
        with self.device:
            if isinstance(array, self.array_type):
                self.stream.wait_event(self.cupy.cuda.get_current_stream().record())
                return array
            with self.stream:  # DLPack's producer orders its work before the current stream's
                return self.cupy.from_dlpack(array)

    def release(self, array: Array) -> Array:
        """``array``, safe to use on the caller's current stream."""
        with self.device:
            self.cupy.cuda.get_current_stream().wait_event(self.stream.record())
        return array

    def address(self, buffer: Array) -> int:
        """Where the first byte of ``buffer`` lies in device memory."""
        return int(buffer.data.ptr)

    def memory_info(self) -> tuple[int, int]:
        """Free and total bytes of the GPU's memory."""
        with self.device:
            free, total = self.cupy.cuda.runtime.memGetInfo()
        return free, total

    def synchronize(self) -> None:
        """Wait until everything that was asked for is done. Raises DeviceError where some of it failed."""
        with self.device, self.reporting():
            self.stream.synchronize()

    # --- kernels ------------------------------------------------------------------------------

    def run(self, launch: Launch) -> None:
        """Run one launch, after those before it."""
        with self.device:
            for call in self.prepare([launch]):
                call()

    def prepare(self, launches: Sequence[Launch], overlap: bool = False) -> list[Call]:
        """Compile, load and pack: all that can be done before. New kernels are compiled side by side.

        With ``overlap``, for a graph, launches that wait by themselves are begun while the one before still runs, where
        this GPU can. A launch without programs is left out. What is returned keeps the buffers alive; call it on this
        device.
        """
        launches = [launch for launch in launches if 0 not in launch.grid]  # CuPy would launch one block
        compiled = iter(self.compile(launches))
        overlap = overlap and self.dependent_problem is None
        with self.device:
            return [self._bind(*next(compiled), overlap) if x.is_triton else self._bind_cpp(x) for x in launches]

    def compile(self, launches: Sequence[Launch]) -> list[tuple[Launch, Binary]]:
        """The Triton kernels among ``launches``, which are in the cache from now on, each with the tiles that fit."""
        return compiler.compile_launches([x for x in launches if x.is_triton], self)

    def capture(self, launches: Sequence[Launch]) -> GraphProgram:
        """A program that repeats ``launches`` from CUDA graphs."""
        return GraphProgram(self, self.prepare(launches, overlap=True))

    def _bind(self, launch: Launch, binary: Binary, overlap: bool) -> Call:
        scratch: Any = np.uint64(0)
        if binary.scratch:
            scratch = self.empty((binary.scratch * math.prod(launch.grid),), np.uint8)
        arguments = (*map(_scalar_or_buffer, launch.args), scratch, np.uint64(0))
        if overlap and launch.waits:
            function = self._load(binary)
            return dependent.call(function, launch.grid, binary.threads, binary.shared, self.stream, arguments)
        return self._call(binary, launch.grid, binary.threads, arguments)

    def _bind_cpp(self, launch: Launch) -> Call:
        file, name = launch.source
        types = cpp.parameters(file, name)
        if len(types) != len(launch.args):
            raise ValueError(f"{name} of {file} takes {len(types)} arguments, not {len(launch.args)}")
        binary = cpp.compile_function(file, name, self.architecture)
        arguments = tuple(a if t is None else t(a) for t, a in zip(types, launch.args, strict=True))
        return self._call(binary, launch.grid, 32 * launch.num_warps, arguments)

    def _call(self, binary: Binary, grid: tuple[int, int, int], threads: int, arguments: tuple[Any, ...]) -> Call:
        function = self._load(binary)
        return partial(function, grid, (threads, 1, 1), arguments, shared_mem=binary.shared, stream=self.stream)

    def _load(self, binary: Binary) -> Any:
        """The function of ``binary``, on this device."""
        if (self.index, binary) in _functions:
            return _functions[self.index, binary]
        driver = self.cupy.cuda.driver
        module = self.cupy.cuda.Module()
        try:
            module.load(binary.code)
            function = module.get_function(binary.entry)
        except driver.CUDADriverError as error:
            what = f"kernel {binary.entry} for sm_{self.architecture}"
            raise DeviceError(f"the driver does not take {what}: {error}") from error
        if binary.shared > UNASKED_SHARED:
            driver.funcSetAttribute(function.ptr, driver.CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES, binary.shared)
        return _functions.setdefault((self.index, binary), function)

    def record(self, calls: Sequence[Call], repeats: int) -> Any:
        """A CUDA graph of ``repeats`` times ``calls``, in their order."""
        with self.device:
            self._capturing = True
            self.stream.begin_capture()
            try:
                for _ in range(repeats):
                    for call in calls:
                        call()
            except BaseException:
                with suppress(self.cupy.cuda.runtime.CUDARuntimeError):  # how a capture that went wrong ends
                    self.stream.end_capture()
                raise
            finally:
                self._capturing = False
            graph = self.stream.end_capture()
            graph.upload(self.stream)
        return graph

    # --- helpers ------------------------------------------------------------------------------

    def _take(self, nbytes: int, what: str) -> Block:
        try:
            return self.arena.take(nbytes)
        except MemoryError:
            free, total = self.memory_info()
        raise MemoryError(
            f"cuda:{self.index} is out of memory: {what} needs {_gib(nbytes)}, {_gib(free)} of {_gib(total)} are free "
            f"and this model holds {_gib(self.arena.in_use)}; a smaller batch_size or hidden takes less"
        )

    def _check_out(self, out: Any, source: Any) -> None:
        if not isinstance(out, self.array_type):
            raise TypeError(f"out must be a cupy.ndarray, not {type(out).__name__}")
        if out.dtype != source.dtype:
            raise TypeError(f"out must be {source.dtype}, not {out.dtype}")
        if out.shape != source.shape:
            raise ValueError(f"out must have shape {source.shape}, not {out.shape}")
        if not out.flags.c_contiguous:
            raise ValueError("out must be C-contiguous")

    def _pinned(self) -> Staging:
        if self.common._staging is None:
            self.common._staging = Staging(self.cupy, self.stream)
        return self.common._staging

    def _copy(self, out: Array, source: Array) -> None:
        """Within the device; ``out`` is contiguous."""
        runtime = self.cupy.cuda.runtime
        with self.device, self.stream, self.reporting():
            source = self.cupy.ascontiguousarray(source)
            addresses = self.address(out), self.address(source)
            runtime.memcpyAsync(*addresses, out.nbytes, runtime.memcpyDeviceToDevice, self.stream.ptr)

    @contextmanager
    def reporting(self) -> Iterator[None]:
        """Kernels fail long after their launch: say so where the failure is noticed."""
        runtime = self.cupy.cuda.runtime
        try:
            yield
        except runtime.CUDARuntimeError as error:
            raise DeviceError(
                f"a kernel or copy on cuda:{self.index} failed: {error}. This process cannot use the GPU any more"
            ) from error


class GraphProgram:
    """Calls in CUDA graphs: one of a single repetition, one of :data:`STEPS_PER_GRAPH`.

    What changes from step to step (counters, learning rate, batch) lies in device memory, so the graphs stay the same.
    """

    def __init__(self, executor: DeviceExecutor, calls: list[Call], steps_per_graph: int = STEPS_PER_GRAPH) -> None:
        self.executor = executor
        self.calls = calls  # their buffers must live as long as the graphs
        self.steps_per_graph = steps_per_graph
        self._single = executor.record(calls, 1)
        self._many: Any = None

    def run(self, steps: int) -> None:
        """Repeat the calls ``steps`` times; returns before the GPU is done."""
        checks.integer("steps", steps, 0)
        graphs, singles = divmod(steps, self.steps_per_graph)
        if graphs and self._many is None:
            self._many = self.executor.record(self.calls, self.steps_per_graph)
        with self.executor.device:
            for _ in range(graphs):
                self._many.launch(self.executor.stream)
            for _ in range(singles):
                self._single.launch(self.executor.stream)


class PinnedReader:
    """Copies of ``buffer`` that the stream makes in its turn. See :class:`minigen.backend.Reader`.

    Wait for the last copy before this object goes: its memory then goes to others.
    """

    def __init__(self, executor: DeviceExecutor, buffer: Array) -> None:
        self.executor, self.buffer = executor, buffer
        with executor.device:
            pinned = executor.cupy.cuda.alloc_pinned_memory(buffer.nbytes)
            self.event = executor.cupy.cuda.Event(disable_timing=True)
        self.host = np.frombuffer(pinned, buffer.dtype, buffer.size).reshape(buffer.shape)

    def begin(self) -> None:
        """Ask for a copy after the work that is on the stream."""
        runtime, stream = self.executor.cupy.cuda.runtime, self.executor.stream
        with self.executor.device, self.executor.reporting():
            addresses = self.host.ctypes.data, self.executor.address(self.buffer)
            runtime.memcpyAsync(*addresses, self.host.nbytes, runtime.memcpyDeviceToHost, stream.ptr)
            self.event.record(stream)

    def get(self) -> np.ndarray:
        """The last copy, which the next one overwrites. Raises DeviceError where the work before it failed."""
        with self.executor.device, self.executor.reporting():
            self.event.synchronize()
        return self.host


def _scalar_or_buffer(argument: Any) -> Any:
    """Triton's int is int32 and its float float32; CuPy would pass them as 64 bits."""
    if isinstance(argument, int):
        return np.int32(argument)
    return np.float32(argument) if isinstance(argument, float) else argument


def _gib(nbytes: int) -> str:
    return f"{nbytes / GIB:.2f} GiB" if nbytes >= GIB // 100 else f"{nbytes / 2**20:.2f} MiB"
