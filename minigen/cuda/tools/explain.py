"""``minigen explain``: what one training step is on a GPU, launch by launch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from minigen import checks
from minigen.cuda.backend import CudaBackend
from minigen.cuda.plan import tiles
from minigen.cuda.plan.launch import Launch
from minigen.cuda.plan.schedule import Schedule
from minigen.cuda.run import driver
from minigen.cuda.tools import measure
from minigen.cuda.tools.measure import H100, Card
from minigen.cuda.tools.traffic import from_memory
from minigen.errors import DeviceError
from minigen.reference_backend import NumpyBackend
from minigen.training.run import TrainingRun

MODELS = ("gan", "vae")


class PlanningExecutor:
    """An executor with host memory that runs nothing: enough to plan a step where there is no GPU."""

    name = "planning"
    array_type: type = np.ndarray

    def __init__(self, architecture: int) -> None:
        self.architecture = architecture
        self.shared_limit = tiles.shared_memory(architecture)
        self.empty = NumpyBackend().empty
        self.upload = NumpyBackend().upload
        self.download = NumpyBackend().download
        self.reader = NumpyBackend().reader
        self.resident = NumpyBackend().resident

    def address(self, buffer: np.ndarray) -> int:
        """Where ``buffer`` begins in host memory."""
        return int(buffer.ctypes.data)

    def run(self, launch: Launch) -> None:
        """Nothing."""

    def capture(self, launches: Sequence[Launch]) -> Any:
        """Raises RuntimeError: there is nothing to run."""
        raise RuntimeError("this executor only plans")


def explain(
    model: str = "gan",
    *,
    device: str = "cuda",
    precision: str = "tf32x3",
    columns: int = 784,
    fuse: bool = True,
    **settings: Any,
) -> str:
    """A table of the launches of one training step: what each fuses, its tile, FLOPs, bytes, least time on the card.

    The least time is given twice: as if all bytes came from the card's memory, and with what its L2 cache holds between
    launches coming from there at no cost.

    ``model`` is ``"gan"`` or ``"vae"``, ``settings`` are those of its constructor, ``columns`` the width of its uint8
    data. Where ``device`` (``"cuda"``, ``"cuda:1"``) is usable its own figures are taken, each launch is timed, and the
    tiles are those in use; else the figures of an H100 are shown, and the tiles that are tried first there. Raises
    ValueError for a bad setting, DeviceError where Triton is missing.
    """
    checks.choice("model", model, MODELS)
    index = int(device.partition(":")[2] or 0)
    problem = driver.find_problem(index)
    if problem:
        missing = driver.triton_problem()
        if missing:
            raise DeviceError(f"the launches of a step are Triton's kernels, but {missing}")
        backend = CudaBackend(executor=PlanningExecutor(H100.architecture), precision=precision, fuse=fuse)
        schedule = schedule_of(model, backend, columns, settings)
        return f"{table(schedule.launches, backend, H100)}\n\nnothing was timed: {problem}"
    backend = CudaBackend(index, precision=precision, fuse=fuse)
    schedule = schedule_of(model, backend, columns, settings)
    return f"{measured(schedule, backend, measure.present(index))}, {driver.describe_launches(index)}"


def schedule_of(model: str, backend: CudaBackend, columns: int, settings: dict[str, Any]) -> Schedule:
    """The schedule of a full batch of a model on data that do not matter."""
    run = training_of(model, backend, np.zeros((1, checks.integer("columns", columns, 1)), np.uint8), settings)
    return backend.schedule(lambda: run.step.compute(run.step.batch_size))


def training_of(model: str, backend: CudaBackend, rows: np.ndarray, settings: dict[str, Any]) -> TrainingRun:
    """A training on ``rows[N, D]`` of uint8, repeated where they are not more than a batch."""
    from minigen.estimators.gan import GAN
    from minigen.estimators.vae import VAE

    estimator: Any = (GAN if model == "gan" else VAE)(**settings)
    estimator._check_params()
    rows = np.resize(rows, (max(len(rows), estimator.batch_size + 1), rows.shape[1]))
    estimator._build(backend, rows.shape[1:], rows.dtype, *estimator._choose_range(rows, binary=False))
    estimator._initialize(rows)
    return estimator._training(rows)


def measured(schedule: Schedule, backend: CudaBackend, present: Card) -> str:
    """The table of the launches as they run on the GPU, with each one's time, and the step's as a whole."""
    executor: Any = backend.executor
    launches = [launch for launch, _ in executor.compile(schedule.launches)]
    alone = [float(np.median(times)) for times in measure.per_launch(executor, launches)]
    steps = 100
    program = executor.capture(launches)
    run: Callable[[], None] = lambda: program.run(steps)  # noqa: E731
    whole = float(np.median(measure.samples(executor, run, 10))) / steps
    return (
        f"{table(launches, backend, present, alone)}\n\n"
        f"a step from the graph takes {1e6 * whole:.2f} us (each launch above was timed in a graph of copies of itself)"
    )


def table(launches: Sequence[Launch], backend: CudaBackend, card: Card, measured: Sequence[float] | None = None) -> str:
    """Of each launch what it fuses, its tile, FLOPs, bytes, least times on ``card``, and the ``measured`` seconds."""
    head = f"{'':>3} {'MFLOP':>9} {'KB':>9} {'memory KB':>9} {'least us':>8} {'with L2':>7}"
    lines = [
        f"on {card.name}, matrix products in {backend.precision}; memory KB: what {card.cache / 2**20:.0f} MiB of L2 "
        "do not hold",
        head + (f" {'took us':>8}" if measured else "") + f"  {'tile, stages':<14}  kernel: operations",
    ]
    rows = []
    for launch, moved in zip(launches, from_memory(launches, backend.address, card.cache), strict=True):
        least = card.lower_bound(launch, backend.precision), card.lower_bound(launch, backend.precision, moved)
        rows.append((launch.flops / 1e6, launch.bytes / 1e3, moved / 1e3, 1e6 * least[0], 1e6 * least[1]))
    times: Sequence[float | None] = measured or [None] * len(launches)
    for i, (launch, row, took) in enumerate(zip(launches, rows, times, strict=True)):
        what = f"{launch.tile:<14}  {launch.name}: {', '.join(launch.fuses)}"
        lines.append(f"{_line(str(i + 1), row, took)}  {what}")
    totals = [sum(column) for column in zip(*rows, strict=True)]
    last = _line("sum", totals, sum(measured) if measured else None) + f"  {len(launches)} launches"
    return "\n".join([*lines, last])


def _line(label: str, figures: Sequence[float], took: float | None) -> str:
    flops, touched, moved, least, cached = figures
    text = f"{label:>3} {flops:>9.3f} {touched:>9.1f} {moved:>9.1f} {least:>8.3f} {cached:>7.3f}"
    return text + ("" if took is None else f" {1e6 * took:>8.2f}")
