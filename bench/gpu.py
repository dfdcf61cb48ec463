"""The stages of ``bench/gpu.sh``, in three calls that fit fifteen minutes of a GPU: see ``docs/gpu-checklist.md``.

Each stage runs in a process of its own with a time limit, from the source tree: nothing is installed. What it has
measured so far it keeps in the file named by ``$STAGE_RESULT``, and while it runs that goes into the call's result file
once a second; so a stage that fails, hangs, crashes the driver or is killed, and a call that is killed, lose little.
Needs the standard library only.
"""

from __future__ import annotations

import datetime
import os
import re
import shutil
import signal
import subprocess
import sys
import tarfile
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

sys.path[:0] = [str(Path(__file__).resolve().parent.parent)]

from bench.gpu_result import PREPARED, ROOT, digest, read, rehearsing, write  # noqa: E402

TAIL = 6000  # characters of a stage's output that the result keeps; the whole is in the logs
TICK = 1.0  # seconds between two looks at a running stage
LAST = 10  # seconds below which no stage is begun
LARGEST = 15 * 2**20  # bytes of one file that is left behind
SLOWER = 4 if rehearsing() else 1  # a busy processor in place of a GPU
KEPT = 5  # files that stages may leave behind, beside the result and the logs


@dataclass(frozen=True)
class Stage:
    """``command`` runs in the tree and may last ``limit`` seconds. A word STAGE_RESULT is the result's file.

    ``estimate`` is how many seconds it may take on an H100: nobody has measured it there. It is made of what can be
    counted: 5 s to start Python with CuPy and Triton from a cold disk, what the host's part takes without a GPU, and
    the number of steps times 25 us.
    """

    name: str
    limit: int
    estimate: int
    command: list[str]


@dataclass(frozen=True)
class Call:
    """Some stages, the most important first, in at most ``seconds``."""

    seconds: int
    stages: tuple[str, ...]


CALLS = {
    "A": Call(150, ("facts", "smoke", "steps-tf32x3", "costs", "sanitizer", "ncu")),
    "B": Call(240, ("compare-gan", "training", "tests")),
    "C": Call(
        380,
        (
            "compare-vae",
            "many",
            "tune",
            "kernels-torch",
            "kernels",
            "compare-compile",
            "ladder",
            "steps-others",
            "sanitizer-cpp",
        ),
    ),
}


MANY = ("--device", "cuda", "--counts", "16,64", "--rounds", "5")
LADDER = ("--device", "cuda")


def stages() -> dict[str, Stage]:
    """All of them by name."""
    python = sys.executable

    def module(name: str, *arguments: str) -> list[str]:
        return [python, "-m", f"bench.{name}", *arguments]

    found = [
        # --- A: does it run, how fast, and what does the hardware charge?
        Stage("facts", 30, 6, module("gpu_facts")),
        # 6 s of starting, 15 launches, 200 steps, 4 x 5000 timed; then eight small trainings
        Stage("smoke", 60, 22, module("gpu_smoke")),
        Stage("steps-tf32x3", 40, 17, module("gpu_steps", "--precision", "tf32x3")),  # 2 x 8 graphs x 10000 steps
        Stage("costs", 25, 4, module("gpu_costs")),  # 1 s of warming up, 50 figures of 25 short samples
        Stage("sanitizer", 45, 30, module("gpu_sanitizer", "--triton")),  # two processes side by side
        Stage("ncu", 60, 45, module("gpu_ncu")),  # 14 launches, about 40 passes each, and two starts
        # --- B: the figures, and whether everything is right
        Stage("compare-gan", 90, 55, compare("gan", ["minigen-tf32x3", "torch-graph", "jax-scan", "minigen", "torch"])),
        Stage("training", 60, 40, module("gpu_training")),  # 2 x 468000 steps
        Stage("tests", 180, 160, module("gpu_tests")),  # compiles: 14 of 16 cores
        # --- C: what is left
        Stage("compare-vae", 90, 55, compare("vae", ["minigen-tf32x3", "torch-graph", "jax-scan", "minigen", "torch"])),
        # 2 x 4 contenders start, check, compile; 2 x 5 turns of 0.4 s each
        Stage("many", 90, 60, module("many", *MANY, "--out", "STAGE_RESULT", *["--quick"] * rehearsing())),
        Stage("tune", 65, 60, module("gpu_tune")),  # takes all the time that it is given
        Stage("kernels-torch", 90, 50, module("gpu_kernels", "--torch")),  # 18 compilations
        Stage("kernels", 60, 25, module("gpu_kernels")),  # compiled beforehand
        Stage("compare-compile", 90, 50, compare("gan", ["minigen-tf32x3", "torch-compile", "jax"])),
        # 8 rungs of three shapes, a second each, and 6 compilations
        Stage("ladder", 60, 35, module("ladder", *LADDER, "--out", "STAGE_RESULT", *["--quick"] * rehearsing())),
        Stage("steps-others", 60, 20, module("gpu_steps", "--precision", "tf32", "ieee", "bf16")),
        Stage("sanitizer-cpp", 60, 30, module("gpu_sanitizer")),
        # --- only by name
        Stage("steps", 90, 60, module("gpu_steps")),
        Stage("compare-tf32", 120, 60, compare("gan", ["minigen", "torch-graph", "jax-scan"], "tf32")),
    ]
    return {stage.name: replace(stage, limit=SLOWER * stage.limit) for stage in found}


def compare(model: str, peers: list[str], precision: str = "ieee") -> list[str]:
    """minigen's step beside others' modes, in ieee also in its default tf32x3, which is as accurate."""
    settings = {
        "--device": "cuda",
        "--precision": precision,
        "--batch": "128",
        "--width": "article",
        "--rounds": "5",
        "--chunk": "0.2",
        "--starts": "1",
        "--patience": "60",
        "--model": model,
    }
    if rehearsing():
        settings |= {"--batch": "4", "--width": "8", "--rounds": "2", "--chunk": "0.01", "--data-size": "8"}
    options = [word for pair in settings.items() for word in pair]
    return [sys.executable, "-m", "bench.compare", *options, "--peers", *peers, "--out", "STAGE_RESULT"]


# --- one stage --------------------------------------------------------------------------------------------------------


class Run:
    """One call: its stages' results, in one file that is written again and again."""

    def __init__(self, path: Path, work: Path, environment: dict[str, str], result: dict[str, Any]) -> None:
        self.path, self.work, self.environment, self.result = path, work, environment, result

    def stage(self, stage: Stage, limit: float) -> dict[str, Any]:
        """Run it: status (ok, failed, timeout), exit code, seconds, end of the output, and what it measured."""
        out, log = self.work / f"{stage.name}.json", self.work / "logs" / f"{stage.name}.log"
        command = [str(out) if word == "STAGE_RESULT" else word for word in stage.command]
        environment = self.environment | {
            "STAGE_RESULT": str(out),
            "STAGE_FILES": str(self.work / "files"),
            "STAGE_SECONDS": str(int(limit)),
        }
        begin = time.monotonic()
        record: dict[str, Any] = {"status": "running", "limit": limit, "estimate": stage.estimate}
        self.result["stages"][stage.name] = record
        with log.open("wb") as output:
            process = subprocess.Popen(
                command, cwd=ROOT, env=environment, stdout=output, stderr=subprocess.STDOUT, start_new_session=True
            )
            try:
                while process.poll() is None and time.monotonic() - begin < limit:
                    self._note(record, out, log, begin)
                    self._wait(process, min(TICK, max(0.01, limit - (time.monotonic() - begin))))
                code = process.poll()
            except BaseException:
                record["status"] = "interrupted"
                raise
            finally:
                _end(process)
                self._note(record, out, log, begin)
        record |= {"status": "timeout" if code is None else "ok" if code == 0 else "failed", "exit_code": code}
        write(self.path, self.result)
        return record

    def _wait(self, process: subprocess.Popen[bytes], seconds: float) -> None:
        try:
            process.wait(seconds)
        except subprocess.TimeoutExpired:
            return

    def _note(self, record: dict[str, Any], out: Path, log: Path, begin: float) -> None:
        """Take what the stage has so far into the call's file."""
        record["seconds"] = round(time.monotonic() - begin, 2)
        record["output"] = tail(log)
        if out.exists():
            found = read(out)
            record |= {"result": found} if found is not None else {"result_error": "not a whole JSON file"}
        write(self.path, self.result)


def tail(log: Path) -> str:
    """The end of a log as text that can be shown: no byte that is not UTF-8, no control character."""
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - 4 * TAIL))
        text = file.read().decode(errors="replace")
    return re.sub(r"[^\n\t -~\u00a0-\ufffd]", "?", text)[-TAIL:]


def _end(process: subprocess.Popen[bytes]) -> None:
    """The stage and whatever it started."""
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        return  # all have ended by themselves
    process.wait()


# --- a call -----------------------------------------------------------------------------------------------------------


def environment_for(work: Path) -> dict[str, str]:
    """The stages import from the tree. Compiled kernels are kept beside those that came along, for later calls too."""
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    settings = {"MINIGEN_CACHE": str(cache_folder(work)), "MINIGEN_NEEDS_GPU": "1", "PYTHONUNBUFFERED": "1"}
    return dict(os.environ) | settings | {"PYTHONPATH": path}


def cache_folder(work: Path) -> Path:
    """A folder with the kernels that came along. Where it cannot be written kernels are compiled in every process."""
    folder = Path(os.environ.get("MINIGEN_CACHE") or Path(tempfile.gettempdir()) / "minigen-gpu-cache")
    try:
        (folder / "kernels").mkdir(parents=True, exist_ok=True)
        for path in (PREPARED / "kernels").glob("*"):
            if not (folder / "kernels" / path.name).exists():
                shutil.copy(path, folder / "kernels")
    except OSError as error:
        print(f"the kernels that came along cannot be used: {error}", flush=True)
        folder = work / "cache"
    return folder


def prepared_state() -> dict[str, Any]:
    """What came along, and whether it was made of these sources."""
    manifest = read(PREPARED / "manifest.json")
    if manifest is None:
        return {"there": False}
    about = {key: manifest.get(key) for key in ("created", "triton", "architecture", "rehearsal", "commit")}
    fits = {name: part.get("digest") == digest() for name, part in manifest.get("parts", {}).items()}
    kernels = len(list((PREPARED / "kernels").glob("*")))
    return {"there": True, **about, "made_of_these_sources": fits, "kernels": kernels}


def commit() -> dict[str, Any]:
    """Which sources were measured. Without .git there is their digest, and what was prepared of the same sources."""
    try:

        def git(*arguments: str) -> str:
            answer = subprocess.run(["git", "-C", str(ROOT), *arguments], capture_output=True, text=True, check=True)
            return answer.stdout.strip()

        changes = git("status", "--porcelain", "--", ".", ":!bench/results")
        return {"commit": git("rev-parse", "HEAD"), "dirty": bool(changes), "digest": digest()}
    except (OSError, subprocess.CalledProcessError):
        manifest = read(PREPARED / "manifest.json") or {}
        same = manifest.get("digest") == digest()
        known = {"commit": manifest["commit"], "dirty": manifest["dirty"]} if same else {"commit": None, "dirty": None}
        return known | {"digest": digest()}


def card() -> str:
    """Name of the GPU for the result's file name; ``no-gpu`` where nobody knows of one."""
    by_driver = (
        "import ctypes; d = ctypes.CDLL('libcuda.so.1'); n = ctypes.create_string_buffer(100); h = ctypes.c_int(); "
        "assert not (d.cuInit(0) or d.cuDeviceGet(ctypes.byref(h), 0) or d.cuDeviceGetName(n, 100, h)); "
        "print(n.value.decode())"
    )
    for query in (["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"], [sys.executable, "-c", by_driver]):
        try:
            answer = subprocess.run(query, capture_output=True, check=True, timeout=20).stdout.decode(errors="replace")
        except (OSError, subprocess.SubprocessError):
            continue
        name = re.sub(r"[^a-z0-9]+", "-", (answer.splitlines() or [""])[0].lower()).strip("-")
        if name:
            return name[:60]
    return "no-gpu"


def chosen(wanted: list[str]) -> tuple[list[Stage], float]:
    """The stages that the command line names, and how many seconds they have. Raises ValueError for another word."""
    known = stages()
    if wanted and wanted[0] in CALLS:
        call = CALLS[wanted[0]]
        if len(wanted) > 2 or (len(wanted) == 2 and not wanted[1].isdecimal()):
            raise ValueError(f"after {wanted[0]} comes nothing or a number of seconds, not {' '.join(wanted[1:])}")
        return [known[name] for name in call.stages], float(wanted[1]) if len(wanted) == 2 else SLOWER * call.seconds
    unknown = [word for word in wanted if word not in known]
    if unknown or not wanted:
        what = f"unknown stage {', '.join(unknown)}" if unknown else "name a call or stages"
        raise ValueError(f"{what}; there are the calls {', '.join(CALLS)} and the stages {', '.join(known)}")
    return [known[word] for word in wanted], sum(known[word].limit for word in wanted)


def out_folder() -> Path:
    """``$OUT``, else ``bench/results``, else, where neither can be written, a new folder that is named."""
    folder = Path(os.environ.get("OUT") or ROOT / "bench" / "results")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return folder
    except OSError as error:
        other = Path(tempfile.mkdtemp(prefix="minigen-gpu-results-"))
        print(f"{folder} cannot be written ({error}); results go to {other}", flush=True)
        return other


def main(wanted: list[str]) -> int:
    for output in (sys.stdout, sys.stderr):
        output.reconfigure(errors="replace")  # type: ignore[union-attr]
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    try:
        todo, seconds = chosen(wanted)
    except ValueError as error:
        print(error)
        return 2
    begin = time.monotonic()
    now = datetime.datetime.now(datetime.UTC)
    stem = f"gpu-{card()}-{now:%Y%m%d-%H%M%S}"
    out = out_folder()
    result: dict[str, Any] = {
        "schema": 1,
        "kind": "gpu",
        "created": now.isoformat(timespec="seconds"),
        **commit(),
        "asked_for": wanted,
        "seconds_allowed": seconds,
        "rehearsal": rehearsing(),
        "prepared": prepared_state(),
        "stages": {},
    }
    work = Path(tempfile.mkdtemp(prefix="minigen-gpu-"))
    for folder in ("logs", "files"):
        (work / folder).mkdir()
    run = Run(out / f"{stem}.json", work, environment_for(work), result)
    print(f"{stem}: {', '.join(stage.name for stage in todo)}; {seconds:.0f} s in all", flush=True)
    try:
        for stage in todo:
            left = seconds - (time.monotonic() - begin)
            if left < LAST and len(todo) > 1:
                result["stages"][stage.name] = {"status": "skipped", "reason": "the time was used up"}
            else:
                run.stage(stage, min(stage.limit, left))
            write(run.path, result)
            report(stage.name, result["stages"][stage.name])
            leave(work, out, stem)
            if stage.name == "facts" and result["stages"]["facts"]["status"] != "ok" and len(todo) > 1:
                print("there is no usable GPU, or not all that is needed beside it: nothing else is run", flush=True)
                break
    finally:
        leave(work, out, stem)
        shutil.rmtree(work, ignore_errors=True)
    outcome = ", ".join(f"{name} {record['status']}" for name, record in result["stages"].items())
    print(f"{run.path.name}: {outcome}; {time.monotonic() - begin:.0f} s", flush=True)
    return 0 if all(record["status"] == "ok" for record in result["stages"].values()) else 1


def leave(work: Path, out: Path, stem: str) -> None:
    """Beside the result: all logs in one file, and what the stages left in ``$STAGE_FILES`` (a profiler's reports)."""
    packed = out / f".{stem}-logs.part"
    with tarfile.open(packed, "w:gz") as archive:
        for path in sorted((work / "logs").iterdir()):
            if path.stat().st_size > LARGEST:  # the end of it, and less of the others than would fill the file
                with path.open("rb+") as log:
                    log.seek(-LARGEST // 8, os.SEEK_END)
                    end = log.read()
                    log.seek(0)
                    log.write(end)
                    log.truncate()
            archive.add(path, path.name)
    packed.replace(out / f"{stem}-logs.tar.gz")
    for path in sorted((work / "files").iterdir())[:KEPT]:
        if path.stat().st_size > LARGEST:
            print(f"{path.name} is left out: {path.stat().st_size / 2**20:.0f} MiB", flush=True)
        elif not (out / f"{stem}-{path.name}").exists():
            shutil.copy(path, out / f"{stem}-{path.name}")


def report(name: str, record: dict[str, Any]) -> None:
    print(f"--- {name:14} {record['status']:8} {record.get('seconds', 0):7.1f} s", flush=True)
    lines = record.get("output", "").splitlines()
    for line in lines[-25:]:  # of several stages only so much fits where the end of the output is all that is kept
        print("    " + line[:160], flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
