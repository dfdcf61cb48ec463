"""The comparison's harness: contenders agree before they are timed, and those that cannot be timed are named."""

from __future__ import annotations

import json
import os
import re
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bench import compare, environment, floor, oracle, process
from bench.peers import PEERS, Peer
from bench.spec import WIDTHS, Spec, check_inputs, initial_weights
from minigen.cuda.backend import PRECISIONS

SMALL = {"gan": Spec("gan", (5,), 4, 8, columns=6), "vae": Spec("vae", (5,), 4, 8, columns=6)}


def numerical_gradient(loss: Any, array: np.ndarray, step: float = 1e-6) -> np.ndarray:
    """Central differences of ``loss()`` in every element of ``array``, which is changed in place and put back."""
    gradient = np.empty_like(array)
    for index in np.ndindex(array.shape):
        kept = array[index]
        values = []
        for moved in (kept + step, kept - step):
            array[index] = moved
            values.append(loss())
        array[index] = kept
        gradient[index] = (values[0] - values[1]) / (2 * step)
    return gradient


class Recorder:
    """In Adam's place: keeps the gradients."""

    def update(self, grads: list[np.ndarray]) -> None:
        self.grads = grads


def parts(spec: Spec) -> tuple[list[np.ndarray], list[np.ndarray], np.random.Generator]:
    weights = [w.astype(np.float64) for w in initial_weights(spec)]
    return weights[:4], weights[4:], np.random.default_rng(3)


def test_oracle_discriminator_gradient_is_that_of_its_loss() -> None:
    generator, discriminator, rng = parts(SMALL["gan"])
    real, z = rng.standard_normal((4, 6)), rng.standard_normal((4, 100))
    recorder: Any = Recorder()

    def loss() -> float:
        return oracle.discriminator_steps(generator, discriminator, recorder, real, z, "common")

    loss()
    for got, array in zip(recorder.grads, discriminator, strict=True):
        np.testing.assert_allclose(got, numerical_gradient(loss, array), rtol=1e-5, atol=1e-8)
        loss()


def test_oracle_generator_gradient_is_that_of_its_loss() -> None:
    generator, discriminator, rng = parts(SMALL["gan"])
    z = rng.standard_normal((4, 100))
    _, grads = oracle.generator_gradients(generator, discriminator, z)
    for got, array in zip(grads, generator, strict=True):
        wanted = numerical_gradient(lambda: oracle.generator_gradients(generator, discriminator, z)[0], array)
        np.testing.assert_allclose(got, wanted, rtol=1e-5, atol=1e-8)


def test_oracle_vae_gradient_is_that_of_its_loss() -> None:
    encoder, decoder, rng = parts(SMALL["vae"])
    x, eps = rng.random((4, 6)), rng.standard_normal((4, 20))
    _, *both = oracle.vae_gradients(encoder, decoder, x, eps)
    for got, array in zip([*both[0], *both[1]], [*encoder, *decoder], strict=True):
        wanted = numerical_gradient(lambda: oracle.vae_gradients(encoder, decoder, x, eps)[0], array)
        np.testing.assert_allclose(got, wanted, rtol=1e-5, atol=1e-8)


def test_article_algorithm_is_another_one() -> None:
    spec = SMALL["gan"]
    data = np.random.default_rng(0).integers(0, 256, (8, 6), np.uint8)
    given = (spec, data, initial_weights(spec), *check_inputs(spec, 3))
    common, article = (oracle.train(*given, algorithm)[0] for algorithm in ("common", "article"))
    assert not oracle.agrees(dict(loss_error=np.max(np.abs(common / article - 1)), weight_error=0.0), "ieee")


class Hasty(Spec):
    @property
    def adam(self) -> dict[str, float]:
        settings = super().adam
        return settings | {"lr": 1.01 * settings["lr"]}


@pytest.mark.slow
@pytest.mark.parametrize(
    "spec",
    [Spec("gan", (128,), 32, 64), Spec("vae", (400,), 32, 64), Spec("vae", (64, 64, 64), 32, 64)],
    ids=["gan", "vae", "deep vae"],
)
def test_a_learning_rate_off_by_a_hundredth_is_found(spec: Spec) -> None:
    data = np.random.default_rng(0).integers(0, 256, (64, 784), np.uint8)
    given = (data, initial_weights(spec), *check_inputs(spec, compare.CHECK_STEPS))
    expected = oracle.train(spec, *given)
    got = oracle.train(Hasty(spec.model, spec.hidden, spec.batch, spec.n), *given)
    loss_error, weight_error = oracle.errors(*got, *expected, initial_weights(spec))
    assert weight_error > 8e-3  # 1 % of the way, and more where steps amplify it
    assert not oracle.agrees({"loss_error": loss_error, "weight_error": weight_error}, "ieee")


@pytest.mark.parametrize("bad", [np.nan, np.inf, 1e-2])
def test_errors_outside_the_tolerance_do_not_agree(bad: float) -> None:
    assert oracle.agrees({"loss_error": 1e-6, "weight_error": 1e-6}, "ieee")
    assert not oracle.agrees({"loss_error": bad, "weight_error": 1e-6}, "ieee")
    assert not oracle.agrees({"loss_error": 1e-6, "weight_error": bad}, "ieee")


def test_errors_of_wrong_shapes_and_nan_are_nan() -> None:
    weights, initial = [np.ones((2, 3))], [np.zeros((2, 3))]
    assert np.isnan(oracle.errors(np.ones((2, 1)), weights, np.ones((2, 2)), weights, initial)).all()
    assert np.isnan(oracle.errors(np.ones((2, 2)), [np.ones((3, 2))], np.ones((2, 2)), weights, initial)).all()
    assert np.isnan(oracle.errors(np.full((2, 2), np.nan), weights, np.ones((2, 2)), weights, initial)[0])
    assert np.isnan(oracle.errors(np.ones((2, 2)), [np.nan * weights[0]], np.ones((2, 2)), weights, initial)[1])


def test_flops_of_the_articles_gan() -> None:
    """Counted by hand: G 100-128-784 has 113152 multiply-adds a row, D 784-128-1 has 100480."""
    g, d, batch = 100 * 128 + 128 * 784, 784 * 128 + 128, 128
    d_step = g + 2 * d + 2 * d + 2 * 128  # G forward; D forward, weight gradients, input gradient of its last layer
    g_step = g + d + d + g + 128 * 784  # both forward; back through D; G's weight gradients, its last input gradient
    assert floor.flops(Spec("gan", (128,), batch, 60000)) == 2 * batch * (d_step + g_step)


def test_sweeps_have_each_cell_once_and_keep_the_rest_of_the_base() -> None:
    options = compare.parse(["--model", "gan", "--sweep", "all", "--batch", "128", "--width", "article"])
    found = compare.cells(options, 60000)
    assert len(set(found)) == len(found)
    assert found[0].hidden == WIDTHS["gan"]["article"] and found[0].batch == 128
    assert {s.n for s in found} == {937, 3750, 15000, 60000}
    assert {s.batch for s in found} == set(compare.SWEPT_BATCHES) and 32 in compare.SWEPT_BATCHES
    assert {s.hidden[0] for s in found if len(s.hidden) == 1} == {128, *compare.SWEPT_WIDTHS}
    assert {len(s.hidden) for s in found} == {1, 2, 4, 8}
    base = (128, 60000, (128,), options.threads)
    for s in found[1:]:
        fields = zip((s.batch, s.n, s.hidden, s.threads), base, strict=True)
        assert sum(field != original for field, original in fields) == 1


def test_sweeps_have_a_file_of_their_own_and_leave_out_the_grid() -> None:
    grid, sweep = compare.parse([]), compare.parse(["--sweep", "batch"])
    name = environment.machine_name()
    assert grid.out.name == f"compare-{name}.json" and sweep.out.name == f"sweeps-{name}.json"
    assert len(compare.cells(grid, 60000)) == 16 and {s.hidden for s in compare.cells(sweep, 60000)} == {(128,), (400,)}


@pytest.mark.parametrize(
    ("vendor", "family", "model", "name"),
    [
        ("AuthenticAMD", "25", "1", "zen3"),
        ("AuthenticAMD", "25", "17", "zen4"),
        ("GenuineIntel", "6", "143", "spr"),
        ("GenuineIntel", "6", "1", "a-processor-r-of-1999"),
        ("", "", "", "a-processor-r-of-1999"),
    ],
)
def test_result_files_are_named_after_the_machine(
    vendor: str, family: str, model: str, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = {"vendor_id": vendor, "cpu family": family, "model": model, "model name": "A Processor(R), of 1999"}
    monkeypatch.setattr(environment, "CPUINFO", tmp_path / "cpuinfo")
    (tmp_path / "cpuinfo").write_text("".join(f"{key}\t: {value}\n" for key, value in lines.items() if value))
    instructions = environment.machine_name().removeprefix(name)
    assert re.fullmatch(r"-(amx|avx512|avx2|neon|baseline)", instructions)


def test_estimate_grows_with_what_is_asked_and_is_bounded_by_cell_seconds() -> None:
    def seconds(*arguments: str) -> float:
        options = compare.parse(["--threads", "2", "--peers", "minigen", "numpy", *arguments])
        return compare.estimate(compare.cells(options, 60000), options)

    assert seconds("--model", "gan") < seconds() < seconds("--rounds", "30")
    assert seconds("--cell-seconds", "1") < seconds()


def test_turns_are_shortened_to_cell_seconds_and_never_below_a_step(tmp_path: Path) -> None:
    options = compare.parse(["--cell-seconds", "0.36", "--rounds", "9", "--chunk", "0.4"])
    cell = compare.Cell(SMALL["gan"], np.zeros((8, 6), np.uint8), tmp_path, options)
    fast, slow = ({"status": "timed", "steps_per_sample": steps} for steps in (1000, 1))
    cell.bound_turns({"fast": fast, "slow": slow})
    assert fast["steps_per_sample"] == 50 and slow["steps_per_sample"] == 1


def test_what_is_known_of_a_cell_is_kept_as_it_grows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After each contender is ready and after each round: a run that is killed leaves its samples."""
    cell = compare.Cell(SMALL["gan"], np.zeros((8, 6), np.uint8), tmp_path, compare.parse(["--rounds", "2"]))
    made = {"status": "timed", "steps_per_sample": 1, "check": {"loss_error": 0.0, "weight_error": 0.0}}
    monkeypatch.setattr(cell, "prepare", lambda name, processes, starts: (dict(made), object()))
    monkeypatch.setattr(
        cell,
        "one_round",
        lambda records, running, turn: [record.setdefault("samples", []).append(1.0) for record in records.values()],
    )
    records: dict[str, Any] = {}
    kept: list[list[int]] = []
    cell.run(["a", "b"], 1, records, lambda: kept.append([len(r.get("samples", [])) for r in records.values()]))
    assert kept == [[0], [0, 0], [1, 1], [2, 2]]


class Flipping:
    """A contender's process whose answers on the first sets of batches are off."""

    def __init__(self, cell: compare.Cell, wrong: int) -> None:
        self.cell, self.wrong, self.asked = cell, wrong, 0

    def ask(self, command: str, **arguments: Any) -> dict[str, Any]:
        if command == "check_timed":
            return {"drawn": False}
        losses, weights = self.cell.oracle("common", self.asked)
        off = 1.01 if self.asked < self.wrong else 1.0
        numbered = {f"w{k:03}": off * w for k, w in enumerate(weights)}
        np.savez(arguments["out"], losses=losses, **numbered)
        self.asked += 1
        return {}


@pytest.mark.parametrize("wrong", [0, 2, compare.CHECK_ATTEMPTS])
def test_a_contender_agrees_on_one_of_a_few_sets_of_batches_or_differs(tmp_path: Path, wrong: int) -> None:
    data = np.random.default_rng(0).integers(0, 256, (8, 6), np.uint8)
    cell = compare.Cell(SMALL["vae"], data, tmp_path, compare.parse([]))
    process: Any = Flipping(cell, wrong)
    record: dict[str, Any] = {"status": "timed", "algorithm": "common"}
    cell.check(process, record)
    assert record["check"]["attempts"] == min(wrong + 1, compare.CHECK_ATTEMPTS)
    assert record["status"] == ("differs" if wrong == compare.CHECK_ATTEMPTS else "timed")


# --- the whole harness, with contenders in processes of their own -----------------------------------------------------


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    """The bundled digits, also where the full set is at hand."""
    monkeypatch.delenv("MINIGEN_DATA", raising=False)


def records(out: Path, model: str, *peers: str) -> tuple[int, dict[str, Any]]:
    code = compare.main(["--quick", "--model", model, "--threads", "1", "--out", str(out), "--peers", *peers])
    result = json.loads(out.read_text())
    assert result["quick"] and len(result["cells"]) == 1
    return code, result["cells"][0]["contenders"]


@pytest.mark.slow
@pytest.mark.parametrize("model", ["gan", "vae"])
def test_quick_run_times_contenders_that_agree(offline: None, tmp_path: Path, model: str) -> None:
    code, found = records(tmp_path / "result.json", model, "minigen", "minigen-numpy", "numpy")
    assert code == 0 and list(found) == ["minigen", "minigen-numpy", "numpy"]
    for record in found.values():
        assert record["status"] == "timed", record
        assert oracle.agrees(record["check"], "ieee")
        assert len(record["samples"]) == 2 and min(record["samples"]) > 0
        assert record["startup_seconds"][0] > 0 and record["peak_bytes"] > 1e6
    assert os.listdir(tmp_path) == ["result.json"]


@pytest.mark.slow
def test_missing_wrong_and_crashing_contenders_are_named_and_not_timed(
    offline: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(PEERS, "absent", Peer("bench.peers.absent", "no_such_package_anywhere", "absent"))
    monkeypatch.setitem(PEERS, "wrong", Peer("tests.peers.same_noise", "numpy"))
    monkeypatch.setitem(PEERS, "crashing", Peer("tests.peers.crashing", "numpy"))
    monkeypatch.setitem(PEERS, "cheating", Peer("tests.peers.wrong_when_timed", "numpy"))
    peers = ("absent", "wrong", "crashing", "cheating", "numpy")
    code, found = records(tmp_path / "result.json", "gan", *peers)
    assert code == 1
    assert found["absent"]["status"] == "missing" and "no_such_package_anywhere" in found["absent"]["reason"]
    assert found["wrong"]["status"] == "differs" and "computes something else" in found["wrong"]["reason"]
    assert found["crashing"]["status"] == "failed" and "no room for a batch" in found["crashing"]["reason"]
    assert found["cheating"]["status"] == "differs"
    assert all("samples" not in found[name] for name in peers[:-1])
    assert found["numpy"]["status"] == "timed"


@pytest.mark.slow
def test_time_to_a_test_elbo(offline: None, tmp_path: Path) -> None:
    out = tmp_path / "result.json"
    compare.main(["--quick", "--model", "vae", "--elbo", "1000", "--out", str(out), "--peers", "numpy"])
    race = json.loads(out.read_text())["cells"][0]["elbo"]
    outcome = race["contenders"]["numpy"]
    assert outcome["epochs"] == 0.25 and outcome["steps"] == 4 and outcome["seconds"] > 0
    assert 100 < outcome["curve"][0][1] < 600


def state(pid: int) -> str:
    """R, S, T (stopped) ..., as Linux tells it."""
    return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_stopped_contender_uses_no_core(tmp_path: Path) -> None:
    """Between its turns a contender is stopped, whatever its threads would do."""
    spec = Spec("gan", (8,), 4, 8)
    data = np.zeros((8, 784), np.uint8)
    job = process.write_job(tmp_path / "job", "bench.peers.numpy_plain", spec, data, initial_weights(spec))
    worker = process.Process(sys.executable, job, patience=60)
    try:
        worker.ask("first")
        deadline = time.monotonic() + 10
        while state(worker.process.pid) != "T" and time.monotonic() < deadline:
            time.sleep(0.01)
        assert state(worker.process.pid) == "T"
        assert worker.ask("run", warmup=1, steps=2)["seconds"] > 0
    finally:
        worker.close()
    assert worker.process.returncode is not None


def test_every_operation_is_measured() -> None:
    from minigen.registry import OPERATIONS

    text = "".join(path.read_text() for path in (Path(__file__).parent.parent / "bench").glob("bench_*.py"))
    assert [name for name in OPERATIONS if not re.search(rf"\bops\.{name}\b", text)] == []


# --- on a GPU ---------------------------------------------------------------------------------------


def test_the_gpu_runs_every_test_that_takes_a_backend() -> None:
    """And every operation of the reference has its file among them."""
    from bench import gpu_tests

    listed = {part.file for part in gpu_tests.parts()}
    tests = Path(__file__).parent
    takes_a_backend = re.compile(r"^def test_\w+\((?:.*, )?(?:backend|arena|device)\b", re.MULTILINE)
    files = [path for path in tests.glob("test_*.py") if takes_a_backend.search(path.read_text())]
    found = {path.stem.removeprefix("test_") for path in files}
    host_only = {"precision", "cuda_arrays", "numpy_errors", "fit_many", "reject"}  # ``device``: one of the host
    assert listed - {"cuda_device"} == found - host_only
    tested_together = {
        "layer_operations": {"dropout", "maxout", "normalization", "self_gated", "spectral_norm"},
        "likelihood_losses": {"categorical_loss", "gaussian_loss", "mixed_loss"},
        "vae": {"importance"},
        "optimizer": {"clipping"},
    }
    for file, names in tested_together.items():
        text = (tests / f"test_{file}.py").read_text()
        assert all(name in text for name in names), file
    reference = {path.stem for path in (tests.parent / "minigen" / "reference").glob("*.py")}
    assert reference - {"__init__", "initializers", "underflow"} <= listed | set().union(*tested_together.values())
    backends = {part.backends for part in gpu_tests.parts() if part.file == "dense"}
    assert backends == {f"cuda-{precision}" for precision in PRECISIONS}


def test_tests_that_fill_the_gpus_memory_run_alone() -> None:
    from bench import gpu_tests

    text = (Path(__file__).parent / "test_cuda_device.py").read_text()
    section = text[text.index("# --- memory") : text.index("# --- arrays of other")]
    filling = re.findall(r"^def (test_\w+)\(.*\n(?:    .*\n|\n)*?    .*free_memory\(\)", section, re.MULTILINE)
    assert len(filling) == 3 and all(gpu_tests.ALONE.selected in name for name in filling)
    others = [part for part in gpu_tests.parts() if part.file == "cuda_device" and "not" in part.selected]
    assert any("not memory" in part.selected for part in others) and gpu_tests.ALONE not in gpu_tests.parts()


def test_the_gpus_comparison_has_its_default_precision_where_it_is_as_accurate() -> None:
    from bench import gpu

    own = {"minigen", "minigen-tf32x3"}
    for stage in gpu.stages().values():
        words = stage.command
        if "bench.compare" not in words:
            continue
        precision = words[words.index("--precision") + 1]
        peers = words[words.index("--peers") + 1 : words.index("--out")]
        assert {name for name in peers if name.startswith("minigen")} <= own
        assert ("minigen-tf32x3" in peers) == (precision == "ieee")
        assert all("cuda" in PEERS[name].devices for name in peers)
