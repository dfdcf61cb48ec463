"""A GAN's and a VAE's training on a stand-in for CuPy, with kernels compiled for sm_90: run as a script of its own.

It needs Triton's compiler where other tests need its interpreter, and a process can have only one of them. The cubins
say what parameters they take, by size: the launches must pass exactly these.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import triton
from fake_cupy import FakeCupy, bindings

sys.modules["cupy"] = fake = FakeCupy()
sys.modules.update(bindings(fake))

from minigen.cuda.backend import CudaBackend  # noqa: E402
from minigen.cuda.run import compiler, driver  # noqa: E402
from minigen.cuda.run.device import STEPS_PER_GRAPH  # noqa: E402
from minigen.cuda.tools.explain import schedule_of  # noqa: E402

CUOBJDUMP = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"


def parameter_sizes(code: bytes, folder: Path) -> list[int]:
    """Bytes of each parameter of a cubin's kernel, in order."""
    path = folder / "kernel.cubin"
    path.write_bytes(code)
    text = subprocess.run([CUOBJDUMP, "-elf", path], capture_output=True, text=True, check=True).stdout
    found = re.findall(r"EIATTR_KPARAM_INFO.*?Ordinal : (0x\w+).*?Size    : (0x\w+)", text, re.DOTALL)
    return [int(size, 16) for _, size in sorted((int(ordinal, 16), size) for ordinal, size in found)]


def sizes_of(arguments: tuple[Any, ...]) -> list[int]:
    """What CuPy passes: 8 bytes of address for an array, a NumPy scalar's own bytes."""
    return [8 if isinstance(a, fake.ndarray) else a.itemsize for a in arguments]


def main(folder: Path) -> None:
    driver._has_driver = lambda: True
    ops = CudaBackend()
    for model in ("gan", "vae"):
        schedule = schedule_of(model, ops, 784, {"device": "cuda"})
        calls = ops.executor.prepare(schedule.launches)
        compiled = ops.executor.compile(schedule.launches)
        for launch, call, (_, binary) in zip(schedule.launches, calls, compiled, strict=True):
            _, threads, arguments = call.args
            assert sizes_of(arguments) == parameter_sizes(binary.code, folder), launch.name
            assert threads[0] == 32 * launch.num_warps and call.keywords["shared_mem"] == binary.shared
        fake.launches.clear()
        fake.dependent.clear()
        before = fake.allocations
        ops.executor.capture(schedule.launches).run(70)
        assert len(fake.launches) == 70 * len(schedule.launches)
        assert len(fake.dependent) == (1 + STEPS_PER_GRAPH) * len(schedule.launches)
        assert fake.allocations == before, "a training step allocates nothing"
        print(f"{model}: {len(schedule.launches)} launches a step, {len(compiled)} kernels")
    assert compiler._binaries and "torch" not in sys.modules
    step = ops.executor.upload(np.zeros(1, np.uint64))
    ops.random_normal(ops.empty((3, 5)), 2**32 - 1, 0, step)  # a seed beyond int32


main(Path(sys.argv[1]))
