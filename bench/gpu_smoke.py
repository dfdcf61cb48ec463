"""First contact with a GPU, one small step after the other: the first that fails says where to look.

A line for each milestone, and the result file after each. What each launch of a training step must write was computed
beforehand (:mod:`bench.gpu_prepare`): a launch gets its inputs as they should be, whatever the launches before it did.
The milestones run in a process of their own. After a fault that leaves the GPU unusable for that process, or where one
takes longer than :data:`PATIENCE`, the next milestone begins in a new process.
"""

from __future__ import annotations

import argparse
import functools
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from bench import gpu_step
from bench.gpu_result import PREPARED, digest, keep_busy, read, rehearsing, write
from bench.gpu_step import BATCH, FEW_ROWS, MODELS, PRECISION, Touched

PATIENCE = 100.0 if rehearsing() else 25.0
"""Seconds for one milestone, the longest of which compiles a step whose kernels did not come along."""
UNUSABLE = 3  # exit code: this process cannot use the GPU any more
PRODUCTS = 2e-5
"""Largest relative error of a buffer that a launch in tf32x3 writes: the sums are float32's, in another order."""
REST = 1e-4, 0.02
"""After many steps: of a loss, and of the weights in terms of the way that they have gone. Rounding grows on the way:
the float32 reference's own distance from float64 is recorded beside it."""

TIMED = (1, 2) if rehearsing() else (256, 15)
"""Steps of a sample, and samples."""

Milestone = tuple[str, Callable[[], dict[str, Any]]]


class Contact:
    """The milestones, and what they share. Everything is made when it is first wanted, so that any may come first."""

    def __init__(self, prepared: Path) -> None:
        self.prepared = prepared
        self.ops: Any = None
        self.replays: dict[str, Replay] = {}

    def milestones(self) -> list[Milestone]:
        found: list[Milestone] = [("cupy", self.cupy), ("stream, copy", self.copy), ("one kernel", self.one_kernel)]
        for model in MODELS:
            found.append((f"{model}: kernels", lambda model=model: self.kernels(model)))
            plan = self.plan(model)
            for i, name in enumerate(plan["launches"] if plan else ()):
                found.append((f"{model} launch {i + 1}: {name}", lambda model=model, i=i: self.launch(model, i)))
        for model in MODELS:
            found.append((f"{model}: capture", lambda model=model: self.capture(model)))
            found.append((f"{model}: steps beside the reference", lambda model=model: self.steps(model)))
            found.append((f"{model}: dependent launches", lambda model=model: self.dependent(model)))
        return [*found, ("several models at once", several_at_once)]

    def plan(self, model: str) -> dict[str, Any] | None:
        """What was recorded beforehand, None where nothing was."""
        path = self.prepared / f"outputs-{model}.npz"
        return json.loads(bytes(np.load(path)["plan"])) if path.exists() else None

    def backend(self) -> Any:
        if self.ops is None:
            from minigen.cuda.backend import CudaBackend

            self.ops = CudaBackend(precision=PRECISION)
        return self.ops

    def replay(self, model: str) -> Replay:
        if model not in self.replays:
            self.replays[model] = Replay(model, self.backend(), self.prepared)
        return self.replays[model]

    # --- milestones ---------------------------------------------------------------------------------

    def cupy(self) -> dict[str, Any]:
        """The driver, CuPy and Triton are there and fit each other."""
        from minigen import cuda

        usable, detail = cuda.probe()
        if not usable:
            raise RuntimeError(detail)
        return {"detail": detail}

    def copy(self) -> dict[str, Any]:
        """There and back, through both pieces of pinned memory."""
        ops = self.backend()
        host = gpu_step.pixels(20 * 2**20 // gpu_step.COLUMNS)
        begin = time.perf_counter()
        back = ops.download(ops.upload(host))
        if not np.array_equal(host, back):
            raise AssertionError(f"{np.count_nonzero(host != back)} of {host.size} bytes came back changed")
        return {"bytes": host.nbytes, "seconds_there_and_back": time.perf_counter() - begin}

    def one_kernel(self) -> dict[str, Any]:
        """Triton's simplest: random numbers, which are the reference's bit for bit."""
        from minigen.reference import random

        found = random_numbers(self.backend())
        wrong = np.count_nonzero(found != random.uniform((1000,), 5, 6, 3))
        if wrong:
            raise AssertionError(f"{wrong} of 1000 random numbers differ from the reference's, the first is {found[0]}")
        return {}

    def kernels(self, model: str) -> dict[str, Any]:
        """Every kernel of the step is compiled, or comes from the cache, and the driver takes it."""
        return self.replay(model).load_all()

    def launch(self, model: str, i: int) -> dict[str, Any]:
        return self.replay(model).check(i)

    def capture(self, model: str) -> dict[str, Any]:
        """A whole step from a graph, against the launches run one by one."""
        return self.replay(model).check_graph()

    def dependent(self, model: str) -> dict[str, Any]:
        """Steps from graphs whose launches overlap, against steps from graphs whose launches do not."""
        return self.replay(model).compare_launches()

    def steps(self, model: str) -> dict[str, Any]:
        """As many steps as the reference has taken beforehand, from graphs of several."""
        path = self.prepared / f"reference-{model}.npz"
        if not path.exists():
            return {"skipped": "no reference came along: python -m bench.gpu_prepare"}
        reference = np.load(path)
        training = gpu_step.training_on(model, self.backend(), gpu_step.pixels(FEW_ROWS))
        steps = len(reference["losses/float64"])
        training._program(BATCH).run(steps)
        training.done = steps
        losses = training.recent_losses(steps)
        weights = np.concatenate([self.ops.download(net.params) for net in training.step.networks])
        found = far(losses, weights, reference)
        found["float32 reference"] = far(reference["losses/float32"], reference["weights/float32"], reference)
        if not (found["losses"] < REST[0] and found["weights"] < REST[1]):
            raise AssertionError(f"the training goes another way than the reference: {found}")
        return found | {"steps": steps}


def random_numbers(ops: Any) -> np.ndarray:
    """A thousand, of seed 5, stream 6 and step 3."""
    out, step = ops.upload(np.full(1000, np.nan, np.float32)), ops.upload(np.array([3], np.uint64))
    ops.random_uniform(out, 5, 6, step)
    return ops.download(out)


def models_of_two_kinds(epochs: int = 1) -> list[Any]:
    """Of each kind two, which differ in seeds and rates."""
    import minigen

    at = {"batch_size": BATCH, "epochs": epochs, "device": "cuda", "precision": PRECISION}
    rates = (1e-4, 3e-4)
    gans = [minigen.GAN(**at, **MODELS["gan"], seed=i, learning_rate=rate) for i, rate in enumerate(rates)]
    return [*gans, *(minigen.VAE(**at, **MODELS["vae"], seed=i, learning_rate=rate) for i, rate in enumerate(rates))]


def several_at_once() -> dict[str, Any]:
    """Trainings whose steps are launched together leave the bits of each alone."""
    import minigen

    rows = gpu_step.pixels(2 * BATCH if rehearsing() else FEW_ROWS)
    begin = time.perf_counter()
    models = minigen.fit_many(models_of_two_kinds(), rows, progress=False)
    seconds = time.perf_counter() - begin
    for i, (model, alone) in enumerate(zip(models, models_of_two_kinds(), strict=True)):
        alone.fit(rows, progress=False)
        if differing := others(model._state, alone._state):
            raise AssertionError(f"model {i + 1} of {len(models)} has other bits than alone: {differing}")
    return {"models": len(models), "seconds_together": seconds}


def far(losses: np.ndarray, weights: np.ndarray, reference: Any) -> dict[str, Any]:
    """How far losses are from float64's, and weights, in terms of the way that those have gone."""
    from minigen.gradcheck import relative_error

    went = np.linalg.norm(reference["weights/float64"] - reference["weights/start"])
    way = float(np.linalg.norm(weights - reference["weights/float64"]) / went)
    return {"losses": relative_error(losses, reference["losses/float64"]), "weights": way}


class Replay:
    """One step of a model on the device, each launch from the state that was recorded for it."""

    def __init__(self, model: str, ops: Any, prepared: Path) -> None:
        self.ops, self.executor = ops, ops.executor
        self.training = gpu_step.training_on(model, ops, gpu_step.pixels(FEW_ROWS))
        self.launches = gpu_step.launches_of(self.training)
        self.touched = Touched(self.launches, self.executor)
        path = prepared / f"outputs-{model}.npz"
        self.recorded = dict(np.load(path)) if path.exists() else None
        self.problem = self._problem()

    def _problem(self) -> str | None:
        """Why the recorded outputs cannot be compared with."""
        if self.recorded is None:
            return "no outputs came along: python -m bench.gpu_prepare"
        plan = json.loads(bytes(self.recorded["plan"]))
        if plan != {"launches": [x.name for x in self.launches], "shapes": self.touched.shapes()}:
            return "the outputs that came along are of other launches: python -m bench.gpu_prepare"
        return None

    def load_all(self) -> dict[str, Any]:
        """Compile and load, one after the other: how many were compiled here, and how long that took."""
        from minigen.cuda.run import cache
        from minigen.cuda.run.build import build_of

        builds = [build_of(launch, self.executor) for launch in self.launches]
        missing = [build.function.__name__ for build in builds if not (cache.folder() / build.key).exists()]
        begin = time.perf_counter()
        self.executor.prepare(self.launches)
        seconds = time.perf_counter() - begin
        stale = {"compiled_here": missing, "note": "the kernels that came along do not fit"} if missing else {}
        return {"kernels": len(builds), "compile_and_load_seconds": seconds} | stale

    def before(self, i: int) -> list[np.ndarray]:
        """What every buffer holds before launch ``i``."""
        assert self.recorded is not None
        now = [self.recorded[f"start/{b}"] for b in range(len(self.touched.buffers))]
        for k in range(i):
            now = [self.recorded.get(f"launch/{k}/{b}", array) for b, array in enumerate(now)]
        return now

    def check(self, i: int) -> dict[str, Any]:
        """Run launch ``i`` alone: what it must write is right, what it must not write is as it was."""
        if self.problem:
            return {"skipped": self.problem}
        assert self.recorded is not None
        before = self.before(i)
        for array, buffer in zip(before, self.touched.buffers, strict=True):
            self.ops.upload(array, out=buffer)
        self.executor.run(self.launches[i])
        self.executor.synchronize()
        errors = {}
        for b, (array, buffer) in enumerate(zip(before, self.touched.buffers, strict=True)):
            found, wanted = self.ops.download(buffer), self.recorded.get(f"launch/{i}/{b}")
            name = f"buffer {b} {'x'.join(map(str, buffer.shape))} {buffer.dtype}"
            if wanted is not None:
                errors[name] = difference(found, wanted)
            elif found.tobytes() != array.tobytes():
                raise AssertionError(f"{name} was changed, and should not be")
        worst = max(errors, key=lambda name: errors[name], default="")
        if errors and not errors[worst] <= PRODUCTS:
            raise AssertionError(f"error {errors[worst]:.2e} of {PRODUCTS:.0e} allowed in {worst}; all: {errors}")
        return {"buffers": len(errors), "largest_error": errors.get(worst, 0.0)}

    def check_graph(self) -> dict[str, Any]:
        """A graph of one step, from the recorded start, does to the bit what its launches do one by one."""
        state = self.start()
        calls = self.executor.prepare(self.launches, overlap=True)
        for launch in self.launches:
            self.executor.run(launch)
        wanted = self.training.state()
        self.training.load_state(state)
        begin = time.perf_counter()
        graph = self.executor.record(calls, 1)
        seconds = time.perf_counter() - begin
        with self.executor.device:
            graph.launch(self.executor.stream)
        found = self.training.state()
        if differing := others(found, wanted):
            raise AssertionError(f"from the graph other bits than launch by launch: {differing}")
        unchanged = all(state[name].tobytes() == wanted[name].tobytes() for name in state)
        if unchanged:
            raise AssertionError("a step changes nothing")
        return {"capture_seconds": seconds}

    def start(self) -> dict[str, np.ndarray]:
        """The training's state, as recorded where that is known."""
        if not self.problem:
            for array, buffer in zip(self.before(0), self.touched.buffers, strict=True):
                self.ops.upload(array, out=buffer)
        return self.training.state()

    def compare_launches(self) -> dict[str, Any]:
        """Programmatic dependent launches beside ordinary ones: the same bits after many steps, and seconds a step."""
        from minigen.cuda.run.device import GraphProgram
        from minigen.cuda.tools import measure

        if self.executor.dependent_problem:
            return {"skipped": f"without programmatic dependent launch: {self.executor.dependent_problem}"}
        state, ends, seconds = self.start(), [], []
        for overlap in (False, True):
            program = GraphProgram(self.executor, self.executor.prepare(self.launches, overlap))
            run = functools.partial(program.run, TIMED[0])
            keep_busy(self.executor, run, 0.3)
            self.training.load_state(state)
            seconds.append(statistics.median(measure.samples(self.executor, run, TIMED[1], warmup=0)) / TIMED[0])
            ends.append(self.training.state())
        if differing := others(*ends):
            raise AssertionError(f"dependent launches leave other bits: {differing}; MINIGEN_DEPENDENT_LAUNCH=0")
        return {"step_seconds_ordinary": seconds[0], "step_seconds_dependent": seconds[1]}


def others(found: dict[str, np.ndarray], wanted: dict[str, np.ndarray]) -> str:
    """Names of what is not the same to the bit."""
    return ", ".join(name for name in wanted if found[name].tobytes() != wanted[name].tobytes())


def difference(found: np.ndarray, wanted: np.ndarray) -> float:
    """Relative error of what is finite in ``wanted``; infinite for a wrong integer, or where NaN is not as wanted."""
    if wanted.dtype.kind != "f":
        return 0.0 if np.array_equal(found, wanted) else np.inf
    finite = np.isfinite(wanted)
    if not np.array_equal(finite, np.isfinite(found)):
        return np.inf
    found, wanted = found[finite].astype(np.float64), wanted[finite].astype(np.float64)
    return float(np.linalg.norm(found - wanted) / max(float(np.linalg.norm(wanted)), 1e-30))


# --- the process that meets the GPU -----------------------------------------------------------------------------------


def meet(first: int, prepared: Path, out: Path) -> int:
    """The milestones from number ``first`` on."""
    contact = Contact(prepared)
    result = read(out) or {"milestones": []}
    done = result["milestones"]
    todo = contact.milestones()
    result["names"] = [name for name, _ in todo]
    for name, milestone in todo[first:]:
        record: dict[str, Any] = {"name": name, "status": "running"}
        done.append(record)
        write(out, result)
        begin = time.perf_counter()
        try:
            record |= {"status": "ok"} | milestone()
            record["status"] = "skipped" if "skipped" in record else "ok"
        except Exception as error:
            record |= {"status": "failed", "error": f"{type(error).__name__}: {error}"[:2000]}
        record["seconds"] = round(time.perf_counter() - begin, 3)
        write(out, result)
        print(line(record), flush=True)
        if record["status"] == "failed" and not still_usable(contact):
            return UNUSABLE
    return 0


def still_usable(contact: Contact) -> bool:
    """Whether the GPU still does what this process asks for."""
    if contact.ops is None:
        return True
    try:
        contact.ops.download(contact.ops.upload(np.ones(3, np.float32)))
    except Exception as error:
        print(f"  the GPU is lost to this process: {error}", flush=True)
        return False
    return True


def line(record: dict[str, Any]) -> str:
    """What matters first: a call shows only the beginning of a long line."""
    left_out = ("name", "status", "seconds")
    facts = ", ".join(f"{key} {value}" for key, value in record.items() if key not in left_out)
    name = record["name"] if len(record["name"]) < 60 else record["name"][:57] + "..."
    return f"{record['status']:8} {record.get('seconds', 0):7.2f} s  {name}  {facts}"[:400]


# --- the process that watches -----------------------------------------------------------------------------------------


def watch(out: Path, command: list[str], patience: float = PATIENCE) -> int:
    """Run the milestones, in a new process where one has died or waits for ever: 0 where all are well."""
    first = 0
    while True:
        code = one_process([*command, "--from", str(first)], out, patience)
        result = read(out) or {"milestones": [], "names": []}
        done = result["milestones"]
        if done and done[-1]["status"] == "running":
            how = f"took more than {patience:.0f} s" if code is None else f"the process ended with code {code}"
            done[-1] |= {"status": "hung" if code is None else "died", "error": how}
            write(out, result)
            print(line(done[-1]), flush=True)
        elif len(done) == first and code != 0:
            print(f"the process ended with code {code} before any milestone", flush=True)
            return 1
        first = len(done)
        if first >= len(result["names"]):
            return 0 if all(record["status"] in ("ok", "skipped") for record in done) else 1


def one_process(command: list[str], out: Path, patience: float) -> int | None:
    """Its exit code, None where it was ended because the result file did not change for ``patience`` seconds."""
    process = subprocess.Popen(command, start_new_session=True)
    seen, since = None, time.monotonic()
    try:
        while True:
            try:
                return process.wait(0.1)
            except subprocess.TimeoutExpired:
                pass
            now = out.stat().st_mtime_ns if out.exists() else None
            if now != seen:
                seen, since = now, time.monotonic()
            if time.monotonic() - since > patience:
                return None
    finally:
        with suppress(ProcessLookupError):  # it has ended by itself
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.gpu_smoke", description=__doc__.splitlines()[0])
    parser.add_argument("--prepared", type=Path, default=PREPARED)
    parser.add_argument("--from", type=int, dest="first", help="the milestones themselves, from this number on")
    options = parser.parse_args()
    out = Path(os.environ.setdefault("STAGE_RESULT", str(Path(tempfile.gettempdir()) / "minigen-gpu-smoke.json")))
    if options.first is not None:
        return meet(options.first, options.prepared, out)
    out.unlink(missing_ok=True)
    manifest = read(options.prepared / "manifest.json")
    if manifest is None:
        print(f"nothing was prepared in {options.prepared.name}: kernels are compiled here, outputs are not compared")
    elif manifest["digest"] != digest():
        print("what came along was prepared from other sources; what still fits is used", flush=True)
    return watch(out, [sys.executable, "-m", "bench.gpu_smoke", "--prepared", str(options.prepared)])


if __name__ == "__main__":
    raise SystemExit(main())
