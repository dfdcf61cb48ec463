"""A pretended GPU below the real CuPy and the real cuda-bindings: the functions of CUDA's driver and runtime.

``python tests/pretended_gpu.py FOLDER computes`` makes processes in which CuPy is the installed one. The runtime inside
of it (its symbols tell where) and ``libcuda.so.1`` jump to the functions here. The GPU's memory is the host's, and
kernels are PTX, which ptx/ runs. So what minigen hands to CuPy and cuda-bindings must be what these and CUDA take: the
types of arguments, streams, parameters in memory, contexts of threads. Work is done when somebody waits for it and no
sooner, as late as CUDA allows.
"""

from __future__ import annotations

import atexit
import ctypes
import mmap
import os
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

POINTER, INT, UINT, SIZE, LONG = ctypes.c_void_p, ctypes.c_int, ctypes.c_uint, ctypes.c_size_t, ctypes.c_ulonglong
INVALID, NO_CONTEXT, ILLEGAL, NOT_PERMITTED, UNSUPPORTED, OUT_OF_MEMORY = 1, 201, 700, 800, 801, 2
CAPTURE_UNSUPPORTED = 900
ATTRIBUTES = {75: 9, 76: 0, 97: 232448, 16: 132, 13: 1_980_000, 36: 2_619_000, 37: 5120, 38: 50 * 2**20}
TOTAL = 4 * 2**30
PROGRAMMATIC = 6
ON_DEMAND_SHARED = 48 * 1024
SIZES = {"b8": 1, "u8": 1, "s8": 1, "b16": 2, "u16": 2, "b32": 4, "u32": 4, "s32": 4, "f32": 4}

DRIVER: dict[str, tuple[Any, ...]] = {}
RUNTIME: dict[str, tuple[Any, ...]] = {}


class Refused(Exception):
    """A call returns this error."""

    def __init__(self, status: int, why: str) -> None:
        super().__init__(why)
        self.status = status


def driver(*types: Any) -> Callable[[Any], Any]:
    return _enter(DRIVER, types)


def runtime(*types: Any) -> Callable[[Any], Any]:
    return _enter(RUNTIME, types)


def _enter(table: dict[str, tuple[Any, ...]], types: tuple[Any, ...]) -> Callable[[Any], Any]:
    def enter(function: Any) -> Any:
        table[function.__name__] = (function, types)
        return function

    return enter


@dataclass
class Kernel:
    """A function of a module: PTX, and the bytes of shared memory that it may be launched with."""

    name: str
    code: Any
    most_shared: int = ON_DEMAND_SHARED


class Gpu:
    """What the functions work on."""

    def __init__(self) -> None:
        self.memory: dict[int, np.ndarray] = {}
        self.pinned: dict[int, np.ndarray] = {}
        self.things: dict[int, Any] = {}  # modules, kernels, streams, events, graphs by handle
        self.handles = iter(range(0x1000, 2**62, 16))
        self.queue: list[tuple[Any, ...]] = []  # work in its order, of all streams
        self.capturing: dict[int, list[tuple[Any, ...]]] = {}  # by stream
        self.lost = False
        self.thread = threading.local()
        self.launched = self.dependent = 0  # launches, and of those that are captured the dependent ones

    def new(self, thing: Any) -> int:
        handle = next(self.handles)
        self.things[handle] = thing
        return handle

    def put(self, stream: int, *work: Any) -> None:
        """Behind what the stream has to do, or into the graph that it is captured for."""
        if stream in self.capturing:
            if work[0] != "launch":
                raise Refused(CAPTURE_UNSUPPORTED, f"{work[0]} during graph capture")
            self.capturing[stream].append(work)
        else:
            self.queue.append(work)

    def wait(self, until: int | None = None) -> None:
        """Do the work, up to the event ``until``."""
        if self.capturing:
            raise Refused(CAPTURE_UNSUPPORTED, "the host waits during graph capture")
        if until is not None and ("event", until) not in self.queue:
            return
        while self.queue:
            work = self.queue.pop(0)
            if not self.lost:
                self._do(work)
            if work == ("event", until):
                break
        if self.lost:
            raise Refused(ILLEGAL, "the GPU is lost to this process")

    def _do(self, work: tuple[Any, ...]) -> None:
        try:
            if work[0] == "copy":
                ctypes.memmove(*work[1:])
            elif work[0] == "launch":
                self._run(*work[1:])
            elif work[0] == "graph":
                for each in work[1]:
                    self._run(*each[1:])
        except Exception:
            traceback.print_exc()
            self.lost = True

    def _run(self, kernel: Kernel, grid: tuple[int, ...], threads: int, shared: int, values: Sequence[int]) -> None:
        from ptx.machine import run

        self.launched += 1
        if fault(self.launched):
            raise RuntimeError("a fault that was asked for")
        order = np.random.default_rng().permutation(grid[0] * grid[1])
        run(kernel.code, order, values, threads, shared, grid[:2], list(self.memory.values()))

    def room(self, address: int, size: int, tables: Sequence[dict[int, np.ndarray]], what: str) -> None:
        """Raise unless these bytes lie in an allocation of one of ``tables``."""
        for table in tables:
            for start, array in table.items():
                if start <= address and address + size <= start + len(array):
                    return
        raise Refused(INVALID, f"{what} of {size} bytes at {address:#x} lies in no allocation of its kind")

    def launch(
        self, function: int, grid: tuple[int, ...], block: tuple[int, ...], shared: int, stream: int, parameters: int
    ) -> None:
        if not getattr(self.thread, "context", False):
            raise Refused(NO_CONTEXT, "a launch in a thread without a context")
        kernel = self.things[function]
        assert isinstance(kernel, Kernel), "no kernel"
        if min(*grid, *block) < 1 or np.prod(block) > 1024 or grid[1] > 65535 or grid[2] > 1 or block[1:] != (1, 1):
            raise Refused(INVALID, f"grid {grid} of blocks {block}")
        if shared > kernel.most_shared:
            raise Refused(INVALID, f"{shared} bytes of shared memory, and {kernel.most_shared} are allowed")
        if not isinstance(self.things.get(stream), str):
            raise Refused(INVALID, f"{stream:#x} is no stream of ours")
        pointers = (POINTER * len(kernel.code.parameters)).from_address(parameters)
        values = []
        for pointer, (_, kind) in zip(pointers, kernel.code.parameters, strict=True):
            size = SIZES.get(kind, 8)
            values.append(int.from_bytes(ctypes.string_at(pointer, size), "little"))
        self.put(stream, "launch", kernel, grid, block[0], shared, values)


gpu = Gpu()


def _context() -> None:
    """The runtime makes the device's context that of the calling thread."""
    gpu.thread.context = True
    if gpu.lost:
        raise Refused(ILLEGAL, "the GPU is lost to this process")


def _set(pointer: int, kind: Any, value: Any) -> None:
    kind.from_address(pointer).value = value


def fault(launched: int) -> bool:
    """Do what the file asks for with this launch; whether the GPU is lost."""
    path = Path(os.environ.get("PRETENDED_FAULT", "nowhere"))
    word, _, number = path.read_text().partition(" ") if path.exists() else ("", "", "")
    if not word or launched < int(number):
        return False
    path.unlink()
    if word == "crash":
        os._exit(139)
    if word == "hang":
        time.sleep(1000)
    return True


# --- driver -----------------------------------------------------------------------------------------------------------


@driver(UINT)
def cuInit(flags: int) -> None: ...


@driver(INT, POINTER)
def cuGetErrorName(status: int, text: int) -> None:
    _set(text, POINTER, ctypes.addressof(_text(status)))


@driver(INT, POINTER)
def cuGetErrorString(status: int, text: int) -> None:
    _set(text, POINTER, ctypes.addressof(_text(status)))


_texts: dict[int, Any] = {}


def _text(status: int) -> Any:
    return _texts.setdefault(status, ctypes.create_string_buffer(f"error {status}".encode()))


@driver(POINTER, POINTER, INT, LONG, POINTER)
def cuGetProcAddress_v2(name: int, target: int, version: int, flags: int, status: int) -> None:
    text = ctypes.string_at(name).decode()
    _set(target, POINTER, _addresses.get(text) or _addresses.get(text + "_v2"))


@driver(POINTER, POINTER)
def cuModuleLoadData(module: int, image: int) -> None:
    from ptx.code import Code

    if not getattr(gpu.thread, "context", False):
        raise Refused(NO_CONTEXT, "a module in a thread without a context")
    if gpu.capturing:
        raise Refused(CAPTURE_UNSUPPORTED, "a module is loaded during graph capture")
    text = ctypes.string_at(image).decode()
    if ".entry" not in text:
        raise Refused(200, "no image")
    _set(module, POINTER, gpu.new(Code(text)))
    code = gpu.things[_get(module, POINTER)]
    code.name = text.partition(".entry")[2].partition("(")[0].strip()


def _get(pointer: int, kind: Any) -> Any:
    return kind.from_address(pointer).value


@driver(POINTER)
def cuModuleUnload(module: int) -> None:
    del gpu.things[module]


@driver(POINTER, POINTER, POINTER)
def cuModuleGetFunction(function: int, module: int, name: int) -> None:
    text = ctypes.string_at(name).decode()
    if gpu.things[module].name != text:
        raise Refused(500, f"the module has {gpu.things[module].name}, and no {text}")
    _set(function, POINTER, gpu.new(Kernel(text, gpu.things[module])))


@driver(POINTER, INT, INT)
def cuFuncSetAttribute(function: int, attribute: int, value: int) -> None:
    if attribute != 8 or value > ATTRIBUTES[97]:
        raise Refused(INVALID, f"attribute {attribute} = {value}")
    gpu.things[function].most_shared = value


@driver(POINTER, UINT, UINT, UINT, UINT, UINT, UINT, UINT, POINTER, POINTER, POINTER)
def cuLaunchKernel(
    f: int, gx: int, gy: int, gz: int, bx: int, by: int, bz: int, shared: int, s: int, p: int, e: int
) -> None:
    if e:
        raise Refused(INVALID, "extra")
    gpu.launch(f, (gx, gy, gz), (bx, by, bz), shared, s or 0, p)


@driver(POINTER, POINTER, POINTER, POINTER)
def cuLaunchKernelEx(config: int, function: int, parameters: int, extra: int) -> None:
    gx, gy, gz, bx, by, bz, shared = (ctypes.c_uint * 7).from_address(config)
    stream, attributes = (POINTER * 2).from_address(config + 32)
    count = _get(config + 48, UINT)
    # An attribute takes 8 bytes and 64 for its value.
    kind, value = _get(attributes, INT), _get(attributes + 8, INT)
    if extra or count != 1 or kind != PROGRAMMATIC or value != 1:
        raise Refused(INVALID, f"{count} attributes, the first {kind} = {value}")
    if stream not in gpu.capturing:
        raise Refused(INVALID, "a launch from Python does not overlap with the one before")
    gpu.dependent += 1
    gpu.launch(function, (gx, gy, gz), (bx, by, bz), shared, stream, parameters)


# --- runtime ----------------------------------------------------------------------------------------------------------


@runtime()
def cudaGetLastError() -> None: ...


@runtime(POINTER)
def cudaGetDeviceCount(count: int) -> None:
    _set(count, INT, 1)


@runtime(POINTER)
def cudaGetDevice(index: int) -> None:
    _set(index, INT, 0)


@runtime(INT)
def cudaSetDevice(index: int) -> None:
    _context()
    if index != 0:
        raise Refused(101, "no such device")


@runtime(POINTER, INT, INT)
def cudaDeviceGetAttribute(value: int, attribute: int, index: int) -> None:
    _set(value, INT, ATTRIBUTES.get(attribute, 1))


@runtime(POINTER, INT)
def cudaGetDeviceProperties(properties: int, index: int) -> None:
    name = b"Pretended GPU\0"
    ctypes.memmove(properties, name, len(name))
    _set(properties + 288, SIZE, TOTAL)


@runtime(POINTER)
def cudaDriverGetVersion(version: int) -> None:
    _set(version, INT, 13000)


@runtime(POINTER)
def cudaRuntimeGetVersion(version: int) -> None:
    _set(version, INT, 13000)


@runtime(POINTER, POINTER)
def cudaMemGetInfo(free: int, total: int) -> None:
    _context()
    _set(free, SIZE, TOTAL - sum(map(len, gpu.memory.values())))
    _set(total, SIZE, TOTAL)


@runtime(POINTER, SIZE)
def cudaMalloc(pointer: int, size: int) -> None:
    _context()
    if sum(map(len, gpu.memory.values())) + size > TOTAL:
        raise Refused(OUT_OF_MEMORY, "out of memory")
    array = np.full(size + 256, 0xFF, np.uint8)
    array = array[-array.ctypes.data % 256 :][:size]
    gpu.memory[array.ctypes.data] = array
    _set(pointer, POINTER, array.ctypes.data)


@runtime(POINTER)
def cudaFree(pointer: int | None) -> None:
    if pointer:
        gpu.wait()
        del gpu.memory[pointer]


@runtime(POINTER, SIZE, UINT)
def cudaHostAlloc(pointer: int, size: int, flags: int) -> None:
    _context()
    array = np.full(size, 0xFF, np.uint8)
    gpu.pinned[array.ctypes.data] = array
    _set(pointer, POINTER, array.ctypes.data)


@runtime(POINTER)
def cudaFreeHost(pointer: int) -> None:
    gpu.wait()
    del gpu.pinned[pointer]


@runtime(POINTER, POINTER, SIZE, INT, POINTER)
def cudaMemcpyAsync(to: int, source: int, size: int, kind: int, stream: int) -> None:
    _context()
    sides = {1: (gpu.memory, gpu.pinned), 2: (gpu.pinned, gpu.memory), 3: (gpu.memory, gpu.memory)}[kind]
    gpu.room(to, size, [sides[0]], "the target")
    gpu.room(source, size, [sides[1]], "the source")
    if not isinstance(gpu.things.get(stream), str):
        raise Refused(INVALID, "a copy on no stream of ours")
    gpu.put(stream, "copy", to, source, size)


@runtime(POINTER, POINTER)
def cudaPointerGetAttributes(attributes: int, pointer: int) -> None:
    gpu.room(pointer, 1, [gpu.memory], "a pointer")
    _set(attributes, INT, 2)  # device memory
    _set(attributes + 4, INT, 0)


@runtime(POINTER, UINT)
def cudaStreamCreateWithFlags(stream: int, flags: int) -> None:
    _context()
    assert flags == 1, "a blocking stream waits for the default one"
    _set(stream, POINTER, gpu.new("stream"))


@runtime(POINTER, UINT, INT)
def cudaStreamCreateWithPriority(stream: int, flags: int, priority: int) -> None:
    cudaStreamCreateWithFlags(stream, flags)


@runtime(POINTER, POINTER)
def cudaStreamGetPriority(stream: int, priority: int) -> None:
    _set(priority, INT, 0)


@runtime(POINTER)
def cudaStreamDestroy(stream: int) -> None:
    del gpu.things[stream]


@runtime(POINTER)
def cudaStreamSynchronize(stream: int) -> None:
    _context()
    gpu.wait()


@runtime()
def cudaDeviceSynchronize() -> None:
    _context()
    gpu.wait()


@runtime(POINTER, INT)
def cudaStreamBeginCapture(stream: int, mode: int) -> None:
    _context()
    if gpu.capturing:
        raise Refused(CAPTURE_UNSUPPORTED, "a second capture")
    gpu.capturing[stream] = []


@runtime(POINTER, POINTER)
def cudaStreamEndCapture(stream: int, graph: int) -> None:
    _set(graph, POINTER, gpu.new(("graph", gpu.capturing.pop(stream))))


@runtime(POINTER, POINTER)
def cudaStreamIsCapturing(stream: int, status: int) -> None:
    _set(status, INT, int(stream in gpu.capturing))


@runtime(POINTER, POINTER, UINT)
def cudaStreamWaitEvent(stream: int, event: int, flags: int) -> None:
    _context()


@runtime(POINTER, POINTER, LONG)
def cudaGraphInstantiate(executable: int, graph: int, flags: int) -> None:
    _set(executable, POINTER, gpu.new(gpu.things[graph]))


@runtime(POINTER)
def cudaGraphDestroy(graph: int) -> None:
    del gpu.things[graph]


@runtime(POINTER)
def cudaGraphExecDestroy(graph: int) -> None:
    del gpu.things[graph]


@runtime(POINTER, POINTER)
def cudaGraphUpload(graph: int, stream: int) -> None:
    assert gpu.things[graph][0] == "graph" and gpu.things[stream] == "stream"


@runtime(POINTER, POINTER)
def cudaGraphLaunch(graph: int, stream: int) -> None:
    _context()
    assert gpu.things[stream] == "stream"
    gpu.put(stream, *gpu.things[graph])


@runtime(POINTER, UINT)
def cudaEventCreateWithFlags(event: int, flags: int) -> None:
    _context()
    _set(event, POINTER, gpu.new(("timed", not flags & 2)))


@runtime(POINTER)
def cudaEventDestroy(event: int) -> None:
    del gpu.things[event]


@runtime(POINTER, POINTER)
def cudaEventRecord(event: int, stream: int | None) -> None:
    _context()
    if stream in gpu.capturing:
        raise Refused(CAPTURE_UNSUPPORTED, "an event during graph capture")
    gpu.queue[:] = [work for work in gpu.queue if work != ("event", event)]
    gpu.queue.append(("event", event))


@runtime(POINTER)
def cudaEventQuery(event: int) -> None: ...


@runtime(POINTER)
def cudaEventSynchronize(event: int) -> None:
    _context()
    gpu.wait(event)


@runtime(POINTER, POINTER, POINTER)
def cudaEventElapsedTime(milliseconds: int, begin: int, end: int) -> None:
    if not (gpu.things[begin][1] and gpu.things[end][1]):
        raise Refused(INVALID, "an event without timing")
    _set(milliseconds, ctypes.c_float, 2.0)


@runtime()
def cudaProfilerStart() -> None: ...


@runtime()
def cudaProfilerStop() -> None: ...


# --- in their places --------------------------------------------------------------------------------------------------

KEPT = ("cudaGetErrorName", "cudaGetErrorString", "cudaCreateChannelDesc")
NOTHING = "int nothing(void) { return 0; }\n"
SOURCE = 'void *to_{0}; __attribute__((naked)) void {0}(void) {{ __asm__("jmp *to_{0}(%rip)"); }}\n'
_addresses: dict[str, int] = {}
_alive: list[Any] = []
_patched: list[int] = []


def library(folder: Path) -> None:
    """``libcuda.so.1``, whose functions jump to where :func:`install` says."""
    source = folder / "driver.c"
    source.write_text(NOTHING + "".join(SOURCE.format(name) for name in DRIVER))
    target = str(folder / "libcuda.so.1")
    subprocess.run(["cc", "-shared", "-fPIC", "-Wl,-Bsymbolic", "-o", target, str(source)], check=True)


def _closure(name: str, function: Any, types: tuple[Any, ...]) -> int:
    def call(*arguments: Any) -> int:
        try:
            function(*arguments)
            return 0
        except Refused as error:
            print(f"pretended driver: {name}: {error}", file=sys.stderr, flush=True)
            return error.status
        except Exception:
            traceback.print_exc()
            return UNSUPPORTED

    closure = ctypes.CFUNCTYPE(INT, *types)(call)
    _alive.append(closure)
    return ctypes.cast(closure, POINTER).value or 0


def _missing(name: str) -> Any:
    def function() -> None:
        raise Refused(UNSUPPORTED, "not pretended")

    return function


def install() -> Any:
    """CuPy on the pretended GPU."""
    found = ctypes.CDLL("libcuda.so.1")
    for name, (function, types) in DRIVER.items():
        _addresses[name] = _closure(name, function, types)
        POINTER.in_dll(found, f"to_{name}").value = _addresses[name]
    import cupy
    from cupy_backends.cuda.api import runtime as inner

    redirect(inner.__file__)
    atexit.register(_end)
    return cupy


def redirect(path: str) -> None:
    """Let every function of the CUDA runtime in a loaded library jump to one of ours."""
    with open("/proc/self/maps") as maps:
        base = next(int(line.split("-")[0], 16) for line in maps if line.rstrip().endswith(path))
    libc = ctypes.CDLL(None, use_errno=True)
    symbols = subprocess.run(["nm", path], capture_output=True, text=True, check=True).stdout
    for line in symbols.splitlines():
        offset, kind, name = line.split()[-3:] if len(line.split()) == 3 else ("", "", "")
        if kind not in ("t", "T") or not name.startswith("cuda") or not name[4:5].isupper() or name in KEPT:
            continue
        function, types = RUNTIME.get(name) or (_missing(name), ())
        place = base + int(offset, 16)
        page = place & ~(mmap.PAGESIZE - 1)
        if libc.mprotect(POINTER(page), SIZE(place + 16 - page), mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC):
            raise OSError(ctypes.get_errno(), "mprotect")
        jump = b"\x48\xb8" + _closure(name, function, types).to_bytes(8, "little") + b"\xff\xe0"
        ctypes.memmove(place, jump, len(jump))
        _patched.append(place)


def _end() -> None:
    """Python ends: what is freed from now on must not come back to it."""
    found = ctypes.CDLL("libcuda.so.1")
    for name in DRIVER:
        POINTER.in_dll(found, f"to_{name}").value = ctypes.cast(found.nothing, POINTER).value
    for place in _patched:
        ctypes.memmove(place, b"\x31\xc0\xc3", 3)  # return 0
