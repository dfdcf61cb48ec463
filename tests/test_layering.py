"""How the modules of minigen depend on each other: in layers, without cycles, none of them long."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import minigen

ROOT = Path(__file__).resolve().parent.parent
MOST_LINES = 450
LAYERS = (
    "errors checks paths streams missing_native",
    "files",
    "datasets",
    "placement",
    "reference step.record",
    "registry",
    "ops_layers ops_gan ops_optimizer ops_vae",
    "ops",
    "backend step",
    "reference_backend cpu cuda device",
    "models",
    "plotting notebook",
    "training",
    "estimators.scaling",
    "output",
    "estimators metrics tables",
    "report",
    "gradcheck_plain gradcheck_tools gradcheck_formulas gradcheck_layers gradcheck_operations gradcheck_vae",
    "gradcheck_steps gradcheck",
    "anomalies augmentation",
    "run_folder",
    "tracing",
    "cuda.tools",
    "cli __main__",
)
"""From the bottom to the top: modules and packages may import from their own layer and from those below."""


def name_of(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {name_of(path): path for path in sorted((ROOT / "minigen").rglob("*.py"))}
HOMES = {f"minigen.{name}": home for name, home in minigen._HOMES.items()}  # of what ``from minigen import GAN`` gives


def imported(tree: ast.AST, package: str) -> Iterator[str]:
    """Dotted names of all that is imported, at the top or in functions, but not for the type checker alone."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) + 1 - node.level] if node.level else []
            module = ".".join([*above, *filter(None, [node.module])])
            yield from (f"{module}.{alias.name}" for alias in node.names)
        yield from imported(node, package)


def dependencies(name: str, text: str, is_package: bool) -> set[str]:
    """The modules of minigen that the module of this ``name`` imports."""
    package = name if is_package else name.rpartition(".")[0]
    found = set()
    for dotted in imported(ast.parse(text), package):
        dotted = HOMES.get(dotted, dotted)
        while dotted not in MODULES and "." in dotted:
            dotted = dotted.rpartition(".")[0]
        found.add(dotted)
    return (found & set(MODULES)) - {name, "minigen"}  # minigen itself imports nothing until it is asked to


GRAPH = {name: dependencies(name, path.read_text(), path.name == "__init__.py") for name, path in MODULES.items()}


def cycles(graph: dict[str, set[str]]) -> list[str]:
    """One cycle, if there is any, as ``a -> b -> a``."""
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return [" -> ".join(reversed(error.args[1]))]
    return []


def test_there_is_no_cycle_of_imports():
    assert cycles(GRAPH) == []


def rank(name: str) -> int:
    """The layer of a module: that of the longest name in LAYERS that it begins with."""
    places = {entry: i for i, layer in enumerate(LAYERS) for entry in layer.split()}
    entry = name.removeprefix("minigen.")
    while entry and entry not in places:
        entry = entry.rpartition(".")[0]
    assert entry, f"give {name} a place in LAYERS"
    return places[entry]


@pytest.mark.parametrize("loss", ["hinge", "least_squares"])
def test_a_loss_of_the_gan_is_written_in_few_files(loss):
    """The reference, the C++ and the Triton kernels, the gradient check's own formulas; and a trace tells of it."""
    paths = [path for top in ("minigen", "csrc") for path in (ROOT / top).rglob("*.*") if path.suffix != ".pyc"]
    texts = {path: path.read_text() for path in paths if path.suffix in (".py", ".cpp", ".hpp", ".cu", ".cuh", ".inc")}
    assert len([path for path, text in texts.items() if loss in text]) <= 5


def test_the_formatter_is_kept_from_signatures_of_kernels_only():
    """As CONTRIBUTING says, and only where it would add many lines."""
    skips = [(name, line) for name, path in MODULES.items() for line in path.read_text().splitlines() if "fmt:" in line]
    assert {line for _, line in skips} <= {"):  # fmt: skip"} and len(skips) < 40
    assert all(name.startswith("minigen.cuda.kernels.") for name, _ in skips)


def test_a_module_imports_from_its_layer_and_those_below():
    ranks = {name: rank(name) for name in MODULES if name != "minigen"}
    upward = [f"{name} -> {to}" for name in ranks for to in GRAPH[name] if ranks[to] > ranks[name]]
    assert upward == []


def test_cycles_and_hidden_imports_are_found():
    text = """
from __future__ import annotations
from typing import TYPE_CHECKING
if TYPE_CHECKING:
    from minigen.training.loop import EpochEnd
def f():
    import minigen.cpu
    from minigen import GAN, checks
    from . import network
    from ..reference import dense
"""
    found = dependencies("minigen.models.x", text, is_package=False)
    assert found == {
        "minigen.cpu",
        "minigen.checks",
        "minigen.estimators.gan",
        "minigen.models.network",
        "minigen.reference.dense",
    }
    assert cycles({"a": {"b"}, "b": {"c"}, "c": {"a"}, "d": {"a"}}) in (
        ["a -> b -> c -> a"],
        ["b -> c -> a -> b"],
        ["c -> a -> b -> c"],
    )
    assert cycles({"a": {"b", "c"}, "b": {"c"}}) == []


def test_no_file_is_long():
    files = [path for folder in ("minigen", "csrc") for path in (ROOT / folder).rglob("*.*")]
    sources = [path for path in files if path.suffix in (".py", ".cpp", ".hpp", ".cu", ".cuh", ".inc")]
    lines = {str(path.relative_to(ROOT)): len(path.read_text().splitlines()) for path in sources}
    too_long = {name: count for name, count in lines.items() if count > MOST_LINES}
    assert too_long == {}
