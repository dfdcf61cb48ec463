"""What surrounds the CUDA backend: whole steps as launched, the explanation of a step, timing and tuning. No GPU."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from fake_cupy import FakeCupy

from minigen.cuda.plan import launch, tiles
from minigen.cuda.run import driver
from minigen.cuda.tools import measure
from minigen.cuda.tools.traffic import from_memory
from minigen.errors import DeviceError

pytest.importorskip("triton", reason="no Triton")


@pytest.fixture
def fake(monkeypatch, tmp_path):
    fake = FakeCupy()
    monkeypatch.setitem(sys.modules, "cupy", fake)
    monkeypatch.setattr(driver, "_has_driver", lambda: True)
    monkeypatch.setenv("MINIGEN_CACHE", str(tmp_path))
    monkeypatch.setattr(tiles, "_measured", {})
    return fake


def launch_whole_steps() -> subprocess.CompletedProcess[str]:
    environment = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    tests = Path(__file__).parent
    environment["PYTHONPATH"] = os.pathsep.join([str(tests), str(tests.parent), environment.get("PYTHONPATH", "")])
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, str(tests / "cuda_whole_step.py"), folder]
        return subprocess.run(command, env=environment, capture_output=True, text=True)


@pytest.mark.background(run=launch_whole_steps)
def test_whole_steps_pass_what_their_cubins_take(result):
    print(result.stdout)
    assert result.returncode == 0, result.stderr


@pytest.mark.slow
def test_a_kernels_key_does_not_depend_on_what_was_compiled_before():
    environment = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    tests = Path(__file__).parent
    environment["PYTHONPATH"] = os.pathsep.join([str(tests.parent), environment.get("PYTHONPATH", "")])
    command = [sys.executable, str(tests / "kernel_keys.py")]
    running = [
        subprocess.Popen([*command, *words], env=environment, stdout=subprocess.PIPE, text=True)
        for words in ([], ["others first"])
    ]
    alone, later = (process.communicate()[0].splitlines() for process in running)
    assert len(alone) > 10 and alone == later


# --- explain ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("model", ["gan", "vae"])
def test_explain_without_a_gpu(monkeypatch, model):
    from minigen.cuda.tools.explain import explain

    monkeypatch.setattr(driver, "find_problem", lambda index: "no GPU today")
    text = explain(model, batch_size=32, precision="ieee", columns=50)
    assert "H100" in text and "in ieee" in text and "nothing was timed: no GPU today" in text
    assert "dense_wgrad, adam" in text and text.count("\n") > 6


def test_explain_refuses_bad_settings(monkeypatch):
    from minigen.cuda.tools.explain import explain

    monkeypatch.setattr(driver, "find_problem", lambda index: "no GPU today")
    with pytest.raises(ValueError, match="model must be one of"):
        explain("diffusion")
    with pytest.raises(ValueError, match="precision must be one of"):
        explain("gan", precision="fp8")
    with pytest.raises((TypeError, ValueError), match="batch_size"):
        explain("gan", batch_size=0)


def test_explain_without_triton(monkeypatch):
    from minigen.cuda.tools.explain import explain

    monkeypatch.setattr(driver, "find_problem", lambda index: "no GPU today")
    monkeypatch.setattr(driver, "triton_problem", lambda: "Triton is missing: pip install it")
    with pytest.raises(DeviceError, match="Triton's kernels, but Triton is missing: pip install it"):
        explain("gan")


def test_the_lower_bound_is_the_longer_of_arithmetic_and_traffic():
    h100 = measure.H100
    assert h100.flops("tf32") == pytest.approx(494e12, rel=0.01)  # its datasheet
    assert h100.flops("bf16") == pytest.approx(989e12, rel=0.01)
    assert h100.flops("tf32x3") == h100.flops("tf32") / 3 and h100.flops("bf16x6") == h100.flops("bf16") / 6
    busy = launch.Launch("k", None, (1, 1, 1), (), flops=10**12, bytes=1)
    large = launch.Launch("k", None, (1, 1, 1), (), flops=1, bytes=10**12)
    assert h100.lower_bound(busy, "tf32") == pytest.approx(1 / 494, rel=0.01)
    assert h100.lower_bound(large, "tf32") == pytest.approx(1 / 3.35)
    newer = measure.Card("newer than the table", 130, 100, 2e9, 1e12)
    assert newer.flops("ieee") > 0


def test_the_present_card_is_read_from_the_driver(fake):
    attributes = {
        "MultiProcessorCount": 132,
        "ClockRate": 1_980_000,
        "MemoryClockRate": 3_201_000,
        "GlobalMemoryBusWidth": 6144,
        "L2CacheSize": 50 * 2**20,
    }
    for i, name in enumerate(attributes):
        setattr(fake.cuda.runtime, f"cudaDevAttr{name}", 1000 + i)
    fake.cuda.runtime.deviceGetAttribute = lambda attribute, index: list(attributes.values())[attribute - 1000]
    present = measure.present()
    assert present.architecture == 90 and present.multiprocessors == 132
    assert present.bandwidth == pytest.approx(4.917e12, rel=1e-3) and present.clock == 1.98e9
    assert present.cache == 50 * 2**20


def touching(*names, sizes):
    """A launch that reads buffers, made at first mention with the number of bytes that ``sizes`` has for it."""
    reads = tuple(sizes[name] for name in names)
    job = launch.Job(None, 1, {}, reads, (), (), traffic=tuple(buffer.nbytes for buffer in reads))
    return launch.Launch("k", None, (1, 1, 1), (), bytes=job.bytes, jobs=(job,))


def test_the_cache_holds_what_was_touched_last():
    """Bytes from one touch to the next, both buffers counted; the first launch of a step follows the last."""
    sizes = {name: np.empty(size, np.uint8) for name, size in {"a": 10, "b": 20, "c": 40}.items()}
    step = [touching(*names, sizes=sizes) for names in (["a"], ["b"], ["a", "c"], ["b"])]
    assert [x.bytes for x in step] == [10, 20, 50, 20]

    def missed(cache):
        return from_memory(step, lambda buffer: buffer.ctypes.data, cache)

    assert missed(0) == [10, 20, 50, 20] and missed(70) == [0, 0, 0, 0]
    assert missed(29) == [10, 20, 50, 20] and missed(30) == [10, 0, 40, 20]  # a, b, a and b, a, b: 30 bytes
    assert missed(69) == [10, 0, 40, 20]


@pytest.mark.parametrize("model", ["gan", "vae"])
def test_a_small_step_stays_in_the_cache_but_for_the_batch(model):
    from minigen.cuda.tools.explain import schedule_of
    from minigen.cuda.tools.report import planning_backend

    ops = planning_backend(90, "tf32x3")
    launches = schedule_of(model, ops, 50, {"batch_size": 32}).launches
    assert sum(from_memory(launches, ops.address, 50 * 2**20)) == 32 * 50
    assert from_memory(launches, ops.address, 0) == [x.bytes for x in launches]


# --- arrays of other libraries ---------------------------------------------------------------------


def test_rows_on_the_gpu_share_memory(fake):
    from minigen.cuda import interop
    from minigen.cuda.backend import CudaBackend

    ops = CudaBackend()
    for dtype in (np.uint8, np.float32):
        data = ops.upload(np.arange(24, dtype=dtype).reshape(2, 3, 4))
        rows, item_shape = interop.rows(ops, data)
        assert rows.shape == (2, 12) and item_shape == (3, 4) and rows.data.ptr == data.data.ptr
    rows, _ = interop.rows(ops, ops.upload(np.ones((4, 6)))[::2])
    assert rows.dtype == np.float32 and rows.flags.c_contiguous and rows.shape == (2, 6)


@pytest.mark.parametrize(
    ("array", "error"),
    [
        (np.ones((4, 2), complex), TypeError),
        (np.ones(4, np.uint8), ValueError),
        (np.ones((1, 4)), ValueError),
        (np.ones((4, 0), np.uint8), ValueError),
        (np.array([[1.0, np.inf], [1, 2]]), ValueError),
    ],
)
def test_bad_rows_on_the_gpu_are_refused(fake, array, error):
    from minigen.cuda import interop
    from minigen.cuda.backend import CudaBackend

    ops = CudaBackend()
    with pytest.raises(error, match="data must"):
        interop.rows(ops, ops.upload(array))


# --- timing and tuning -----------------------------------------------------------------------------


def test_samples_are_seconds_of_the_executors_stream(fake):
    from minigen.cuda.run.device import DeviceExecutor

    calls = []
    times = measure.samples(DeviceExecutor(), lambda: calls.append(1), 5, warmup=2)
    assert len(calls) == 7 and times == [0.002] * 5  # the stand-in's events are 2 ms apart


def tuning(monkeypatch, fake, seconds, fits=lambda tile: True, precision="tf32x3"):
    """Run the tuner with ``seconds(tile)`` in place of a measurement, and without compiling."""
    from minigen.cuda.run import device
    from minigen.cuda.tools import tune

    def launch_with(tile):
        return launch.Launch("k", None, (1, 1, 1), (), jobs=(launch.Job(None, 1, {}, (), (), (), tile=tile),))

    def fitting(asked):
        while not fits(asked.jobs[0].tile):
            asked = launch_with(tiles.with_less_memory(asked.jobs[0].tile))
        return asked, None

    monkeypatch.setattr(device.DeviceExecutor, "compile", lambda self, launches: [fitting(x) for x in launches])
    monkeypatch.setattr(tune, "launches_with", lambda tile, *rest: (launch_with(tile),))
    monkeypatch.setattr(tune, "result", lambda executor, launches, output: [1.0])
    monkeypatch.setattr(
        tune, "median_seconds", lambda executor, launches: seconds(fitting(launches[0])[0].jobs[0].tile)
    )
    monkeypatch.setattr(tune, "SHAPES", {key: (16, 16, 16) for key in tune.SHAPES})
    lines = []
    return tune.tune(precision=precision, report=lines.append), lines


def test_the_fastest_tile_is_kept_and_preferred(monkeypatch, fake):
    from minigen.cuda.tools import tune

    path, lines = tuning(monkeypatch, fake, lambda tile: 1.0 if (tile.BM, tile.BN, tile.stages) == (64, 32, 2) else 2.0)
    assert len(lines) == len(tune.SHAPES) == len(json.loads(path.read_text())["entries"])
    found = tiles._measured[90, "tf32x3", "forward", "256x784x128"]
    assert (found.BM, found.BN, found.stages, found.measured) == (64, 32, 2, True)
    tiles._measured.clear()
    assert len(tiles.load_measured(90)) == len(lines)
    assert tiles._measured[90, "tf32x3", "forward", "256x784x128"] == found
    assert tiles.load_measured(80) == []
    assert tiles.choose("forward", 256, 784, 128, 90, "tf32x3") == found, "for this shape"
    assert not tiles.choose("forward", 256, 784, 100, 90, "tf32x3").measured, "and no other"


def test_each_precision_keeps_its_own_tiles(monkeypatch, fake):
    """Another precision's are measured later, and measured again."""
    for precision, side in (("tf32x3", 64), ("bf16", 32), ("tf32x3", 128)):
        best = (side, side)
        tuning(monkeypatch, fake, lambda tile, best=best: 1 if (tile.BM, tile.BN) == best else 2, precision=precision)
    sides = [tiles.choose("forward", 1024, 1024, 1024, 90, precision).BM for precision in ("tf32x3", "bf16")]
    assert sides == [128, 32] and not tiles.choose("forward", 1024, 1024, 1024, 90, "ieee").measured


def test_noise_does_not_replace_the_table(monkeypatch, fake):
    path, _ = tuning(monkeypatch, fake, lambda tile: 0.99 if tile.BM == 64 else 1.0)
    for entry in json.loads(path.read_text())["entries"]:
        assert tiles.Tile(**entry["tile"]) == tiles.default(entry["operation"], entry["kind"], 90, "tf32x3")


def test_a_tile_that_is_not_used_is_not_reported(monkeypatch, fake):
    """Where the compiler takes a smaller one in its place: of the table's the smaller one counts, others do not."""
    path, _ = tuning(monkeypatch, fake, lambda tile: 1.0 / tile.stages, fits=lambda tile: tile.stages < 2)
    for entry in json.loads(path.read_text())["entries"]:
        table = tiles.default(entry["operation"], entry["kind"], 90, "tf32x3")
        assert tiles.Tile(**entry["tile"]) == replace(table, stages=1) and entry["measured"] == 1


@pytest.mark.parametrize("text", ["", "{}", '{"entries": [{"precision": "ieee"}]}', '{"entries": 3}'])
def test_a_damaged_file_of_tiles_is_left_aside(fake, text):
    tiles.measured_file(90).write_text(text)
    with pytest.warns(UserWarning, match="run minigen tune again"):
        assert tiles.load_measured(90) == []
    assert tiles._measured == {}


@pytest.mark.parametrize("precision", ["tf32x3", "tf32"])
@pytest.mark.parametrize("divides, chosen", [(True, {"stages": 3, "SPLIT": 4}), (False, {"stages": 2, "SPLIT": 8})])
def test_terms_are_taken_in_chunks_where_a_tile_is_too_small_for_its_warps(precision, divides, chosen, monkeypatch):
    """On the tensor cores; no more chunks than there are terms. As many as warps where Triton cannot divide them."""
    monkeypatch.setattr(tiles, "divides_chunks", lambda: divides)
    assert tiles.choose("forward", 256, 128, 784, 90, precision) == tiles.Tile(16, 16, 32, 8, **chosen)
    assert tiles.choose("forward", 256, 784, 128, 80, precision) == tiles.Tile(32, 64, 64, 8, 3)
    assert tiles.choose("forward", 256, 128, 784, 90, "ieee").SPLIT == 1
    assert tiles.choose("forward", 4096, 4096, 4096, 90, precision).SPLIT == 1
    for depth in range(1, 300):
        tile = tiles.choose("dgrad", 128, 128, depth, 90, "bf16")
        assert tile.SPLIT == 1 or tile.SPLIT // 2 * tile.BK < depth


@pytest.mark.parametrize("architecture", [80, 90, 120])
def test_a_small_product_gives_no_multiprocessor_two_programs(architecture):
    rng = np.random.default_rng()
    for rows, columns in np.exp(rng.uniform(0, 8, (300, 2))).astype(int).tolist():
        tile = tiles.choose("forward", rows, columns, 500, architecture, "tf32x3")
        if tiles.shape_class(rows, columns, architecture) == "few":
            assert tiles.programs(tile, rows, columns) <= tiles.multiprocessors(architecture), (rows, columns, tile)


@pytest.mark.parametrize("architecture", [80, 86, 90, 120])
@pytest.mark.parametrize("precision", ["ieee", "tf32x3", "bf16"])
def test_tiles_for_several_models_keep_the_order_of_sums_of_one(architecture, precision):
    """They fit the card, and begin where those for one do."""
    rng = np.random.default_rng()
    wider = 0
    for *shape, depth, models in np.exp(rng.uniform(0, [7, 7, 7, 5], (100, 4))).astype(int).tolist():
        for operation in tiles.OPERATIONS:
            one = tiles.choose(operation, *shape, depth, architecture, precision)
            tile = tiles.widened(one, operation, *shape, architecture, None, models)
            order = (tiles.order_of_sums(each, operation, architecture) for each in (one, tile))
            assert len(set(order)) == 1 and (tile.BM % one.BM, tile.BN % one.BN) == (0, 0), (operation, one, tile)
            assert tiles.staged_bytes(tile, architecture) <= tiles.shared_memory(architecture)
            wider += tile.BM * tile.BN > one.BM * one.BN
    assert wider > 30
    large = tiles.Tile(64, 32, 32, 8, 3)
    assert tiles.order_of_sums(large, "forward", 90) != tiles.order_of_sums(large, "wgrad", 90), "wgmma, and not"
    assert tiles.order_of_sums(large, "forward", 80) == tiles.order_of_sums(large, "wgrad", 80)


@pytest.mark.parametrize("architecture", [80, 86, 90, 120])
def test_candidates_fit_the_card(architecture):
    from minigen.cuda.tools import tune

    for operation, kind in tune.SHAPES:
        found = tune.candidates(operation, kind, architecture, "tf32x3")
        assert found[0] == tiles.default(operation, kind, architecture, "tf32x3") and len(found) == len(set(found)) > 5
        assert all(tiles.staged_bytes(tile, architecture) <= tiles.shared_memory(architecture) for tile in found[1:])
