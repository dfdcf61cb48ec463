"""What the compiler makes of the Triton kernels: registers, spills and shared memory, with no GPU.

``python -m minigen.cuda.tools.report`` compiles every kernel that the article's GAN and VAE launch, fused and spelled
out, for several architectures, prints a table and fails if any kernel spills registers to memory.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import tempfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from minigen.backend import DENSE_ACTIVATIONS, Array
from minigen.cuda.backend import PRECISIONS, CudaBackend
from minigen.cuda.plan.launch import Launch
from minigen.cuda.run.build import build_of
from minigen.cuda.run.compiler import compile_launches
from minigen.cuda.tools.explain import PlanningExecutor, schedule_of
from minigen.step.record import operation

ARCHITECTURES = (80, 90, 120)
MODELS = {"gan": {"latent_dim": 100, "hidden": (128,)}, "vae": {"latent_dim": 20, "hidden": (400,)}}
"""The article's GAN and the VAE beside it, on rows of 784; the other settings are the defaults."""


@dataclass(frozen=True)
class Resources:
    """What one kernel takes on one architecture; ``shared`` and ``stack`` in bytes.

    A thread has a ``stack`` where registers are spilled to memory. ``tile`` is what was compiled, and ``reduced`` tells
    that the tile asked for took more shared memory than there is.
    """

    kernel: str
    architecture: int
    precision: str
    warps: int
    registers: int
    stack: int
    shared: int
    tile: str
    reduced: bool


def planning_backend(architecture: int, precision: str) -> CudaBackend:
    """A backend that plans for an architecture and runs nothing."""
    return CudaBackend(executor=PlanningExecutor(architecture), precision=precision)


def model_launches(model: str, ops: CudaBackend, fuse: bool = True) -> list[Launch]:
    """The launches of one step of a model of :data:`MODELS`."""
    ops.fuse = fuse
    return list(schedule_of(model, ops, 784, MODELS[model]).launches)


def other_launches(ops: CudaBackend) -> list[Launch]:
    """Operations and settings that those models do not use."""
    B, I, L = 128, 784, 20  # noqa: E741
    f: Callable[..., Array] = lambda *shape: ops.empty(shape)  # noqa: E731
    step, lr, loss, rows = ops.empty((1,), np.uint64), f(1), f(1), f(B)
    x, y, z, p, g, m, v = f(B, I), f(B, I), f(B, I), f(I), f(I), f(I), f(I)
    calls: list[Callable[[], None]] = [
        *(lambda a=a: ops.activation_forward(x, y, a) for a in DENSE_ACTIVATIONS),
        *(lambda a=a: ops.activation_backward(x, y, z, a) for a in DENSE_ACTIVATIONS),
        lambda: ops.sgd(p, g, m, lr, 0.9, 0.1),
        lambda: ops.do(operation("is_finite", ("is_finite",), {"x": x, "flags": ops.empty((B,), np.int32)})),
        lambda: ops.adamw(p, g, m, v, lr, step),
        lambda: ops.random_uniform(x, 0, 0, step),
        lambda: ops.vae_loss(x, y, z, rows, loss, "gaussian", 0.5),
        lambda: ops.latent_backward(f(B, L), f(B, 2 * L), f(B, L), f(L), f(B, 2 * L)),
        lambda: ops.gan_loss_generator(f(B, 1), f(B, 1), loss, "minimax"),
        lambda: ops.batch_gather(x, ops.empty((B,), np.int32), y),
    ]
    return [launch for call in calls for launch in ops.schedule(call, fuse=False).launches]


def resources(launches: Iterable[Launch], ops: CudaBackend) -> list[Resources]:
    """Compile the kernels of ``launches``, each once."""
    different = {build_of(launch, ops.executor).key: launch for launch in launches}
    found = []
    compiled = compile_launches(list(different.values()), ops.executor)
    for asked, (launch, binary) in zip(different.values(), compiled, strict=True):
        registers, stack, static = _usage(binary.code)
        facts = (launch.num_warps, registers, stack, static + binary.shared, launch.tile, launch is not asked)
        found.append(Resources(launch.name, ops.executor.architecture, ops.target.precision, *facts))
    return found


def table(found: Sequence[Resources]) -> str:
    """One line a kernel."""
    lines = [f"sm   precision warps registers stack  shared  {'tile, stages':<15} kernel"]
    for r in found:
        resources = f"{r.warps:>5} {r.registers:>9} {r.stack:>5} {r.shared:>7}"
        tile = r.tile + ("*" if r.reduced else "")
        lines.append(f"{r.architecture:<4} {r.precision:<9} {resources}  {tile:<15} {r.kernel}")
    if any(r.reduced for r in found):
        lines.append("* smaller than chosen, which took more shared memory than there is")
    return "\n".join(lines)


def _usage(cubin: bytes) -> tuple[int, int, int]:
    """Registers of a thread, its stack and the block's static shared memory, read by Triton's own ``cuobjdump``."""
    import triton

    tool = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "kernel.cubin"
        path.write_bytes(cubin)
        command = [str(tool), "--dump-resource-usage", str(path)]
        text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    found = re.search(r"REG:(\d+) STACK:(\d+) SHARED:(\d+) LOCAL:(\d+)", text)
    if found is None:
        raise RuntimeError(f"{tool} says nothing of registers: {text!r}")
    registers, stack, shared, local = map(int, found.groups())
    return registers, stack + local, shared


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m minigen.cuda.tools.report", description=__doc__)
    parser.add_argument("--architectures", type=int, nargs="+", default=list(ARCHITECTURES), metavar="SM")
    parser.add_argument("--precisions", nargs="+", default=["tf32x3"], choices=PRECISIONS)
    chosen = parser.parse_args()
    found = []
    for architecture in chosen.architectures:
        for precision in chosen.precisions:
            ops = planning_backend(architecture, precision)
            launches = [x for model in MODELS for fuse in (True, False) for x in model_launches(model, ops, fuse)]
            found += resources([*launches, *other_launches(ops)], ops)
    print(table(found))
    spilled = [r for r in found if r.stack]
    print(f"{len(found)} kernels, {len(spilled)} of them spill")
    return 1 if spilled else 0


if __name__ == "__main__":
    raise SystemExit(main())
