"""What pages name in `code`: symbols, calls, settings and commands, held against the sources and the real parsers."""

from __future__ import annotations

import ast
import dataclasses
import importlib
import inspect
import re
import shlex
import tomllib
from collections.abc import Iterator
from functools import cache
from typing import Any

import minigen
from doc_pages import FENCE, ROOT, importable
from minigen.models.gan import GanStep
from minigen.models.network import Network
from minigen.models.optimizer import Optimizer

SPAN = re.compile(r"`([^`\n]+)`")
LANGUAGES = ("python", "c", "diff", "text", "math", "mermaid")  # blocks whose names a page may go on to use
# What a page calls an object of these classes.
OBJECTS: dict[str, tuple[type, ...]] = {
    **dict.fromkeys(("network", "net", "generator", "discriminator", "encoder", "decoder"), (Network,)),
    **dict.fromkeys(("model", "gan", "vae", "labelled"), (minigen.GAN, minigen.VAE)),
    "step": (GanStep,),
    "optimizer": (Optimizer,),
    "detector": (minigen.AnomalyDetector,),
}
# Of other libraries, tools and hardware: what no source here defines.
FOREIGN = set(
    """np torch tf jax nn lax tl autograd vmap detach stop_gradient requires_grad_ GradientTape train_on_batch predict
    check_estimator backward ImportError NPY_ENABLE_CPU_FEATURES OPENBLAS_CORETYPE CUDA_MODULE_LOADING CXX PYTHON OUT
    TRITON_INTERPRET ACQBULK LDG LDGSTS STG wgmma jit_compile capturable create_graph while""".split()
)
COMMANDS = re.compile(r"^(?:[A-Z_]+=\S+ )*(?:minigen|pytest|pip|make|sh|python3?|pre-commit|cd) ")
DEFINED = [  # by a word before it, by what comes after it, as an argument, as a string
    re.compile(r"\b(?:def|class|struct|enum|using|define|namespace|import|as) (\w+)"),
    re.compile(r"\b(\w++)(?: ?=(?!=)|: |\()"),
    re.compile(r"[(,] ?(\w+)[,)]"),
    re.compile(r"""["']([\w.:-]+(?:[ ,]\w+)*)["']"""),
]


@cache
def defined() -> set[str]:
    """Every name that some source defines, takes as an argument, calls, or has as a string."""
    names: set[str] = set()
    for top in ("minigen", "csrc", "bench", "tests", "examples"):
        for path in (ROOT / top).rglob("*.*"):
            if path.suffix in (".py", ".cpp", ".hpp", ".cu", ".cuh", ".inc", ".sh") and "doc" not in path.name:
                text = path.read_text()
                names.update([path.stem], *(pattern.findall(text) for pattern in DEFINED))
    for text in (ROOT / "pyproject.toml", *ROOT.glob("bench/peers/*.txt")):
        names.update(re.findall(r"[\w-]+", text.read_text()))
    return names


@cache
def classes() -> dict[str, Any]:
    """The classes of the package by name, imported when they are asked for."""
    found = {}
    for path in (ROOT / "minigen").rglob("*.py"):
        for name in re.findall(r"^class (\w+)", path.read_text(), re.M):
            module = path.relative_to(ROOT).with_suffix("").as_posix().replace("/", ".").removesuffix(".__init__")
            found[name] = module
    return found


def unknown(page_text: str) -> Iterator[str]:
    """Each `span` of a page that names what is not there, with the reason."""
    text = re.sub(r"\]\([^)\s]*\)", "]", FENCE.sub("", page_text))
    own = set(re.findall(r"[A-Za-z_]\w*", "\n".join(m[3] for m in FENCE.finditer(page_text) if m[2] in LANGUAGES)))
    for span in dict.fromkeys(SPAN.findall(text)):
        if reason := problem(span, own):
            yield f"`{span}`: {reason}"


def problem(span: str, own: set[str]) -> str:
    """Why a span is wrong, "" if it is not; ``own`` are the names in the page's own blocks."""
    if COMMANDS.match(span) or span == "minigen":
        reasons = (command_problem(command) for command in commands(span))  # `minigen info` may lack its model here
        return next((reason for reason in reasons if reason and not reason.startswith("Missing argument")), "")
    if span.startswith("--"):
        return next((f"no option {o}" for o in re.findall(r"--[\w-]+", span) if o not in options()), "")
    if re.search(r"[/<>*@^|…~$]|\.\w*(?:py|[ch]pp|md|cu|json|toml|txt|png|html|csv|npy|npz|gz|parquet|inc)\b", span):
        return ""  # a path, which other tests look up, or a formula
    names = re.findall(r"[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*", span)
    if re.fullmatch(r"\.?[\w.]+", span):
        return name_problem(span.lstrip("."), own)
    if re.fullmatch(r"[\w.-]+(?: [\w.-]+)*|[\w ,-]+", span) and span in defined():
        return ""
    try:
        tree = ast.parse(f"f({span})" if re.match(r"\w+=", span) else span.replace("=...", "=None"), mode="eval").body
    except SyntaxError:
        if re.fullmatch(r"\w+=", span):
            return "" if span[:-1] in parameters() else "no such setting"
        return next((r for name in names if (r := name_problem(name, own))), "") if "." in span else ""
    if isinstance(tree, ast.Call):
        return call_problem(tree, own)
    return next((r for name in names if "." in name and (r := name_problem(name, own))), "")


def call_problem(call: ast.Call, own: set[str]) -> str:
    """Of `f(x, ..., weights=False)`: whether f is there and takes such arguments."""
    name = ast.unparse(call.func).replace("()", "")  # `Oversampler().fit_resample(X, y)`
    keywords = [keyword.arg for keyword in call.keywords if keyword.arg]
    if name == "f":  # `loss="minimax"`
        texts = [
            k.value.value for k in call.keywords if isinstance(k.value, ast.Constant) and isinstance(k.value.value, str)
        ]
        missing = [k for k in keywords if k not in parameters() | FOREIGN] + [t for t in texts if t not in defined()]
        return f"no such setting: {missing[0]}" if missing else ""
    if name.partition(".")[0] in FOREIGN or name in FOREIGN:
        return ""
    if reason := name_problem(name, own):
        return reason
    found = resolved(name)
    if not found:
        return next((f"no argument {k}" for k in keywords if k not in parameters() | FOREIGN), "")
    reasons = [argument_problem(function, call, keywords) for function in found]
    return "" if "" in reasons else reasons[0]


def argument_problem(function: Any, call: ast.Call, keywords: list[str]) -> str:
    signature = inspect.signature(function)
    elided = any(isinstance(a, ast.Constant) and a.value is ... for a in call.args)
    positional = [] if elided else [None] * len(call.args)
    accepted = set(signature.parameters)
    if any(p.kind is p.VAR_KEYWORD for p in signature.parameters.values()):
        accepted |= {name for kind in (minigen.GAN, minigen.VAE) for name in inspect.signature(kind).parameters}
        keywords = [k for k in keywords if k in signature.parameters] if set(keywords) <= accepted else keywords
    try:
        if not isinstance(function, type) and "self" in signature.parameters:
            positional = [None, *positional]
        signature.bind_partial(*positional, **dict.fromkeys(keywords))
    except TypeError as error:
        return str(error)
    return ""


def resolved(name: str) -> list[Any]:
    """The functions that a dotted name may mean; none where that cannot be told."""
    root, _, rest = name.rpartition(".")
    if name.startswith("minigen."):
        parts = name.split(".")
        value: Any = minigen
        for i, part in enumerate(parts[1:], 2):
            value = getattr(value, part, None) or importlib.import_module(".".join(parts[:i]))
        return [value]
    if root in OBJECTS:
        return [f for kind in OBJECTS[root] if callable(f := getattr(kind, rest, None))]
    if root == "ops":
        return [getattr(minigen.ops.Operations, rest)]
    if not root:
        public = [getattr(minigen, home) for home in minigen._HOMES]
        return [f for f in public if getattr(f, "__name__", "") == name] or [
            f for kind in public if isinstance(kind, type) and callable(f := getattr(kind, name, None))
        ]
    return []


def name_problem(name: str, own: set[str]) -> str:
    """Of `Network.backward`, `ops.latent_forward`, `hinge`: whether some source defines it."""
    root, _, rest = name.partition(".")
    if root in FOREIGN or re.fullmatch(r"\d.*|[A-Z]|op\d+", name):
        return ""
    if root == "minigen":
        return "" if not rest or importable(name) else "cannot be imported"
    if not rest:
        return "" if name in defined() | own else "defined nowhere"
    if root in classes():
        kind = getattr(importlib.import_module(classes()[root]), root)
        return "" if has(kind, rest.split(".")[0]) else f"{root} has no {rest}"
    if root == "ops":
        return "" if hasattr(minigen.ops.Operations, rest) else "no such operation"
    if root in OBJECTS:
        return "" if any(has(kind, rest.split(".")[0]) for kind in OBJECTS[root]) else f"no {rest} in {OBJECTS[root]}"
    if modules := list((ROOT / "minigen").rglob(f"{root}.py")) + list((ROOT / "csrc").rglob(f"{root.lstrip('_')}.?pp")):
        if any(re.search(rf"\b(?:def|class) {rest}\b|^{rest}\b|\"{rest}\"", m.read_text(), re.M) for m in modules):
            return ""
        return f"no {root} defines {rest}"
    missing = [part for part in name.split(".") if part not in defined() | own]
    return f"{missing[0]} is defined nowhere" if missing and name not in everything() else ""


def has(kind: Any, attribute: str) -> bool:
    """A method, a field, or what a method sets."""
    if hasattr(kind, attribute) or (dataclasses.is_dataclass(kind) and attribute in kind.__dataclass_fields__):
        return True
    parents = [parent for parent in kind.__mro__ if parent.__module__.startswith("minigen")]
    return any(re.search(rf"self\.{attribute}\b.*=|^    {attribute}: ", inspect.getsource(p), re.M) for p in parents)


@cache
def parameters() -> set[str]:
    """The names of all arguments and fields that have a default or are given by name."""
    argument = r"\b(\w++)(?:: [^=\n(){}]++)? ?=(?!=)"
    return set(re.findall(argument, everything()))


# --- commands ----------------------------------------------------------------------------------------------


def shell(page_text: str) -> Iterator[str]:
    """The commands of a page's blocks: fenced as sh, or indented."""
    for match in FENCE.finditer(page_text):
        if match[2] in ("sh", "bash", "console"):
            yield from (c for line in match[3].splitlines() for c in commands(line))
    for line in re.findall(r"^    (\S.*)$", FENCE.sub("", page_text), re.M):
        if COMMANDS.match(line):
            yield from commands(line)


def commands(line: str) -> list[str]:
    """The single commands of a line, without comments and redirections."""
    line = re.sub(r"(^|\s)#.*", "", line)
    return [part.strip() for part in re.split(r"&&|\|\||[;|]", re.sub(r"\s\d?>\s*\S+", "", line)) if part.strip()]


def command_problem(command: str) -> str:
    words = shlex.split(command)
    while words and re.match(r"[A-Z_]+=", words[0]):
        name = words.pop(0).partition("=")[0]
        if name not in environment() | FOREIGN:
            return f"no source reads the environment's {name}"
    if not words:
        return ""
    for word in words:
        if re.match(r"(?:bench|tests|examples|docs|csrc|minigen|\.ci)/[\w./-]+$", word) and "<" not in word:
            if not (ROOT / word).exists() and not word.startswith("bench/prepared"):
                return f"no file {word}"
    program, *rest = words
    match program:
        case "minigen":
            return minigen_problem(rest)
        case "python" | "python3" if rest[:1] == ["-m"]:
            return module_problem(rest[1], rest[2:])
        case "python" | "python3" if rest and rest[0].startswith(("bench/", "examples/", "tests/")):
            return options_problem((ROOT / rest[0]).read_text(), rest[1:])
        case "pytest":
            wanted = re.findall(r"-m (\w+)", " ".join(rest))
            return next((f"no mark {mark}" for mark in wanted if not re.search(rf"mark\.{mark}\b", everything())), "")
        case "make":
            targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.M)
            return next((f"no target {t}" for t in rest if t not in targets), "")
        case "pip" if rest and rest[0] == "install":
            extras = re.findall(r"(?:^|\s)(?:\.|minigen-engine)\[([\w,]+)\]", " ".join(rest))
            have = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
            return next((f"no extra {e}" for names in extras for e in names.split(",") if e not in have), "")
    return ""


@cache
def environment() -> set[str]:
    """The environment variables that some source reads."""
    return set(re.findall(r"\b[A-Z]+_[A-Z_]+\b", everything()))


@cache
def everything() -> str:
    """The text of all Python and shell sources, but not of the tests of pages."""
    paths = (path for top in ("minigen", "bench", "tests") for path in (ROOT / top).rglob("*.[ps][yh]"))
    return "\n".join(path.read_text() for path in paths if "doc" not in path.name)


def module_problem(module: str, arguments: list[str]) -> str:
    """`python -m bench.many --quick`."""
    for folder in (ROOT, ROOT / "tests"):
        base = folder / module.replace(".", "/")
        for path in (base.with_suffix(".py"), base / "__main__.py"):
            if path.exists():
                texts = [path.read_text(), *(p.read_text() for p in path.parent.glob("*.py"))]
                return options_problem("\n".join(texts), arguments)
    return "" if module in ("venv", "pip", "pytest", "build", "ruff", "mypy") else f"no module {module}"


def options_problem(source: str, arguments: list[str]) -> str:
    return next(
        (f"no option {a}" for a in arguments if a.startswith("--") and f'"{a.partition("=")[0]}"' not in source), ""
    )


@cache
def application() -> Any:
    import typer

    from minigen import cli

    return typer.main.get_command(cli.app)


def minigen_problem(words: list[str]) -> str:
    """What the command line itself says to these words; a command that is only named has no arguments yet."""
    command, context = application(), None
    words = list(words)
    while hasattr(command, "commands") and words:
        context = type(command).make_context(command, "minigen", words[:1], parent=context, resilient_parsing=True)
        name = words.pop(0)
        command = command.commands.get(name)
        if command is None:
            return f"no command {name}"
    if not words:
        return ""
    try:
        command.make_context("minigen", words, parent=context)
    except SystemExit:
        pass
    except Exception as error:  # of click's kinds, whose names differ from version to version
        return str(getattr(error, "message", error))
    return ""


@cache
def options() -> set[str]:
    """All options of the command line, and those of the scripts in bench and tests."""
    found = set(re.findall(r"\"(--[\w-]+)\"", everything())) | {"--help"}
    waiting: list[tuple[Any, Any]] = [(application(), None)]
    while waiting:
        command, context = waiting.pop()
        context = command.context_class(command, parent=context)
        found |= {o for parameter in command.get_params(context) for o in parameter.opts}
        waiting += [(child, context) for child in getattr(command, "commands", {}).values()]
    return found
