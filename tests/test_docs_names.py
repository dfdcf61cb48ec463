"""Symbols, settings, calls, commands and graphs on the pages of documentation are those of the sources."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import pytest

import minigen
from doc_names import command_problem, commands, problem, shell, unknown
from doc_pages import CITING, ROOT, blocks
from minigen.registry import Row
from minigen.tracing import graph

PAGES = [*CITING, "CHANGELOG.md"]


def test_what_pages_name_is_there() -> None:
    """One test for all pages: the names of all sources are collected once."""
    texts = {page: (ROOT / page).read_text() for page in PAGES}
    assert [f"{page}: {wrong}" for page, text in texts.items() for wrong in unknown(text)] == []
    shown = [(page, command) for page, text in texts.items() for command in shell(text)]
    for path in (ROOT / "minigen").rglob("*.py"):  # examples in the help of commands and in docstrings
        examples = re.findall(r"^ +(minigen [a-z].+)$", path.read_text(), re.M)
        shown += [(path.name, command) for line in examples for command in commands(line)]
    assert len(shown) > 60
    assert [f"{page}: {command}: {wrong}" for page, command in shown if (wrong := command_problem(command))] == []


GOOD = """Network.backward ops.latent_backward(dz,heads,eps,kl_weights,encoder_work[-1].dz) Trace.find history_.metrics
    gan.sample(3,y=1) minigen.fit_many(models,X,y) fit(X,y) weights=False loss="hinge" dense_wgrad --tiny""".split()
BAD = """Mlp.backward Network.backwards dense_wgradd GanStep.computee _native.Programm plan.calll trace.findd losss=
    history_.metricz ops.latent_forwardd loss="minimaxx" minigen.tracee minigen.trace(model,X,z=3) gan.sample(nn=3)
    model.show(1,2,3,4,5,6,7,8,9) discriminator.backward(fakes,work,dy=...) fit(X,validations=V) --tinyy""".split()
BAD += ["minigen train gam", "minigen train gan --tinyy", "minigen trace gan --tiny --hidden x", "python -m bench.none"]
BAD += ["python -m bench.many --none", "pytest -m backgroun", "make tablez", 'pip install ".[tablez]"']
BAD += ["MINIGEN_CACHED=3 sh bench/gpu.sh A", "sh bench/gpuu.sh", "cd tests && python -m ptx.profil gan"]


def test_a_name_that_is_not_there_is_noticed() -> None:
    assert [name for name in GOOD if problem(name, set())] == []
    assert [name for name in BAD if not problem(name, set())] == []
    assert list(shell("```sh\nmake a && pytest b > c  # d\n```\n    sh e | make f\n")) == [
        *("make a", "pytest b", "sh e", "make f")
    ]


def test_the_worked_example_of_a_loss_is_what_the_sources_have() -> None:
    """Each line that CONTRIBUTING's diffs add is in the file that it names."""
    diffs = [b.code for b in blocks((ROOT / "CONTRIBUTING.md").read_text()) if b.language == "diff"]
    for code, name in zip(diffs, ("minigen/reference/gan_loss.py", "csrc/math/losses.hpp"), strict=True):
        source = " ".join((ROOT / name).read_text().replace("\\\n", "\n").split())
        added = [" ".join(line[1:].rstrip("\\").split()) for line in code.splitlines() if "…" not in line]
        assert len(added) > 8 and [line for line in added if line not in source] == []


@pytest.mark.skipif(shutil.which("make") is None, reason="no make")
def test_each_target_of_the_makefile_runs_what_is_there() -> None:
    """``make`` alone lists them; their commands name modules, scripts and options that are there."""
    targets = re.findall(r"^\.PHONY: (.*)$", (ROOT / "Makefile").read_text(), re.M)[0].split()
    listed = subprocess.run(["make", "PYTHON=python"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert [line.split()[0] for line in listed.splitlines()] == targets
    for target in targets[1:]:
        done = subprocess.run(["make", "-n", "PYTHON=python", target], cwd=ROOT, capture_output=True, text=True)
        assert done.returncode == 0 and done.stdout, done.stderr
        for command in (line for line in done.stdout.splitlines() if not re.match(r"python -c|page|clang", line)):
            words = command.split()
            assert command_problem(command) == "" and (len(words) > 1 or (ROOT / command).is_file()), command


# --- graphs -----------------------------------------------------------------------------------------------


def edges(code: str) -> Iterator[tuple[str, str, str]]:
    """(from, to, label) of a flowchart; dotted ones have the label that they show, or a dot."""
    for line in code.splitlines():
        parts = re.split(r'\s*(-->|-\.->|-\. "[^"]*" \.->)\s*', re.sub(r'\["[^"]*"\]', "", line.strip()))
        for start, arrow, end in zip(parts[::2], parts[1::2], parts[2::2], strict=False):
            label = re.search(r'"(.*)"', arrow)
            yield start, end, label[1] if label else "" if arrow == "-->" else "."


def drawn(page: str) -> list[tuple[str, str, str]]:
    """The edges of the one graph of a page that is drawn by hand: no code prints it."""
    (code,) = (block.code for block in blocks((ROOT / page).read_text()) if block.language == "mermaid")
    return list(edges(code))


def traced(**settings: Any) -> Any:
    rows = np.random.default_rng(0).standard_normal((8, 3)).astype(np.float32)
    return minigen.trace(minigen.GAN(hidden=(2,), latent_dim=1, batch_size=4, **settings), rows)


def test_graphs_drawn_by_hand_are_checked_here() -> None:
    by_hand = {page for page in CITING for b in blocks((ROOT / page).read_text()) if b.language == "mermaid"}
    assert by_hand == {"docs/2-gan.md", "docs/4-penalties.md"}


def test_the_graph_of_the_generators_gradient_is_the_order_of_a_step() -> None:
    layers = {"G1": "generator.0", "G2": "generator.1", "D1": "discriminator.0", "D2": "discriminator.1"}
    trace, shown = traced(), drawn("docs/2-gan.md")
    forward = [layers[start] for start, _, label in shown if not label and start in layers]
    made = [*trace.find("dense_forward", part="generate"), *trace.find("dense_forward", part="generator_gradient")]
    assert forward == [record.layer for record in made]
    backward = trace.find(part="generator_gradient")[len(trace.find("dense_forward", part="generator_gradient")) :]
    dotted = [(start, end, label) for start, end, label in shown if label]
    order = [layers[end] for _, end, _ in dotted if end in layers]
    assert order == list(dict.fromkeys(record.layer for record in backward if record.layer))
    learning = {layers[start] for start, end, label in dotted if end == "U" and label == "dW, db"}
    assert learning == {record.layer for record in backward if record.operation == "dense_wgrad"}


def test_the_graph_of_a_penalty_is_what_its_operations_take_from_each_other() -> None:
    records = traced(r1=1.0, activation="tanh").find(part="discriminator_gradient")
    penalty = next(i for i, record in enumerate(records) if record.operation == "gradient_penalty")
    after = {record.operation: record for record in reversed(records[penalty:])}
    delta1, g = records[penalty - 2], records[penalty - 1]
    nodes = {delta1.number: "d1", g.number: "g", records[penalty].number: "v"}
    nodes |= {after["dense_forward"].number: "zd1", after["activation_backward"].number: "t1"}
    nodes |= {after["activation_curvature"].number: "c1"}
    nodes |= {record.number: "y1" for record in records if record.layer == "discriminator.0" and "b" in record.inputs}
    made = {(nodes.get(a.number), nodes.get(b.number)) for a, b, _ in graph.edges(records)}
    made = {(a, b) for a, b in made if a and b}
    shown = {("v" if a == "P" else a, "v" if b == "P" else b) for a, b, _ in drawn("docs/4-penalties.md")}
    assert {(a, b) for a, b in shown if a in nodes.values() and b in nodes.values() and a != b} == made
    assert len(made) >= 8


# --- the way of one call ----------------------------------------------------------------------------------


CLASSES = {"network": "Network", "optimizer": "Optimizer", "fit": "Estimator.fit"}


def named(heading: str, point: str = "") -> list[str]:
    """What a section of the architecture, or one of its points, names in code."""
    section = (ROOT / "docs" / "architecture.md").read_text().partition(f"## {heading}")[2].partition("\n## ")[0]
    text = section.partition(f"- **{point}")[2].partition("\n- ")[0] if point else section
    names = re.findall(r"`(?:minigen\.|ops\.|plan\.)?((?:\w+\.)?\w+)(?:\([^`]*\))?`", text)
    return list(dict.fromkeys(names))


def way_of(names: list[str], call: Callable[[], Any]) -> list[str]:
    """Those of ``names`` that ``call`` calls; they must be called in this order."""
    called: list[str] = []

    def watch(frame: FrameType, event: str, _: Any) -> None:
        if event == "call" and "minigen" in frame.f_code.co_filename:
            row = frame.f_locals.get("row")  # what registry.py puts around each operation has its row
            called.append(row.name if isinstance(row, Row) else frame.f_code.co_qualname)

    sys.setprofile(watch)
    try:
        call()
    finally:
        sys.setprofile(None)
    way, at = [], 0
    for name in names:
        start, dot, rest = name.partition(".")
        full = f"{CLASSES.get(start, start)}{dot}{rest}"
        ends = (full, f"{full}.__init__")
        calls = [i for i, one in enumerate(called) if one in ends or (not dot and one.endswith(f".{full}"))]
        if calls:
            way.append(name)
            at = next((i for i in calls if i >= at), -1)
            assert at >= 0, f"{way}: the last one is not called after the others"
    return way


SMALL: dict[str, Any] = {"batch_size": 4, "hidden": (3,), "latent_dim": 2}


def test_the_way_of_one_call_is_the_one_that_the_architecture_tells() -> None:
    """Functions that the list names are called, in its order, by a training on the CPU."""
    pytest.importorskip("minigen.cpu", reason="no compiled backend", exc_type=ImportError)
    X = np.random.default_rng(0).standard_normal((8, 3)).astype(np.float32)
    names = named("The way of one call, on the CPU")
    way = way_of(names, lambda: minigen.train_gan(X, device="cpu", epochs=1, progress=False, **SMALL))
    assert len(way) >= 15
    assert {"train_gan", "GanStep.compute", "gan_loss_discriminator", "Backend.do", "CpuBackend.program"} <= set(way)


@pytest.mark.slow
def test_what_stands_on_it_ends_in_a_fit() -> None:
    X = np.random.default_rng(0).standard_normal((60, 3)).astype(np.float32)
    vae = minigen.VAE(likelihood="gaussian", epochs=1, device="numpy", **SMALL)
    several = named("What stands on it", "Several models at once")
    assert {"fit_many", "fit"} <= set(way_of(several, lambda: minigen.fit_many([vae], X, progress=False)))
    detector = minigen.AnomalyDetector(latent_prior="normal", members=1, steps=2, device="numpy")
    unusual = way_of(named("What stands on it", "Unusual rows"), lambda: detector.fit(X).score_samples(X))
    assert {"AnomalyDetector.fit", "_member", "fit_many", "score_samples"} <= set(unusual)
    more = named("What stands on it", "More rows of rare classes")
    sampler = minigen.Oversampler(steps=2)
    assert "Oversampler.fit_resample" in way_of(more, lambda: sampler.fit_resample(X, [0] * 40 + [1] * 20))


@pytest.mark.slow
def test_tables_end_in_a_fit(tmp_path: Path) -> None:
    pytest.importorskip("narwhals")
    pytest.importorskip("pandas")
    (tmp_path / "t.csv").write_text("a,b\n" + "".join(f"{i % 7}.5,{'xyz'[i % 3]}\n" for i in range(60)))
    model = minigen.TableVAE(epochs=1, hidden=(3,), latent_dim=2, latent_prior="normal", device="numpy")
    names = named("What stands on it", "Tables")
    assert {"TableModel.fit", "_inner", "sample"} <= set(
        way_of(names, lambda: model.fit(tmp_path / "t.csv", progress=False).sample(3))
    )
