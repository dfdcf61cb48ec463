"""From kernels to binaries: Triton ahead of time, CUDA C++ through NVRTC, both kept in the cache on disk.

``triton.compile`` needs neither a GPU nor PyTorch. Its cubin takes the non-constexpr parameters in their order and then
two pointers, to scratch memory for the grid and for a profiler.
"""

from __future__ import annotations

import functools
import importlib
import pkgutil
import tempfile
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from minigen.cuda import cache, dispatch, sources
from minigen.cuda.cache import Binary
from minigen.cuda.launch import ALIGNMENT, Executor, Launch, aligned, signature
from minigen.errors import DeviceError

OLDEST_ARCHITECTURE = 80
OLDEST_TRITON = (3, 6)
NVRTC_OPTIONS = ("-std=c++17", "-diag-suppress=1675")  # 1675: GCC's unroll pragma

_lock = threading.Lock()
_binaries: dict[str, Binary] = {}  # of this process, by key


@dataclass(frozen=True)
class TritonBuild:
    """One compilation of a Triton kernel: everything that its cubin depends on but the version of Triton.

    ``signature`` and ``constexprs`` are as ``ASTSource`` takes them, by parameter; ``aligned`` the positions of the
    parameters that are known to be multiples of 16 bytes.
    """

    function: Any
    signature: Mapping[str, str]
    constexprs: Mapping[str, Any]
    aligned: Sequence[int]
    num_warps: int
    num_stages: int
    architecture: int

    @property
    def options(self) -> dict[str, Any]:
        """For ``triton.compile``. Fused multiply-add is named because its default differs between versions."""
        return {"num_warps": self.num_warps, "num_stages": self.num_stages, "num_ctas": 1, "enable_fp_fusion": True}

    @functools.cached_property
    def key(self) -> str:
        """Of the entry in the cache."""
        import triton

        return cache.key_of(
            language="triton",
            triton=triton.__version__,
            source=source_of(self.function),
            signature=dict(self.signature),
            constexprs={name: getattr(value, "cache_key", repr(value)) for name, value in self.constexprs.items()},
            aligned=list(self.aligned),
            options=self.options,
            architecture=self.architecture,
        )


def source_of(function: Any) -> Any:
    """What stands for a kernel's source in a key, the same in every process.

    Triton's own ``cache_key`` is not: 3.6 puts constants of one name in the order of their modules' addresses.
    """
    if function.fn not in dispatch.WRITTEN:
        return function.cache_key
    _, text, functions = dispatch.WRITTEN[function.fn]
    return [text, [(part.fn.__module__, part.fn.__name__) for part in functions], kernels_digest()]


@functools.cache
def kernels_digest() -> str:
    """Of all kernels as this process has them, and of the constants in their modules."""
    from triton.language import constexpr

    from minigen.cuda import kernels

    facts: dict[str, dict[str, str]] = {}
    for found in pkgutil.iter_modules(kernels.__path__):
        module = importlib.import_module(f"{kernels.__name__}.{found.name}")
        facts[found.name] = {
            name: getattr(value, "src", repr(value))
            for name, value in vars(module).items()
            if hasattr(value, "src") or (isinstance(value, constexpr | int | float | str) and not name.startswith("__"))
        }
    return cache.key_of(**facts)


def build_of(launch: Launch, executor: Executor) -> TritonBuild:
    """What has to be compiled for a Triton launch on the executor's architecture and on its buffers' addresses."""
    function = launch.kernel.source
    names = function.arg_names
    addresses = [executor.address(a) if isinstance(a, executor.array_type) else None for a in launch.args]
    return TritonBuild(
        function,
        signature(launch, names),
        launch.constexprs,
        tuple(aligned(launch, names, addresses)),
        launch.num_warps,
        launch.num_stages,
        executor.architecture,
    )


@dataclass(frozen=True)
class Compiled:
    """A launch of a Triton kernel and what it was compiled to. Its tile may be smaller than was asked for."""

    launch: Launch
    build: TritonBuild
    binary: Binary


def compile_launches(launches: Sequence[Launch], executor: Executor) -> list[Compiled]:
    """The Triton kernels of ``launches``, each in at most ``executor.shared_limit`` bytes of shared memory.

    Where a binary takes more, the launch is compiled with fewer stages, then with a smaller tile, until it fits
    (:func:`minigen.cuda.dispatch.with_less_staged`): so it depends on nothing but the kernel, the compiler and the
    card which tile is used. Raises DeviceError where none fits, and as :func:`compile_triton`.
    """
    fitting = list(launches)
    while True:
        builds = [build_of(launch, executor) for launch in fitting]
        binaries = compile_triton(builds)
        too_large = [i for i, binary in enumerate(binaries) if binary.shared > executor.shared_limit]
        if not too_large:
            return [Compiled(*parts) for parts in zip(fitting, builds, binaries, strict=True)]
        for i in too_large:
            smaller = dispatch.with_less_staged(fitting[i])
            if smaller is None:
                raise DeviceError(
                    f"kernel {binaries[i].entry} wants {binaries[i].shared} bytes of shared memory a block, also with "
                    f"the smallest tile, and this sm_{executor.architecture} has {executor.shared_limit}"
                )
            fitting[i] = smaller


def compile_triton(builds: Sequence[TritonBuild]) -> list[Binary]:
    """The binaries of ``builds``, each from memory, else from disk, else compiled, several at once where that pays.

    Raises DeviceError for an architecture older than sm_80 or a Triton that cannot compile here.
    """
    for build in builds:
        _check(build)
    keys = [build.key for build in builds]
    missing = {key: build for key, build in zip(keys, builds, strict=True) if not _find(key)}
    if missing:
        with _lock, tempfile.TemporaryDirectory(prefix="minigen-triton-") as scratch:
            _compile_missing(missing, scratch)
    return [_binaries[key] for key in keys]


def _check(build: TritonBuild) -> None:
    if build.architecture < OLDEST_ARCHITECTURE:
        oldest = f"sm_{OLDEST_ARCHITECTURE} (Ampere)"
        raise DeviceError(f"minigen's kernels need {oldest} or newer, not sm_{build.architecture}")
    if not hasattr(build.function, "cache_key"):
        raise DeviceError("Triton's kernels cannot be compiled while TRITON_INTERPRET is set: unset it")


def _find(key: str) -> bool:
    if key not in _binaries:
        binary = cache.load(key)
        if binary:
            _binaries[key] = binary
    return key in _binaries


def _compile_missing(missing: Mapping[str, TritonBuild], scratch: str) -> None:
    """Triton's own cache does not notice a damaged entry: it gets the empty folder, and this module keeps the results.

    Kernels that were not written for jobs cannot be sent to another process and are compiled in this one.
    """
    from triton import knobs

    from minigen.cuda import processes

    sent = {key: build for key, build in missing.items() if build.function.fn in dispatch.WRITTEN}
    count = processes.wanted(len(sent))
    here = {key: build for key, build in missing.items() if not count or key not in sent}
    if count:
        processes.compile_all(sent, count, scratch, _keep)
    with knobs.cache.scope():
        knobs.cache.dir = scratch
        for key, build in here.items():
            _keep(key, binary_of(translate(build)))


def _keep(key: str, binary: Binary) -> None:
    _binaries[key] = binary
    cache.store(key, binary)


def translate(build: TritonBuild) -> Any:
    """Triton's own record of a compilation: ``asm`` has the cubin and what came before it, ``metadata`` the facts."""
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    attributes = {(i,): [["tt.divisibility", ALIGNMENT]] for i in build.aligned}
    source = ASTSource(build.function, dict(build.signature), dict(build.constexprs), attributes)
    return triton.compile(source, target=GPUTarget("cuda", build.architecture, 32), options=build.options)


def binary_of(compiled: Any) -> Binary:
    """What is kept of :func:`translate`'s record."""
    facts = compiled.metadata
    return Binary(facts.name, compiled.asm["cubin"], 32 * facts.num_warps, facts.shared, facts.global_scratch_size)


def compile_cuda(file: str, function: str, architecture: int) -> Binary:
    """A function of ``csrc/cuda/file``: from the cache, else through NVRTC.

    Raises DeviceError with the compiler's log where NVRTC is missing or fails.
    """
    from cupy.cuda import nvrtc

    text = sources.expanded(file)
    try:
        version = nvrtc.getVersion()
    except RuntimeError as error:
        remedy = "pip install nvidia-cuda-nvrtc"
        raise DeviceError(f"{file} must be compiled, but NVRTC is missing ({error}): {remedy}") from error
    key = cache.key_of(language="cuda", nvrtc=version, source=text, options=NVRTC_OPTIONS, architecture=architecture)
    if not _find(key):
        _binaries[key] = Binary(file, _nvrtc(text, file, architecture))
        cache.store(key, _binaries[key])
    return Binary(function, _binaries[key].code)


def _nvrtc(text: str, file: str, architecture: int) -> bytes:
    from cupy.cuda import nvrtc

    program = nvrtc.createProgram(text, file, (), ())
    try:
        nvrtc.compileProgram(program, (*NVRTC_OPTIONS, f"-arch=sm_{architecture}"))
        return nvrtc.getCUBIN(program)
    except nvrtc.NVRTCError as error:
        log = nvrtc.getProgramLog(program)
        raise DeviceError(f"NVRTC could not compile {file} for sm_{architecture}: {log}") from error
    finally:
        nvrtc.destroyProgram(program)
