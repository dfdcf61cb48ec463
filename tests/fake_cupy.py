"""A stand-in for the part of CuPy that minigen.cuda uses, on host memory: it records launches and replays graphs.

It checks what the real one leaves to the GPU: that launches go to a stream that is not the default one, that nothing is
allocated, synchronized or copied while a stream is being captured, and that kernels get NumPy scalars of a fixed width.
Kernels run when they are launched, but what is copied to the host arrives only when somebody waits for it.
:func:`bindings` is what minigen.cuda uses of cuda-bindings beside it.
"""

from __future__ import annotations

import ctypes
import types
import weakref
from collections.abc import Callable
from importlib.machinery import ModuleSpec
from typing import Any

import numpy as np


class FakeRuntimeError(RuntimeError):
    def __init__(self, status: int) -> None:
        super().__init__(f"cuda error {status}")
        self.status = status


class FakeDriverError(RuntimeError):
    pass


class Address(int):
    """A number that knows what lies there: see :func:`bindings`."""

    def of(self, what: Any) -> Address:
        self.what = weakref.ref(what)
        return self


class Array(np.ndarray):
    """``data.ptr`` and a constructor as in CuPy; everything else is NumPy."""

    gpu = 0

    def __new__(cls, shape: tuple[int, ...], dtype: Any, memptr: Any) -> Array:
        nbytes = int(np.prod(shape)) * np.dtype(dtype).itemsize
        raw = (ctypes.c_uint8 * max(nbytes, 1)).from_address(memptr.ptr)
        raw.owner = memptr
        array = np.frombuffer(raw, np.uint8)[:nbytes].view(dtype).reshape(shape).view(cls)
        array.gpu = memptr.mem.gpu
        return array

    def __array_finalize__(self, source: Any) -> None:
        self.gpu = getattr(source, "gpu", 0)

    @property
    def data(self) -> Any:  # type: ignore[override]
        return types.SimpleNamespace(ptr=Address(self.__array_interface__["data"][0]).of(self))

    def __dlpack_device__(self) -> tuple[int, int]:
        return 2, self.gpu


class FakeCupy(types.ModuleType):
    """``launches`` lists what ran, as (name, grid, block, args, shared); ``effects`` gives kernels something to do.

    New memory is full of the byte ``fill``, of which NaN is made.
    """

    __version__ = "14.2.0"

    def __init__(
        self, memory: int = 2**30, gpus: int = 1, capability: str = "90", driver: int = 13000, fill: int = 0xFF
    ) -> None:
        super().__init__("cupy")
        self.fill = fill
        self.total, self.used = memory, 0
        self.allocations = 0
        self.launches: list[tuple[Any, ...]] = []
        self.graphs = 0
        self.dependent: list[str] = []  # names of the kernels that were captured as programmatic dependent launches
        self.attributes: list[tuple[Any, ...]] = []
        self.effects: dict[str, Callable[..., None]] = {}
        self.capturing: Any = None
        self.devices: list[int] = []  # that were entered, the innermost last
        self.current: list[Any] = []  # the streams that were entered, the innermost last
        self.waits: list[tuple[Any, Any]] = []  # (stream, the one whose work it waits for)
        self.waited = 0  # times that the host waited for the GPU
        self.arriving: list[tuple[int, bytes]] = []  # copies under way: (where in the host's memory, what)
        self.arrived = 0  # copies
        self.pinned: list[np.ndarray] = []  # all that was asked for; what is under way may still arrive there
        self.ndarray = Array
        self.cuda = self._cuda(gpus, capability, driver)

    def ascontiguousarray(self, array: Any, dtype: Any = None) -> Any:
        found = np.ascontiguousarray(array, dtype).view(Array)
        found.gpu = array.gpu
        return found

    def empty(self, shape: tuple[int, ...], dtype: Any) -> Any:
        """From CuPy's own memory pool, which is not counted here; NaN, as poison."""
        raw = np.full(int(np.prod(shape)) * np.dtype(dtype).itemsize, 0xFF, np.uint8)
        array = raw.view(dtype).reshape(shape).view(Array)
        array.gpu = self.devices[-1] if self.devices else 0
        return array

    def isfinite(self, array: Any) -> Any:
        return np.isfinite(array)

    def from_dlpack(self, array: Any) -> Any:
        found = np.asarray(array.memory).view(Array)
        found.gpu = array.__dlpack_device__()[1]
        return found

    def idle(self, what: str) -> None:
        """Raise as CUDA would for something that may not happen during a capture."""
        if self.capturing is not None:
            raise AssertionError(f"{what} during graph capture")

    def arrive(self, copies: int) -> None:
        """The host waits for a number of the copies under way."""
        self.idle("synchronization")
        self.waited += 1
        for to, content in self.arriving[:copies]:
            ctypes.memmove(to, content, len(content))
        del self.arriving[:copies]
        self.arrived += copies

    def alloc_pinned(self, nbytes: int) -> np.ndarray:
        self.pinned.append(np.full(nbytes, 0xFF, np.uint8))
        return self.pinned[-1]

    def _cuda(self, gpus: int, capability: str, driver: int) -> types.SimpleNamespace:
        fake = self

        class BaseStream:
            ptr = 0

            def __enter__(self) -> Any:
                fake.current.append(self)
                return self

            def __exit__(self, *error: Any) -> None:
                assert fake.current.pop() is self

            def record(self) -> Any:
                return self

            def wait_event(self, event: Any) -> None:
                fake.idle("waiting for an event from outside")
                fake.waits.append((self, event))

        default = BaseStream()

        class Memory:
            def __init__(self, size: int) -> None:
                fake.idle("cudaMalloc")
                if fake.used + size > fake.total:
                    raise FakeRuntimeError(2)
                self.storage = np.zeros(size + 256, np.uint8)  # takes no memory before it is used
                if fake.fill:
                    self.storage[:] = fake.fill
                self.ptr = self.storage.ctypes.data + -self.storage.ctypes.data % 256
                self.size, self.gpu = size, fake.devices[-1] if fake.devices else 0
                fake.used += size
                fake.allocations += 1

            def __del__(self) -> None:
                if hasattr(self, "size") and fake.used:  # at the end of a process it is None
                    fake.used -= self.size

        class UnownedMemory:
            def __init__(self, ptr: int, size: int, owner: Any, device_id: int) -> None:
                self.ptr, self.size, self.owner, self.gpu = ptr, size, owner, device_id

        class MemoryPointer:
            def __init__(self, mem: Any, offset: int) -> None:
                self.mem, self.ptr = mem, mem.ptr + offset

        class Device:
            def __init__(self, index: int) -> None:
                self.index, self.compute_capability = index, capability

            def __enter__(self) -> Any:
                fake.devices.append(self.index)
                return self

            def __exit__(self, *error: Any) -> None:
                assert fake.devices.pop() == self.index

        class Stream(BaseStream):
            ptr = 7

            def __init__(self, non_blocking: bool = False) -> None:
                assert non_blocking, "a blocking stream waits for the default one"

            def begin_capture(self) -> None:
                fake.idle("a second capture")
                fake.capturing = []

            def end_capture(self) -> Any:
                recorded, fake.capturing = fake.capturing, None
                return Graph(recorded)

            def synchronize(self) -> None:
                fake.arrive(len(fake.arriving))

        class Graph:
            def __init__(self, recorded: list[Any]) -> None:
                self.recorded = recorded

            def upload(self, stream: Any) -> None:
                assert stream.ptr

            def launch(self, stream: Any) -> None:
                assert stream.ptr
                fake.graphs += 1
                for call in self.recorded:
                    fake.perform(*call)

        class Event:
            def __init__(self, disable_timing: bool = False) -> None:
                self.behind = 0  # copies asked for before it, since the beginning

            def record(self, stream: Any) -> None:
                assert stream.ptr
                self.behind = fake.arrived + len(fake.arriving)

            def synchronize(self) -> None:
                fake.arrive(max(0, self.behind - fake.arrived))

        class Function:
            @property
            def ptr(self) -> Address:
                return Address(11).of(self)

            def __init__(self, module: Any, name: str) -> None:
                self.name, self.code = name, getattr(module, "code", b"")

            def __call__(self, grid: Any, block: Any, args: Any, shared_mem: int = 0, stream: Any = None) -> None:
                assert stream.ptr, "launched on the default stream"
                assert isinstance(grid, tuple) and isinstance(block, tuple), "CuPy takes tuples"
                assert all(isinstance(a, (Array, np.generic)) for a in args), "CuPy would guess a scalar's width"
                assert 0 not in grid, "CuPy would launch one block"
                call = (self.name, grid, block, args, shared_mem, self.code)
                if fake.capturing is None:
                    fake.perform(*call)
                else:
                    fake.capturing.append(call)

        class Module:
            def load(self, code: bytes) -> None:
                fake.idle("loading a module")
                assert isinstance(code, bytes), "CuPy takes bytes"
                self.code = code
                if code == b"bad":
                    raise FakeDriverError("CUDA_ERROR_NO_BINARY_FOR_GPU")

            def get_function(self, name: str) -> Any:
                return Function(self, name)

        def memcpy_async(to: int, source: int, size: int, kind: int, stream: int) -> None:
            fake.idle("a copy")
            assert stream == Stream.ptr
            if kind == runtime.memcpyDeviceToHost:
                fake.arriving.append((to, ctypes.string_at(source, size)))
            else:
                ctypes.memmove(to, source, size)

        runtime = types.SimpleNamespace(
            CUDARuntimeError=FakeRuntimeError,
            memcpyHostToDevice=1,
            memcpyDeviceToHost=2,
            memcpyDeviceToDevice=3,
            cudaDevAttrMaxSharedMemoryPerBlockOptin=97,
            deviceGetAttribute=lambda attribute, index: 232448,
            getDeviceCount=lambda: gpus,
            getDeviceProperties=lambda index: {"name": b"Pretend GPU", "totalGlobalMem": self.total},
            driverGetVersion=lambda: driver,
            runtimeGetVersion=lambda: 13020,
            memGetInfo=lambda: (self.total - self.used, self.total),
            memcpyAsync=memcpy_async,
            profilerStart=lambda: None,
            profilerStop=lambda: None,
        )
        functions = types.SimpleNamespace(
            CUDADriverError=FakeDriverError,
            CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES=8,
            funcSetAttribute=lambda *call: self.attributes.append(call),
        )
        return types.SimpleNamespace(
            Memory=Memory,
            UnownedMemory=UnownedMemory,
            MemoryPointer=MemoryPointer,
            Device=Device,
            Stream=Stream,
            Event=Event,
            Module=Module,
            runtime=runtime,
            driver=functions,
            get_current_stream=lambda: fake.current[-1] if fake.current else default,
            get_elapsed_time=lambda begin, end: 2.0,
            alloc_pinned_memory=self.alloc_pinned,
        )

    def perform(self, name: str, grid: Any, block: Any, args: Any, shared: int, code: bytes = b"") -> None:
        self.launches.append((name, grid, block, args, shared))
        if name in self.effects:
            self.effects[name](*args)


def bindings(fake: FakeCupy) -> dict[str, types.ModuleType]:
    """The modules of cuda-bindings by name. Dependent launches go to ``fake``, and are its own if they are right."""

    class Plain:
        """A structure: any field may be set, those with fields of their own are there."""

        def __init__(self) -> None:
            self.value = types.SimpleNamespace()

    def launch(config: Any, function: Address, parameters: Any, extra: int) -> tuple[Any]:
        (attribute,) = config.attrs
        assert (config.numAttrs, attribute.id, attribute.value.programmaticStreamSerializationAllowed) == (1, 6, 1)
        assert fake.capturing is not None, "a launch from Python does not overlap with the one before"
        values = zip(*parameters, strict=True)
        arguments = [v.what() if isinstance(v, Address) else np.dtype(kind).type(v) for v, kind in values]
        assert not any(argument is None for argument in arguments), "a buffer is gone"
        grid = config.gridDimX, config.gridDimY, config.gridDimZ
        block = config.blockDimX, config.blockDimY, config.blockDimZ
        kernel = function.what()
        assert kernel is not None, "a kernel is gone"
        kernel(grid, block, tuple(arguments), config.sharedMemBytes, types.SimpleNamespace(ptr=config.hStream))
        fake.dependent.append(kernel.name)
        return (0,)

    modules = {name: types.ModuleType(name) for name in ("cuda", "cuda.bindings", "cuda.bindings.driver")}
    package, inner, driver = modules.values()
    package.bindings, inner.driver, inner.__version__ = inner, driver, "13.0.3"  # type: ignore[attr-defined]
    attributes = types.SimpleNamespace(CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_STREAM_SERIALIZATION=6)
    contents = {
        "CUlaunchAttribute": Plain,
        "CUlaunchConfig": Plain,
        "CUlaunchAttributeID": attributes,
        "CUresult": types.SimpleNamespace(CUDA_SUCCESS=0),
        "cuLaunchKernelEx": launch,
    }
    vars(driver).update(contents)
    for name, module in modules.items():
        module.__spec__ = ModuleSpec(name, None)
    return modules
