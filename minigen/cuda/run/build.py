"""The compilation of one Triton kernel, ahead of time, and its key in the cache.

``triton.compile`` needs neither a GPU nor PyTorch. Its cubin takes the non-constexpr parameters in their order and then
two pointers, to scratch memory for the grid and for a profiler.
"""

from __future__ import annotations

import functools
import importlib
import pkgutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from minigen.cuda.plan.codegen import GENERATED
from minigen.cuda.plan.launch import ALIGNMENT, Executor, Launch, aligned, signature
from minigen.cuda.run import cache
from minigen.cuda.run.cache import Binary

OLDEST_ARCHITECTURE = 80
OLDEST_TRITON = (3, 6)


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
    if function.fn not in GENERATED:
        return function.cache_key
    generated = GENERATED[function.fn]
    return [generated.text, generated.references(), kernels_digest()]


@functools.cache
def kernels_digest() -> str:
    """Of all kernels as this process has them, of the constants and of the argument types in their modules."""
    from triton.language import constexpr

    from minigen.cuda import kernels

    facts: dict[str, dict[str, str]] = {}
    for found in pkgutil.iter_modules(kernels.__path__):
        module = importlib.import_module(f"{kernels.__name__}.{found.name}")
        of_module = facts[found.name] = {}
        for name, value in vars(module).items():
            if hasattr(value, "src"):
                of_module[name] = value.src
            elif hasattr(value, "_fields"):
                of_module[name] = repr(value._fields)
            elif isinstance(value, constexpr | int | float | str) and not name.startswith("__"):
                of_module[name] = repr(value)
    return cache.key_of(**facts)


def build_of(launch: Launch, executor: Executor) -> TritonBuild:
    """What has to be compiled for a Triton launch on the executor's architecture and on its buffers' addresses."""
    function = launch.source
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
