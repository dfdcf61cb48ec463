"""The stages for a GPU, without one: what is left of a stage that is killed, and what is told of one that goes wrong.

``python tests/pretended_gpu.py FOLDER computes`` prints the environment in which all of ``bench/gpu.sh`` can be tried
out by hand; here only what takes seconds is.
"""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pretended_gpu
import pytest

from bench import gpu, gpu_costs, gpu_facts, gpu_ncu, gpu_prepare, gpu_result, gpu_sanitizer, gpu_smoke, gpu_step
from minigen.cuda.tools.explain import PlanningExecutor

ROOT = gpu_result.ROOT
needs_triton = pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="Triton is not installed")
linux = pytest.mark.skipif(sys.platform != "linux", reason="the GPU machine runs Linux")


# --- a call and its stages --------------------------------------------------------------------------------------------


def script(text: str, limit: int = 20) -> gpu.Stage:
    return gpu.Stage("made-up", limit, 1, [sys.executable, "-c", text])


SAVE = "from bench.gpu_result import save; save({'samples': [1, 2]}); "


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """Runs stages as a call, its seconds given: exit code and the result file."""
    monkeypatch.setenv("OUT", str(tmp_path / "out"))
    monkeypatch.setenv("MINIGEN_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(gpu, "PREPARED", tmp_path / "prepared")
    monkeypatch.setattr(signal, "signal", lambda *handler: None)

    def call(*stages: gpu.Stage, seconds: int = 60) -> tuple[int, dict[str, Any]]:
        monkeypatch.setattr(gpu, "stages", lambda: {stage.name: stage for stage in stages})
        monkeypatch.setattr(gpu, "CALLS", {"A": gpu.Call(seconds, tuple(stage.name for stage in stages))})
        code = gpu.main(["A"])
        (path,) = (tmp_path / "out").glob("gpu-*.json")
        return code, json.loads(path.read_text())

    return call


@linux
@pytest.mark.parametrize(
    ("text", "limit", "status"),
    [
        (SAVE + "import time; time.sleep(60)", 3, "timeout"),
        (SAVE + "import os; os.kill(os.getpid(), 11)", 20, "failed"),
        (SAVE + "import sys; sys.stdout.buffer.write(bytes(range(256))); sys.exit(3)", 20, "failed"),
        (SAVE + "import sys; open(sys.argv[0] + '.part', 'w')", 20, "failed"),
        (SAVE + "print('fine')", 20, "ok"),
    ],
    ids=["too slow", "crash", "binary", "error", "fine"],
)
def test_what_a_stage_has_measured_outlives_it(call: Any, tmp_path: Path, text: str, limit: int, status: str) -> None:
    text = text.replace("open(sys.argv[0] + '.part', 'w')", "raise SystemExit('no')")
    code, result = call(script(text, limit))
    record = result["stages"]["made-up"]
    assert record["status"] == status and (code == 0) == (status == "ok")
    assert record["result"] == {"samples": [1, 2]}
    assert result["kind"] == "gpu" and len(result["digest"]) == 64
    (logs,) = (tmp_path / "out").glob("*-logs.tar.gz")
    assert tarfile.open(logs).getnames() == ["made-up.log"]


@linux
def test_a_result_that_is_no_json_is_said_to_be_none(call: Any) -> None:
    broken = "import os; open(os.environ['STAGE_RESULT'], 'w').write('{\"half\": [1, ')"
    code, result = call(script(broken))
    assert code == 0 and "not a whole JSON file" in result["stages"]["made-up"]["result_error"]


@linux
def test_a_call_that_is_ended_has_what_its_stage_has_so_far(tmp_path: Path) -> None:
    """The call's own process is told to end while a stage runs: nothing of the stage is left running."""
    text = (
        "import sys; sys.argv = ['gpu.py']; from bench import gpu; "
        f"gpu.stages = lambda: {{'slow': gpu.Stage('slow', 60, 1, [sys.executable, '-c', {SAVE + 'import time; time.sleep(77)'!r}])}}; "  # noqa: E501
        "sys.exit(gpu.main(['slow']))"
    )
    environment = os.environ | {"OUT": str(tmp_path), "PYTHONPATH": str(ROOT), "MINIGEN_CACHE": str(tmp_path / "cache")}
    process = subprocess.Popen([sys.executable, "-c", text], env=environment, stdout=subprocess.PIPE)
    found: dict[str, Any] = {}
    deadline = time.monotonic() + 60
    while "result" not in found and time.monotonic() < deadline:
        time.sleep(0.1)
        files = list(tmp_path.glob("gpu-*.json"))
        found = json.loads(files[0].read_text())["stages"].get("slow", {}) if files else {}
    assert found["status"] == "running" and found["result"] == {"samples": [1, 2]}
    process.terminate()
    assert process.wait(20) == 128 + signal.SIGTERM
    (path,) = tmp_path.glob("gpu-*.json")
    assert json.loads(path.read_text())["stages"]["slow"]["status"] == "interrupted"
    running = subprocess.run(["ps", "-A", "-o", "args"], capture_output=True, text=True).stdout
    assert "time.sleep(77)" not in running


@linux
def test_of_a_flood_of_output_the_end_is_kept(call: Any, tmp_path: Path) -> None:
    flood = "import os\nfor _ in range(80): print(os.urandom(125000).hex())\nprint('the end')"
    _, result = call(script(flood))
    assert result["stages"]["made-up"]["output"].endswith("the end\n")
    (logs,) = (tmp_path / "out").glob("*-logs.tar.gz")
    assert logs.stat().st_size < 2**24
    with tarfile.open(logs) as archive:
        file = archive.extractfile("made-up.log")
        assert file and file.read().endswith(b"the end\n")


def test_a_stage_without_time_is_skipped_and_one_without_a_gpu_ends_the_call(call: Any) -> None:
    facts = gpu.Stage("facts", 20, 1, [sys.executable, "-c", "raise SystemExit('no GPU here')"])
    _, result = call(facts, script("print('never')"))
    assert list(result["stages"]) == ["facts"] and "no GPU here" in result["stages"]["facts"]["output"]


def test_stages_that_the_time_does_not_allow_are_named(call: Any) -> None:
    _, result = call(script("print('fine')"), seconds=2)
    assert result["stages"]["made-up"]["status"] == "ok"  # a call of one stage is always begun
    first, second = script("print(1)"), gpu.Stage("second", 20, 1, [sys.executable, "-c", "print(2)"])
    shutil.rmtree(os.environ["OUT"])
    _, result = call(first, second, seconds=2)
    assert {record["status"] for record in result["stages"].values()} == {"skipped"}


@pytest.mark.parametrize("words", [[], ["nothing"], ["A", "soon"], ["A", "100", "facts"]])
def test_other_words_are_refused_with_the_known_ones(words: list[str]) -> None:
    with pytest.raises(ValueError, match="A, B, C and the stages facts|comes nothing or a number"):
        gpu.chosen(words)


def test_calls_fit_fifteen_minutes() -> None:
    known = gpu.stages()
    assert gpu.CALLS["A"].seconds <= 150 and gpu.CALLS["B"].seconds <= 240
    for call in gpu.CALLS.values():
        assert sum(known[name].estimate for name in call.stages[:-1]) <= call.seconds
        assert all(known[name].estimate <= known[name].limit for name in call.stages)
    assert sum(call.seconds for call in gpu.CALLS.values()) <= 900 - 120  # a machine's start counts too
    assert gpu.chosen(["C", "200"])[1] == 200
    for stage in known.values():
        assert stage.command[1] == "-m" and importlib.util.find_spec(stage.command[2]), stage.name


def test_results_go_beside_the_others_where_nothing_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(gpu, "ROOT", tmp_path)
    monkeypatch.delenv("OUT", raising=False)
    assert gpu.out_folder() == tmp_path / "bench" / "results"
    monkeypatch.setenv("OUT", "/proc/nothing/here")
    assert gpu.out_folder().is_dir() and "proc" not in str(gpu.out_folder())


def test_a_cache_that_cannot_be_written_costs_only_time(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(gpu, "PREPARED", tmp_path / "prepared")
    (tmp_path / "prepared" / "kernels").mkdir(parents=True)
    (tmp_path / "prepared" / "kernels" / "abc").write_bytes(b"a kernel")
    monkeypatch.setenv("MINIGEN_CACHE", str(tmp_path / "cache"))
    assert (gpu.cache_folder(tmp_path) / "kernels" / "abc").read_bytes() == b"a kernel"
    monkeypatch.setenv("MINIGEN_CACHE", "/proc/nothing")
    assert gpu.cache_folder(tmp_path) == tmp_path / "cache"
    assert "cannot be used" in capsys.readouterr().out


def test_the_card_has_a_name_also_without_tools(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("LD_LIBRARY_PATH", str(tmp_path))
    assert gpu.card() == "no-gpu"
    (tmp_path / "nvidia-smi").write_text("#!/bin/sh\necho NVIDIA H100 80GB HBM3\n")
    (tmp_path / "nvidia-smi").chmod(0o755)
    assert gpu.card() == "nvidia-h100-80gb-hbm3"
    assert gpu_facts.tool("nvidia-smi") == "NVIDIA H100 80GB HBM3"
    assert gpu_facts.tool("no-such-tool").startswith("not usable")


def test_a_card_whose_figures_the_driver_does_not_tell_is_taken_from_a_datasheet(pretend_gpu: Any) -> None:
    card, origin = gpu_result.card_here()
    assert card.architecture == 90 and origin.startswith("datasheet: the driver does not tell (AttributeError")
    for name in ("MultiProcessorCount", "ClockRate", "MemoryClockRate", "GlobalMemoryBusWidth", "L2CacheSize"):
        setattr(pretend_gpu.cuda.runtime, f"cudaDevAttr{name}", 1)
    pretend_gpu.cuda.runtime.deviceGetAttribute = lambda attribute, index: 0
    assert gpu_result.card_here()[1] == "datasheet: the driver tells zeros"


# --- smoke ------------------------------------------------------------------------------------------------------------

CHILD = """
import json, os, sys, time
names = ["one", "two", "three", "four"]
first, out = int(sys.argv[-1]), os.environ["STAGE_RESULT"]
result = json.load(open(out)) if os.path.exists(out) else {"milestones": []}
result["names"] = names
def keep():
    json.dump(result, open(out + ".new", "w")); os.replace(out + ".new", out)
for name in names[first:]:
    result["milestones"].append({"name": name, "status": "running"}); keep()
    if name == "two": os._exit(9)
    if name == "three": time.sleep(100)
    result["milestones"][-1]["status"] = "ok"; keep()
"""


@linux
def test_milestones_go_on_in_a_new_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "out.json"
    monkeypatch.setenv("STAGE_RESULT", str(out))
    (tmp_path / "child.py").write_text(CHILD)
    assert gpu_smoke.watch(out, [sys.executable, str(tmp_path / "child.py")], patience=2.0) == 1
    statuses = {record["name"]: record["status"] for record in json.loads(out.read_text())["milestones"]}
    assert statuses == {"one": "ok", "two": "died", "three": "hung", "four": "ok"}


class Adding(PlanningExecutor):
    """An executor whose launches add one to every float buffer but the first; ``wrong`` is a launch that errs."""

    def __init__(self, wrong: int | None = None, stray: int | None = None) -> None:
        super().__init__(90)
        self.launched, self.wrong, self.stray = 0, wrong, stray
        self.empty = lambda shape, dtype=np.float32: np.zeros(shape, dtype)

    def run(self, launch: Any) -> None:
        floats = [x for x in launch.args if isinstance(x, np.ndarray) and x.dtype == np.float32]
        for array in floats[1:]:
            array += 1.001 if self.launched == self.wrong else 1
        if self.launched == self.stray:
            first = next(x for x in launch.args if isinstance(x, np.ndarray))
            first.reshape(-1)[-1] += 1
        self.launched += 1

    def synchronize(self) -> None:
        pass


@needs_triton
def test_each_launch_is_checked_by_itself(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from minigen.cuda.backend import CudaBackend

    monkeypatch.setattr(gpu_step, "BATCH", 16)
    monkeypatch.setattr(gpu_step, "COLUMNS", 20)
    monkeypatch.setattr(gpu_step, "MODELS", {"gan": {"latent_dim": 6, "hidden": (8,)}})
    monkeypatch.setattr(gpu_smoke, "FEW_ROWS", 80)
    monkeypatch.setattr(gpu_prepare, "FEW_ROWS", 80)
    np.savez(tmp_path / "outputs-gan.npz", **gpu_prepare.expected_outputs("gan", Adding()))

    def outcomes(executor: Any) -> list[str]:
        found = []
        replay = gpu_smoke.Replay("gan", CudaBackend(executor=executor), tmp_path)
        for i in range(len(replay.launches)):
            try:
                found.append("ok" if replay.check(i)["buffers"] else "nothing was compared")
            except AssertionError as error:
                found.append(str(error))
        return found

    fine = outcomes(Adding())
    assert len(fine) > 5 and set(fine) == {"ok"}
    wrong = outcomes(Adding(wrong=2))
    assert wrong[2].startswith("error ") and "buffer" in wrong[2] and set(wrong[:2] + wrong[3:]) == {"ok"}
    stray = outcomes(Adding(stray=1))
    assert stray[1] != "ok" and set(stray[:1] + stray[2:]) == {"ok"}

    plan = dict(np.load(tmp_path / "outputs-gan.npz"))
    plan["plan"] = np.frombuffer(json.dumps({"launches": ["others"], "shapes": []}).encode(), np.uint8)
    np.savez(tmp_path / "outputs-gan.npz", **plan)
    replay = gpu_smoke.Replay("gan", CudaBackend(executor=Adding()), tmp_path)
    assert "of other launches" in replay.check(0)["skipped"]


@pytest.mark.parametrize(
    ("found", "wanted", "error"),
    [
        ([1.0, 2], [1.0, 2], 0),
        ([1.0, np.nan], [1.0, np.nan], 0),
        ([1.0, np.nan], [1.0, 2], np.inf),
        ([1.0, 2], [1.0, np.nan], np.inf),
        ([1, 2], [1, 2], 0),
        ([1, 3], [1, 2], np.inf),
    ],
)
def test_difference(found: list[float], wanted: list[float], error: float) -> None:
    assert gpu_smoke.difference(np.array(found), np.array(wanted)) == error


@needs_triton
def test_kernels_that_are_compiled_beforehand_are_those_that_the_gpu_asks_for(pretend_gpu: Any) -> None:
    from minigen.cuda.backend import CudaBackend
    from minigen.cuda.run.build import build_of
    from minigen.cuda.tools.report import planning_backend

    rows = gpu_step.pixels(gpu_step.FEW_ROWS)
    for model in gpu_step.MODELS:
        keys = []
        for ops in (planning_backend(90, gpu_step.PRECISION), CudaBackend(precision=gpu_step.PRECISION)):
            launches = gpu_step.launches_of(gpu_step.training_on(model, ops, rows))
            keys.append([build_of(launch, ops.executor).key for launch in launches])
        assert keys[0] == keys[1]


def test_pixels_are_the_same_everywhere_and_of_all_values() -> None:
    pixels = gpu_step.pixels(300)
    assert pixels.dtype == np.uint8 and len(np.unique(pixels)) == 256 and abs(pixels.mean() - 127.5) < 2
    assert pixels[0, :4].tolist() == gpu_step.pixels(1)[0, :4].tolist()


@pytest.mark.slow
@linux
@needs_triton
def test_stages_run_on_a_pretended_gpu(tmp_path: Path) -> None:
    """With their own commands. It computes nothing, which the smoke has to notice at every launch, and go on."""
    environment = pretended_gpu.make(tmp_path / "gpu") | {"OUT": str(tmp_path / "out"), "PYTHON": sys.executable}
    environment["MINIGEN_GPU_PREPARED"] = str(tmp_path / "prepared")
    command = ["sh", str(ROOT / "bench" / "gpu.sh"), "facts", "smoke", "steps-tf32x3", "sanitizer", "ncu"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=400)
    assert done.returncode == 1, done.stdout + done.stderr
    paths = sorted((tmp_path / "out").iterdir())
    assert len(paths) <= 8
    result = json.loads(next(path for path in paths if path.suffix == ".json").read_text())
    stages = result["stages"]
    statuses = {name: record["status"] for name, record in stages.items()}
    assert statuses == {"facts": "ok", "smoke": "failed", "steps-tf32x3": "ok", "sanitizer": "ok", "ncu": "ok"}, stages
    assert result["rehearsal"] and result["prepared"] == {"there": False}
    assert stages["facts"]["result"]["gpus"] == "Pretended GPU, 580.1"
    milestones = {record["name"]: record["status"] for record in stages["smoke"]["result"]["milestones"]}
    assert list(milestones) == stages["smoke"]["result"]["names"]
    assert milestones["stream, copy"] == "ok" and milestones["one kernel"] == "failed"
    for step in stages["steps-tf32x3"]["result"]["steps"]:
        assert set(step["graphs"]) == {"1", "4"} and all(launch["samples"] for launch in step["launches"])
        assert step["lower_bound_seconds"] > 0 and "datasheet" in step["lower_bounds_from"]
    assert stages["sanitizer"]["result"]["memcheck"]["exit_code"] == 0
    assert stages["ncu"]["result"]["gan"]["launches"] == [{"kernel": "dense_forward", "seconds": 2.5e-6}]
    assert any(path.name.endswith("-gan.ncu-rep") for path in paths)


# --- tools ------------------------------------------------------------------------------------------------------------


def test_a_profiler_that_may_not_read_the_counters_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ncu = tmp_path / "ncu"
    ncu.write_text("#!/bin/sh\necho '==ERROR== ERR_NVGPUCTRPERM - The user does not have permission'\nexit 1\n")
    ncu.chmod(0o755)
    record = gpu_ncu.profile(str(ncu), "gan", tmp_path)
    assert record == {"exit_code": 1, "error": "no permission to read the counters"}
    ncu.write_text("#!/bin/sh\nsleep 60\n")
    monkeypatch.setattr(gpu_ncu, "SECONDS", 0.3)
    assert gpu_ncu.profile(str(ncu), "gan", tmp_path)["error"].startswith("not done within 0")
    assert gpu_ncu.called([str(tmp_path / "absent")], 1)[0] == 127


def test_a_profilers_table_is_read_by_its_units() -> None:
    text = (
        '==PROF== Connected\\n"ID","Kernel Name","gpu__time_duration.sum","dram__bytes_read.sum","other"\\n'
        '"","","usecond","Kbyte",""\\n"0","dense_forward","3.25","1,024.5","x"\\n"1","cut'
    ).replace("\\n", "\n")
    (record,) = gpu_ncu.summarize(text)
    assert record == {"kernel": "dense_forward", "seconds": pytest.approx(3.25e-6), "dram_bytes_read": 1024500.0}
    assert gpu_ncu.summarize("==ERROR== nothing") == []


def test_the_sanitizers_tools_run_side_by_side_and_each_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STAGE_RESULT", str(tmp_path / "out.json"))
    words = {"good": "print('ERROR SUMMARY: 0 errors')", "bad": "print('ERROR SUMMARY: 2 errors'); raise SystemExit(9)"}
    results = gpu_sanitizer.side_by_side({name: [sys.executable, "-c", text] for name, text in words.items()})
    assert results["good"]["exit_code"] == 0 and results["bad"]["exit_code"] == 9
    assert results["bad"]["summary"] == "ERROR SUMMARY: 2 errors"
    assert json.loads((tmp_path / "out.json").read_text())["bad"]["exit_code"] == 9


def test_costs_are_read_line_by_line() -> None:
    line = '{"name": "empty graph node", "nodes": 256, "samples": [1e-06, 2e-06, 3e-06]}'
    cost = gpu_costs.parse(line)
    assert cost and gpu_costs.text(cost) == "empty graph node, nodes 256: 2 us"
    assert gpu_costs.parse("cudaSetDevice(0): no device") is None and gpu_costs.parse("17") is None


def compile_costs() -> Any:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        command = ["nvcc", "-std=c++17", "-cubin", "-arch=sm_90", str(gpu_prepare.COSTS), "-o", f"{folder}/costs"]
        done = subprocess.run(command, capture_output=True, text=True)
        return done.returncode, done.stdout + done.stderr


@pytest.mark.background(run=compile_costs)
@pytest.mark.skipif(shutil.which("nvcc") is None, reason="no nvcc")
def test_the_program_of_costs_compiles(result: Any) -> None:
    assert result == (0, "")


def test_cupy_has_what_minigen_uses() -> None:
    """The names that the stand-in offers, and with them all that minigen.cuda uses, exist in the real one."""
    cupy = pytest.importorskip("cupy", reason="CuPy is not installed", exc_type=ImportError)
    from fake_cupy import FakeCupy

    fake = FakeCupy()
    for name in ("runtime", "driver"):
        missing = [n for n in vars(getattr(fake.cuda, name)) if not hasattr(getattr(cupy.cuda, name), n)]
        assert not missing, f"cupy.cuda.{name} has no {', '.join(missing)}"
    assert all(hasattr(cupy.cuda, name) for name in vars(fake.cuda))
    for name in ("Stream", "Event", "Module", "Device"):
        real, pretended = getattr(cupy.cuda, name), getattr(fake.cuda, name)
        methods = [n for n in dir(pretended) if not n.startswith("_")]
        own = {"behind", "code", "ptr"}  # set by the stand-in, or by CuPy's constructor
        missing = [n for n in methods if n not in own and not hasattr(real, n)]
        assert not missing, f"cupy.cuda.{name} has no {', '.join(missing)}"
    for name in ("ClockRate", "MemoryClockRate", "MultiProcessorCount", "GlobalMemoryBusWidth", "L2CacheSize"):
        assert hasattr(cupy.cuda.runtime, f"cudaDevAttr{name}")
    assert all(hasattr(cupy.cuda.Graph, name) for name in ("launch", "upload"))
    assert all(hasattr(cupy, name) for name in ("ascontiguousarray", "empty", "isfinite", "from_dlpack", "ndarray"))
