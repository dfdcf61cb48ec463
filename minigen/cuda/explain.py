"""``minigen explain``: what one training step is on a GPU, launch by launch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from minigen import checks
from minigen.cuda import card, driver, tiles, timing
from minigen.cuda.backend import CudaBackend
from minigen.cuda.card import Card
from minigen.cuda.launch import Launch
from minigen.cuda.schedule import Schedule
from minigen.errors import DeviceError
from minigen.reference import NumpyBackend
from minigen.training.run import TrainingRun

MODELS = ("gan", "vae")


class Drawing:
    """An executor with host memory that runs nothing: enough to plan a step where there is no GPU."""

    name = "drawing"
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
        raise RuntimeError("a drawing cannot be trained")


def explain(
    model: str = "gan",
    *,
    device: str = "cuda",
    precision: str = "tf32x3",
    columns: int = 784,
    fuse: bool = True,
    **settings: Any,
) -> str:
    """A table of the launches of one training step: what each fuses, its tile, FLOPs, bytes, and floor on the card.

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
        backend = CudaBackend(executor=Drawing(card.H100.architecture), precision=precision, fuse=fuse)
        schedule = schedule_of(model, backend, columns, settings)
        return f"{card.explain(schedule.launches, card.H100, precision)}\n\nnothing was timed: {problem}"
    backend = CudaBackend(index, precision=precision, fuse=fuse)
    schedule = schedule_of(model, backend, columns, settings)
    return measured(schedule, backend, card.present(index), precision)


def schedule_of(model: str, backend: CudaBackend, columns: int, settings: dict[str, Any]) -> Schedule:
    """The schedule of a full batch of a model on data that do not matter."""
    run = training_of(model, backend, np.zeros((1, checks.integer("columns", columns, 1)), np.uint8), settings)
    return backend.schedule(lambda: run.step.compute(run.step.batch_size))


def training_of(model: str, backend: CudaBackend, rows: np.ndarray, settings: dict[str, Any]) -> TrainingRun:
    """A training on ``rows[N, D]`` of uint8, repeated where they are fewer than a batch."""
    from minigen.estimators.gan import GAN
    from minigen.estimators.vae import VAE

    estimator: Any = (GAN if model == "gan" else VAE)(**settings)
    estimator._check_params()
    rows = np.resize(rows, (max(len(rows), estimator.batch_size), rows.shape[1]))
    estimator._build(backend, rows.shape[1:], rows.dtype, *estimator._choose_range(rows, binary=False))
    estimator._initialize()
    return estimator._training(rows)


def measured(schedule: Schedule, backend: CudaBackend, present: Card, precision: str) -> str:
    """The table of the launches as they run on the GPU, with each one's time, and the step's as a whole."""
    executor: Any = backend.executor
    launches = [compiled.launch for compiled in executor.compile(schedule.launches)]
    alone = [float(np.median(times)) for times in timing.per_launch(executor, launches)]
    steps = 100
    program = executor.capture(launches)
    run: Callable[[], None] = lambda: program.run(steps)  # noqa: E731
    whole = float(np.median(timing.samples(executor, run, 10))) / steps
    return (
        f"{card.explain(launches, present, precision, alone)}\n\n"
        f"a step from the graph takes {1e6 * whole:.2f} us (each launch above was timed in a graph of copies of itself)"
    )
