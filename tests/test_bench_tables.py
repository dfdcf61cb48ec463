"""Tables of the documents against the result files: regenerated in memory and compared."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest

from bench import busy, environment, floor, many, report, report_gpu
from bench.spec import Spec

MACHINE = {"peak_gflops": 100.0, "peak_method": "a test", "bandwidth_gbytes": 10.0}


def record(seconds: float) -> dict[str, Any]:
    return {
        "status": "timed",
        "versions": {"numpy": "2"},
        "startup_seconds": [0.5],
        "peak_bytes": 2e8,
        "device_peak_bytes": None,
        "check": {"loss_error": 1e-6, "weight_error": 2e-6},
        "samples": [seconds * factor for factor in (0.9, 1.0, 1.0, 1.1)],
    }


@pytest.fixture
def result() -> dict[str, Any]:
    """A made-up comparison: three batches, minigen twice as fast as NumPy, PyTorch not installed."""
    cells = []
    for batch in (128, 32, 512):
        spec = Spec("gan", (128,), batch, 60000)
        contenders = {"numpy": record(batch * 2e-5), "minigen": record(batch * 1e-5)}
        contenders["torch"] = {"status": "missing", "reason": "torch is not installed"}
        cells.append({"spec": spec.to_json(), "floor": floor.floor(spec, MACHINE), "contenders": contenders})
    return {
        "schema": 1,
        "kind": "compare",
        "quick": False,
        "commit": "0" * 40,
        "dirty": False,
        "created": "2026-01-01",
        "machine": {"cpu": "a test"},
        "limits": {"1": MACHINE},
        "data": "made up",
        "load_before": 0.0,
        "cells": cells,
    }


def test_documents_say_what_the_result_files_say() -> None:
    for path, (present, wanted) in report.documents().items():
        assert present == wanted, f"{path.name} is out of date: run python -m bench.report"


def test_results_have_everything() -> None:
    assert "<!-- bench:everything -->" in (report.ROOT / "bench" / "RESULTS.md").read_text()


def test_cell_table(result: dict[str, Any]) -> None:
    text = report.compare_tables(result)["gan"]
    rows = [[field.strip() for field in line.strip("|").split("|")] for line in text.splitlines()]
    assert [row[0] for row in rows[2:5]] == ["minigen", "NumPy written plainly", "PyTorch, eager"]
    assert rows[2][1:6] == ["1.28", "1.25 to 1.31", "1.00", "1.67", "0.500"]
    assert rows[3][1:4:2] == ["2.56", "2.00"]
    assert rows[4][1] == "torch is not installed"


def test_sweep_table_is_sorted_and_marks_the_fastest(result: dict[str, Any]) -> None:
    lines = report.compare_tables(result)["gan-batch"].splitlines()
    assert lines[0].endswith("| 32 | 128 | 512 |")
    assert "| minigen | **0.320** | **1.28** | **5.12** |" in lines
    assert "| PyTorch, eager | – | – | – |" in lines


def test_a_changed_figure_is_found(result: dict[str, Any]) -> None:
    tables = report.all_tables({"compare-spr-amx": result})
    text = report.render("# x\n<!-- bench:compare-spr-amx/gan -->\n<!-- /bench:compare-spr-amx/gan -->\n", tables)
    assert "1.28" in text and report.render(text, tables) == text
    altered = text.replace("1.28", "1.08")
    assert report.render(altered, tables) == text != altered


def test_an_unknown_table_is_an_error_that_lists_the_known(result: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"no table 'compare-spr-amx/nothing'.*compare-spr-amx/gan-batch"):
        report.render(
            "<!-- bench:compare-spr-amx/nothing -->\n<!-- /bench:compare-spr-amx/nothing -->",
            report.all_tables({"compare-spr-amx": result}),
        )


def test_an_unknown_schema_is_an_error(result: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "old.json").write_text(json.dumps(result | {"schema": 0}))
    with pytest.raises(ValueError, match="schema"):
        report.load_results(tmp_path)


def test_kernel_table() -> None:
    def benchmark(library: str, seconds: float) -> dict[str, Any]:
        info = {"operation": "random", "case": "normal (128, 100)", "library": library, "seconds": seconds}
        rates = {"gbytes_per_second": 2e-5 / seconds, "percent_of_bandwidth": 1e-4 / seconds}
        return info | {"precision": "float32"} | rates

    rows = [benchmark("minigen", 2e-6), benchmark("numpy", 4e-6)]
    result = {
        "machine": {"cpu": "a test"},
        "versions": {"numpy": "2"},
        "openblas": {"by itself": "Haswell"},
        "limits": MACHINE,
        "not_installed": ["torch"],
        "created": "2026-01-01",
        "commit": None,
        "benchmarks": rows,
    }
    tables = report.kernel_tables(result)
    assert "| normal (128, 100) | float32 | **2.00** (50 %) | 4.00 (25 %) | 10.0 GB/s |" in tables["random"]
    assert "| not installed | torch |" in tables["machine"] and "Haswell" in tables["machine"]


def test_table_of_many_models() -> None:
    """The fastest is bold; eight on two cores took 1.25 times half of eight times one's."""
    names = ("minigen", "jax-vmap", "torch-func")
    timed = [
        {name: record(seconds) for name, seconds in zip(names, each, strict=True)} for each in ((2, 1, 4), (1, 2, 4))
    ]
    timed[1]["torch-func"] = {"status": "missing", "reason": "not installed"}
    cells = [{"models": models, "contenders": each} for models, each in zip((1, 16), timed, strict=True)]
    eight = {"models": 8, "cores": 2, "together": record(1.25), "alone": record(2.0)}
    facts = {"machine": {"cpu": "a test"}, "commit": "0" * 40, "dirty": False, "created": "2026-11-27"}
    made = report.many_tables({"threads": 2, "cells": cells, "eight": eight, **facts})
    assert "| minigen.fit_many | 0.500 | **1.00** |" in made["model-steps"]
    assert "| PyTorch, torch.func | 0.250 | missing |" in made["model-steps"] and "| 16 models |" in made["model-steps"]
    assert "8 models on 2 cores take 1.25 times" in made["eight"] and "at most 1.05 is not reached" in made["eight"]
    made = report.many_tables({"threads": 2, "cells": cells, "eight": {**eight, "apart": record(1.1)}, **facts})
    assert "2 processes of one model each, which share nothing but the machine, take 1.10 times." in made["eight"]


def test_table_of_many_models_on_a_gpu() -> None:
    contenders = {name: record(seconds) for name, seconds in zip(many.ON_GPU, (1e-6, 2e-6, 4e-6, 8e-6), strict=True)}
    facts = {"machine": {"cpu": "a test", "gpu": "a card"}, "commit": "0" * 40, "dirty": False, "created": "2026-11-27"}
    result = {"device": "cuda", "threads": 2, "cells": [{"models": 16, "contenders": contenders}], **facts}
    tables = report_gpu.tables({"stages": {"many": {"status": "timeout", "result": result}}, "digest": "", **facts})
    assert "| minigen.fit_many, exact=False | **1000000** |" in tables["many-model-steps"]
    assert "a card; commit" in tables["many-model-steps"]


@pytest.mark.slow
def test_many_models_are_checked_and_timed_in_turns(tmp_path) -> None:
    bench = many.Bench(tmp_path, 2, rounds=2, epochs=2, device="cpu", quick=True)
    found: dict[str, Any] = {}
    apart = many.Timed("minigen", bench.spec(1, 1), models=2, processes=2)
    bench.measure({"two": many.Timed("minigen", bench.spec(2, 2)), "apart": apart}, found, lambda: None)
    assert all(each["status"] == "timed" and len(each["samples"]) == 2 for each in found.values())
    assert all(each["check"]["weight_error"] < 1e-3 for each in found.values())


def test_busy_table() -> None:
    cell = {"1 thread": [2e-3, 1e-3, 3e-3], "2 threads": [4e-3], "as it chooses": [2.2e-3]}
    facts = {"commit": None, "created": "2026-01-01", "machine": {"cpu": "a test", "cores": 2, "system": "Linux"}}
    text = report.busy_tables({"sample": "turn", "cells": {"0": cell, "2": cell}, **facts})["steps"]
    assert (
        "| as it chooses | 2.20 (1.10), 2.20 to 2.20 |" in text
        and "| 2.00 (1.00), 1.00 to 3.00 |" in text
        and "2 busy loops" in text
    )
    assert "a test, 2 cores, Linux" in text
    assert "at worst: 1.10 times" in text and "at most 1.15 is reached. A sample is one turn; at least 1 each" in text
    slow = {**cell, "OMP_NUM_THREADS=8": [2.4e-3]}
    text = report.busy_tables({"cells": {"0": cell, "2": slow}, **facts})["steps"]
    assert "at worst: 1.20 times" in text and "**not** reached" in text


@pytest.mark.skipif(not Path("/proc/stat").exists(), reason="no /proc that tells of processor time")
def test_programs_beside_the_benchmark_are_told_from_its_own_loops() -> None:
    with busy.busy_loops(1) as loops:
        deadline = time.monotonic() + 10
        while busy.seconds_of_others([]) - busy.seconds_of_others(loops) < 0.3:
            assert time.monotonic() < deadline, "the loop's time counts as that of others"
            time.sleep(0.05)


def test_epochs_and_turns_are_not_mixed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    monkeypatch.setattr(busy, "RESULTS", tmp_path)
    monkeypatch.setattr(busy.sys, "argv", ["busy", "--add", "--rounds", "0", "--name", "some"])
    (tmp_path / "busy-some.json").write_text(json.dumps({"cells": {"0": {"1 thread": [1e-3]}}}))
    with pytest.raises(SystemExit):
        busy.main()
    assert "without --add it is written anew" in capsys.readouterr().err


def test_who_is_ahead_of_minigen_is_said(result: dict[str, Any]) -> None:
    assert "minigen is the fastest in all 3." in report.compare_tables(result)["gan-batch"]
    result["cells"][2]["contenders"]["numpy"] = record(512e-5)
    result["cells"][2]["contenders"]["minigen"] = record(640e-5)
    text = report.compare_tables(result)["gan-batch"]
    assert "Ahead of minigen: NumPy written plainly at 512 (0.800 of minigen's time)." in text


def test_a_file_of_sweeps_has_no_table_of_one_cell(result: dict[str, Any]) -> None:
    assert "gan" in report.compare_tables(result)
    assert set(report.compare_tables(result | {"arguments": {"sweep": ["batch"]}})) == {"machine", "gan-batch"}


def test_elbo_table(result: dict[str, Any]) -> None:
    outcome = {"seconds": 1.5, "steps": 936, "epochs": 2.0, "curve": [[0.7, 120.0], [1.5, 109.94]]}
    never = {"seconds": None, "steps": 936, "epochs": 2.0, "curve": [[9.0, 111.0]]}
    text = report.elbo_table({"target": 110.0, "contenders": {"numpy": never, "minigen": outcome}})
    assert text.splitlines()[2:] == [
        "| minigen | 1.50 | 936 | 2.00 | 109.9 |",
        "| NumPy written plainly | not reached | 936 | 2.00 | 111.0 |",
    ]


def test_numbers_of_a_list_share_a_line(tmp_path: Path) -> None:
    value = {"samples": [1.5, -2e-7], "names": ["a, [1, 2]"], "rows": [{"x": 1}], "none": [], "curve": [[1, 2.5]]}
    environment.write_json(tmp_path / "x.json", value)
    assert json.loads((tmp_path / "x.json").read_text()) == value
    assert '"samples": [ 1.5, -2e-07 ]' in (tmp_path / "x.json").read_text()


def test_plot_is_a_picture(result: dict[str, Any], tmp_path: Path) -> None:
    image = pytest.importorskip("matplotlib.image")
    ((name, cells),) = report.sweep_plots(result).values()
    report.plot(tmp_path / "plot.png", "a test", name, cells)
    pixels = image.imread(tmp_path / "plot.png")
    assert pixels.shape[0] > 300 and pixels.shape[1] > 500 and pixels.std() > 0.05


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.001234, "0.00123"), (0.5, "0.500"), (1.0, "1.00"), (12.34, "12.3"), (123.4, "123"), (0.0, "0.00")],
)
def test_number(value: float, text: str) -> None:
    assert report.number(value) == text


# --- of a GPU ---------------------------------------------------------------------------------------------------------


def step(model: str, precision: str = "tf32x3") -> dict[str, Any]:
    """A made-up measurement: 20 us a step from graphs of 32, 24 from single ones."""
    launch = {"kernel": "dense_forward", "programs": 128, "lower_bound_seconds": 1e-6, "samples": [3e-6, 4e-6, 5e-6]}
    return {
        "model": model,
        "precision": precision,
        "lower_bound_seconds": 2e-6,
        "lower_bounds_from": "a test",
        "graphs": {"32": [2e-5, 2e-5], "1": [2.4e-5]},
        "launches": [launch, launch],
        "without_graphs": [5e-5],
    }


@pytest.fixture
def gpu_result(result: dict[str, Any]) -> dict[str, Any]:
    """A made-up call: its comparison was cut off after the first contender's turns."""
    profile = {"kernel": "k", "seconds": 3.5e-6, "compute_percent": 12.3, "memory_percent": 45.6}
    cell = result["cells"][0]
    cell["contenders"]["torch-graph"] = {"status": "timed", "startup_seconds": [1.0]}
    stages: dict[str, Any] = {
        "facts": {
            "status": "ok",
            "seconds": 6.0,
            "estimate": 6,
            "result": {"detail": "a card", "versions": {"triton": "3.6.0"}},
        },
        "smoke": {
            "status": "failed",
            "seconds": 9.0,
            "result": {
                "milestones": [
                    {"name": "one kernel", "status": "ok", "seconds": 0.5},
                    {"name": "gan launch 1", "status": "ok", "seconds": 0.1, "largest_error": 3e-7},
                    {"name": "gan launch 2", "status": "failed", "error": "error 1e-2 | of 2e-5", "seconds": 0.1},
                ]
            },
        },
        "steps-tf32x3": {"status": "timeout", "seconds": 40.0, "result": {"steps": [step("gan"), {}]}},
        "costs": {
            "status": "ok",
            "seconds": 4.0,
            "result": {
                "costs": [
                    {"name": "empty graph node", "nodes": 256, "samples": [1e-6, 1.1e-6, 1.2e-6]},
                    {"name": "resident clusters", "size": 16, "clusters": 7, "samples": []},
                    {"name": "byte of a copy, read and written", "bytes": 1, "samples": [4e-13]},
                ]
            },
        },
        "sanitizer": {"status": "failed", "result": {"memcheck": {"exit_code": 9, "summary": "2 errors"}}},
        "ncu": {"status": "ok", "result": {"gan": {"launches": [profile, profile]}, "vae": {"error": "cut off"}}},
        "compare-gan": {"status": "timeout", "result": {"cells": [cell]}},
        "training": {
            "status": "ok",
            "result": {
                "gan": [
                    {"epochs": 20, "seconds": 0.5, "seconds_in_steps": 0.3},
                    {"epochs": 1000, "skipped": "would take 90 s"},
                ],
                "vae": [],
            },
        },
        "tests": {
            "status": "timeout",
            "result": {
                "of": 9,
                "parts": [
                    {
                        "file": "dense",
                        "backends": "cuda",
                        "selected": "cuda",
                        "passed": False,
                        "summary": "= 1 failed =",
                    }
                ],
            },
        },
        "tune": {"status": "skipped", "reason": "the time was used up"},
    }
    return {
        "schema": 1,
        "kind": "gpu",
        "created": "2026-01-01",
        "commit": None,
        "dirty": None,
        "digest": "0" * 64,
        "rehearsal": False,
        "stages": stages,
    }


def test_tables_of_a_gpu(gpu_result: dict[str, Any]) -> None:
    tables = report.gpu_tables(gpu_result)
    assert "| GAN, tf32x3 | 2.00 | 24.0 | **20.0** | 50.0 |" in tables["steps"] and "a test" in tables["steps"]
    launches = tables["launches-gan-tf32x3"].splitlines()
    assert launches[2] == "| dense_forward | 128 | 1.00 | 4.00 | 3.50 | 12 % | 46 % | – |"
    assert launches[-1].startswith("| sum |  | 2.00 | 8.00 |")
    assert "| gan launch 1 | ok | 0.100 | 3e-07 |" in tables["smoke"]
    assert "| gan launch 2 | failed | 0.100 | error 1e-2 / of 2e-5 |" in tables["smoke"]
    assert "| empty graph node | nodes 256 | 1.10 µs |" in tables["costs"]
    assert "| 7 |" in tables["costs"] and "2500 GB/s" in tables["costs"]
    assert "| memcheck | 9 | 2 errors |" in tables["sanitizer"]
    assert "| PyTorch, CUDA graph | not timed any more |" in tables["compare-gan"]
    assert "| GAN | 1000 | would take 90 s | – |" in tables["training"]
    assert "**failed**" in tables["tests"] and "8 parts did not come to their turn" in tables["tests"]
    assert "| tune | skipped | – | – |" in tables["stages"] and "| triton | 3.6.0 |" in tables["machine"]


def test_a_call_of_which_nothing_came_has_its_stages_table(gpu_result: dict[str, Any]) -> None:
    gpu_result["stages"] = {"facts": {"status": "failed", "seconds": 1.0, "output": "no GPU"}}
    assert set(report.gpu_tables(gpu_result)) == {"machine", "stages"}
    gpu_result["stages"]["steps"] = {"status": "timeout", "seconds": 1.0, "result": {"steps": [{}]}}
    assert set(report.gpu_tables(gpu_result)) == {"machine", "stages"}


def test_documents_say_that_no_gpu_has_run(gpu_result: dict[str, Any]) -> None:
    assert report.all_tables({})["gpu"] == report.NO_GPU
    assert report.all_tables({"gpu-pretended": gpu_result | {"rehearsal": True}})["gpu"] == report.NO_GPU
    measured = report.all_tables({"gpu-card-a": gpu_result})
    assert "### gpu-card-a" in measured["gpu"] and "**20.0**" in measured["gpu"]
    assert "<!-- bench:gpu -->" in (report.ROOT / "bench" / "RESULTS.md").read_text()
