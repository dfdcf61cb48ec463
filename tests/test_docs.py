"""The pages of documentation name files, headings and symbols that exist, hold the tables that the code gives, and use
plain words. Their code is run in test_docs_code.py."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from doc_pages import CITING, DOCS, FENCE, PAGES, ROOT, anchors, defines, importable, prose, unresolved
from minigen import ops, registry

FILE = re.compile(r"[\w./-]+/[\w.-]+\.(?:py|cpp|hpp|cu|cuh|inc|md|sh|toml|json)\b|\b\w+\.(?:py|hpp|cpp|inc)\b")
MADE = ("runs/", "gpu/", "bench/prepared", "results/gpu-", "out/", "block.py")  # by what a page tells of


@pytest.mark.parametrize("page", CITING)
def test_files_that_a_page_names_exist(page: str) -> None:
    page_text = (ROOT / page).read_text()
    code = re.findall(r"`([^`\n]+)`|\]\(([^)#]+)\)", page_text)
    code += [(match[3], "") for match in FENCE.finditer(page_text) if match[2] in ("", "sh")]  # a drawing, commands
    named = {name for pair in code for text in pair for name in FILE.findall(text) if "://" not in text}
    named = {name for name in named if not any(made in name for made in MADE)}
    everywhere = [
        path.relative_to(ROOT).as_posix()
        for top in ("minigen", "csrc", "tests", "bench", "docs", "examples")
        for path in (ROOT / top).rglob("*.*")
    ]
    everywhere += [path.name for path in ROOT.iterdir()]
    names = {name.lstrip("./") for name in named}
    missing = sorted(n for n in names if not any(path == n or path.endswith("/" + n) for path in everywhere))
    assert missing == [] and (named or page not in PAGES or page == "README.md")


def test_the_table_of_operations_is_that_of_the_registry() -> None:
    assert ops.OPERATIONS
    text = (ROOT / "docs" / "operations.md").read_text()
    assert text.endswith(registry.table()), "run: make tables"
    rows = [line for line in text.splitlines() if line.startswith("| `")]
    assert len(rows) == len(ops.OPERATIONS) and {len(re.findall(r"(?<!\\)\|", row)) for row in rows} == {7}
    assert ":`" not in text


@pytest.mark.parametrize("page", CITING)
def test_what_a_page_links_to_exists(page: str) -> None:
    assert list(unresolved(ROOT / page)) == []


def test_a_dead_link_is_noticed(tmp_path: Path) -> None:
    (tmp_path / "code.py").write_text("X = 1\n\n\ndef f():\n    pass\n\n\nclass C:\n    def g(self):\n        pass\n")
    page = tmp_path / "page.md"
    good = "# A `b` c\n[x](code.py) [`code.py: f`](code.py#L4) [`code.py: C.g`](code.py) [`code.py: X`](code.py)"
    page.write_text(good + " `minigen.reference.dense.dgrad` [a](#a-b-c) [b](page.md#a-b-c)\n")
    assert list(unresolved(page)) == []
    bad = ["[x](no.py)", "[`code.py: h`](code.py)", "[`code.py: C.f2`](code.py)", "[`code.py: f`](code.py#L1)"]
    bad += ["[x](code.py#L99)", "[x](#nothing)", "`minigen.reference.dense.nothing`", "[`other.py: f`](code.py)"]
    for text in bad:
        page.write_text(text)
        assert len(list(unresolved(page))) == 1, text
    assert importable("minigen.GAN") and not defines("xf = 1", "f") and anchors("```\n# no\n```\n# yes") == {"yes"}


PRIVATE = re.compile(r"\b(book|house|storey|storeys|whence|thereof|therein|hitherto|wherein|ere|nought)s?\b", re.I)
FLOOR = re.compile(r"\bfloors?\b", re.I)


def plain_text() -> Iterator[tuple[str, str]]:
    """Where a reader meets words, and the words: pages, docstrings, messages, comments of the C++ sources."""
    for page in [*CITING, "CHANGELOG.md"]:
        yield from ((f"{page}: {line[:60]}", line) for line in prose((ROOT / page).read_text()).splitlines())
    for path in (ROOT / "minigen").rglob("*.py"):
        source = path.read_text()
        if not (PRIVATE.search(source) or FLOOR.search(source)):
            continue  # parsing takes long
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                yield f"{path.name}:{node.lineno}", node.value
    for path in (ROOT / "csrc").rglob("*.?pp"):
        yield from ((f"{path.name}: {line}", line) for line in re.findall(r"//(.*)", path.read_text()))


def test_words_are_those_of_the_field() -> None:
    """No private vocabulary: a device's implementation is a backend, not a floor, the NumPy one the reference."""
    assert [where for where, text in plain_text() if PRIVATE.search(text)] == []
    # Of time: what nobody can be below.
    bounds = ("lower bound", "floor:", "floor**:", "times the floor", "floor(", "floor`")
    floors = [(where, text.lower()) for where, text in plain_text() if FLOOR.search(text)]
    assert [where for where, text in floors if not any(bound in text for bound in bounds)] == []


def test_a_derivative_belongs_at_z() -> None:
    """``act'(z)``, also where it is computed from ``y``; never at a layer's input or output."""
    paths = [ROOT / page for page in CITING] + [p for top in ("minigen", "csrc") for p in (ROOT / top).rglob("*.*")]
    texts = [(path, path.read_text()) for path in paths if path.suffix in (".md", ".py", ".cpp", ".hpp", ".cu", ".cuh")]
    wrong = re.compile(r"act'+\((?!z)|\* act'+(?!'|\(z|_before)")
    assert [path.name for path, text in texts if wrong.search(text)] == []
    assert wrong.search("dz * act'(x)") and wrong.search("dz * act'`") and not wrong.search("dz * act''(z) / act'(z)")


COMMANDS = set(
    """aligned alpha approx ast bar begin beta Big big bigl bigr boxed cases cdot cosh delta dot ell end eta exp frac
    gamma ge geq hat in infty int lambda langle ldots le left leq log longrightarrow Longrightarrow mathcal
    mathrel mathrm max mid min mu nabla ne neq odot partial phi pi prod propto qquad quad rangle rho right sigma
    sim sinh sqrt star sum tanh tau text tfrac theta tilde times to top underbrace varepsilon varphi Vert
    xrightarrow""".split()
)


@pytest.mark.parametrize("page", DOCS)
def test_formulas_are_whole(page: str) -> None:
    """Braces and environments of each formula close, and it uses only commands that GitHub is known to set."""
    text = (ROOT / page).read_text()
    displayed = [match[3] for match in FENCE.finditer(text) if match[2] == "math"]
    without_code = re.sub(r"`[^`\n]*`", "", prose(text))
    within = re.findall(r"\$([^$]+)\$", without_code)
    assert without_code.count("$") % 2 == 0
    for formula in displayed + within:
        bare = re.sub(r"\\[{}]", "", formula)
        assert bare.count("{") == bare.count("}"), formula
        assert re.findall(r"\\begin\{(\w+)\}", formula) == re.findall(r"\\end\{(\w+)\}", formula), formula
        assert formula.count("\\left") - formula.count("\\leftarrow") == formula.count("\\right") - formula.count(
            "\\rightarrow"
        ), formula
        assert set(re.findall(r"\\([A-Za-z]+)", formula)) <= COMMANDS, formula
    for formula in within:  # Markdown takes a backslash before punctuation away, and reads * as emphasis, <b as HTML
        assert not re.search(r"\\[{}\\#%&_]|\*|<[A-Za-z/]|^ | $|\n\n|\]\(", formula), formula
    rows = [line for line in without_code.splitlines() if line.startswith("|")]
    assert [cell for row in rows for cell in re.findall(r"\$[^$]+\$", row) if "|" in cell] == []  # it parts cells
    beside = re.findall(r"(.?)\$[^$]+\$(.?)", without_code)  # nor is it a formula beside other letters than these
    assert {before for before, _ in beside} <= set("\n (") | {""}
    assert {after for _, after in beside} <= set("\n ,.:;?)'") | {""}
