"""Plants each mistake of the lists beside this file, one at a time, and sees whether the tests notice.

    python tests/mutants/run.py                  all of them: many minutes, most of them for the C++ compiler
    python tests/mutants/run.py models training  some areas
    python tests/mutants/run.py -k beta          those with this word in their description or file

A list is ``<area>.toml``, an entry ``[[mutant]]`` of it:

- ``what``: the mistake in a few words
- ``file``, ``old``, ``new``: the text to be replaced, found exactly once in the file, and what it becomes. Where it is
  not found to the letter, it may be broken into lines in another way.
- ``tests``: what must fail, each a file or test of pytest; or
- ``equivalent``: why no test can fail
- ``survivor = true``: it, or one of its kind, passed the whole suite before there was this list

A table ``[environment]`` names variables that the tests of a list need.

Works in a copy of the tree, never in the tree itself. C++ is rebuilt there for each mistake. What comes of it is
written to ``result.json`` beside this file, each result with its commit; those of mistakes that were not run stay
there, unless their entry has changed since. Exit code 1 if a mistake passes, a text is not found, or a test fails
without any mistake.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.util
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import time
import tomllib
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

LISTS = Path(__file__).resolve().parent
ROOT = LISTS.parent.parent
RESULT = LISTS / "result.json"
TIMEOUT = 600  # seconds of one mistake's tests
CAUGHT, SURVIVED, EQUIVALENT, STALE, BROKEN = "caught", "survived", "equivalent", "stale", "broken"

# An editable install answers to the package's name before any path does: not in the copy.
SITE = """import sys
sys.meta_path[:] = [finder for finder in sys.meta_path if "Redirecting" not in type(finder).__name__]
"""


Environment = tuple[tuple[str, str], ...]
"""Variables that an area's tests need, by name."""


@dataclass(frozen=True)
class Mutant:
    """One planted mistake."""

    area: str
    what: str
    file: str
    old: str
    new: str
    tests: tuple[str, ...] = ()
    equivalent: str = ""
    survivor: bool = False
    environment: Environment = ()

    @property
    def digest(self) -> str:
        """Of all that a result depends on in the list."""
        return hashlib.sha256(repr((self.file, self.old, self.new, self.tests)).encode()).hexdigest()[:12]

    @property
    def compiled(self) -> bool:
        return self.file.startswith("csrc/")

    def planted(self, text: str) -> str:
        """``text``, of the file, with the mistake. Raises ValueError unless the place is found exactly once."""
        if text.count(self.old) == 1:
            return text.replace(self.old, self.new)
        found = list(re.finditer(anyhow_broken(self.old), text))
        if len(found) != 1:
            raise ValueError(f"{self.file}: found {len(found)} times instead of once: {self.old!r}")
        return text[: found[0].start()] + self.new.strip() + text[found[0].end() :]


def anyhow_broken(code: str) -> str:
    """A pattern for ``code`` with any white space between its tokens, and a comma before a closing bracket or none."""
    tokens = re.findall(r"\w+|[^\w\s]", code)
    pattern = re.escape(tokens[0])
    for before, token in zip(tokens, tokens[1:], strict=False):
        space = r"\s+" if re.match(r"\w", before) and re.match(r"\w", token) else r"\s*"
        pattern += (r",?\s*" if token in ")]}" and before != "," else space) + re.escape(token)
    return pattern


def read(area: str) -> list[Mutant]:
    """The list of an area."""
    with open(LISTS / f"{area}.toml", "rb") as file:
        listed = tomllib.load(file)
    environment = tuple(listed.get("environment", {}).items())
    return [
        Mutant(area, **{**entry, "tests": tuple(entry.get("tests", ())), "environment": environment})
        for entry in listed["mutant"]
    ]


def areas() -> list[str]:
    return sorted(path.stem for path in LISTS.glob("*.toml"))


@dataclass
class Copy:
    """The tree in a folder of its own, and what runs tests and builds there."""

    folder: Path
    environment: dict[str, str] = field(default_factory=dict)
    age: int = 0  # of the file written last, in seconds

    def __post_init__(self) -> None:
        listed = subprocess.run(
            ["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True, check=True
        ).stdout.splitlines()
        for name in filter(lambda name: (ROOT / name).is_file(), listed):
            target = self.folder / name
            if not target.exists() or target.read_bytes() != (ROOT / name).read_bytes():
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(ROOT / name, target)  # as of now: a build that is there already has to see the change
        (self.folder / "sitecustomize.py").write_text(SITE)
        self.environment = {**os.environ, "PYTHONPATH": str(self.folder), "MINIGEN_CACHE": str(self.folder / "cache")}
        installed = importlib.util.find_spec("minigen._native")
        if installed is not None and installed.origin is not None:
            shutil.copy(installed.origin, self.folder / "minigen")
        where = self.run([sys.executable, "-c", "import minigen; print(minigen.__file__)"]).stdout.strip()
        if not Path(where).is_relative_to(self.folder):
            raise RuntimeError(f"the copy would test the package at {where}, not its own")

    def run(
        self, command: list[str], timeout: float | None = None, environment: Environment = ()
    ) -> subprocess.CompletedProcess[str]:
        variables = self.environment | dict(environment)
        return subprocess.run(command, cwd=self.folder, env=variables, capture_output=True, text=True, timeout=timeout)

    def write(self, name: str, text: str) -> None:
        """Write a file so that its compiled form is seen to be out of date, even within the same second."""
        path = self.folder / name
        path.write_text(text)
        if path.suffix == ".py":
            self.age += 2
            now = time.time() + self.age
            os.utime(path, (now, now))

    def test(self, *tests: str, environment: Environment = ()) -> tuple[int, str]:
        """pytest's exit code (1 where it had to be stopped), and the end of what it prints."""
        command = [
            sys.executable,
            "-m",
            "pytest",
            "-q",
            "-x",
            "-p",
            "no:cacheprovider",
            "-p",
            "no:hypothesispytest",
            "-p",
            "no:benchmark",
            "-o",
            "addopts=",
            *tests,
        ]
        try:
            done = self.run(command, TIMEOUT, environment)
        except subprocess.TimeoutExpired:
            return 1, f"stopped after {TIMEOUT} seconds"
        return done.returncode, (done.stdout + done.stderr)[-2000:]

    def gradcheck(self) -> bool:
        """Whether gradcheck, of the reference and on NumPy, finds something wrong."""
        return self.run([sys.executable, "-m", "minigen", "gradcheck", "--device", "numpy"], TIMEOUT).returncode == 1

    def build(self) -> str:
        """Compile what has changed into the copy's module. Returns the compiler's complaint, empty if there is none."""
        folder = self.folder / "build"
        if not (folder / "CMakeCache.txt").exists():
            pybind11 = self.run([sys.executable, "-m", "pybind11", "--cmakedir"]).stdout.strip()
            generator = ["-G", "Ninja"] if shutil.which("ninja") else []
            configured = self.run(
                [
                    "cmake",
                    "-S",
                    ".",
                    "-B",
                    "build",
                    *generator,
                    f"-DPython_EXECUTABLE={sys.executable}",
                    f"-Dpybind11_DIR={pybind11}",
                    f"-DMINIGEN_ISAS={best_isa()}",
                    "-DMINIGEN_HAS_AVX512BF16=OFF",
                    "-DMINIGEN_HAS_AMX=OFF",
                ]
            )
            if configured.returncode:
                return configured.stderr
        built = self.run(["cmake", "--build", "build", "--target", "_native"])
        if built.returncode:
            return (built.stdout + built.stderr)[-2000:]
        for module in folder.glob("_native*.so"):
            shutil.copy2(module, self.folder / "minigen")
        return ""


def best_isa() -> str:
    """The instruction set that the kernels are built for, this machine's best: one is quicker to build than all."""
    from minigen import _native

    return _native.supported_isas()[-1]


def outcome(copy: Copy, mutant: Mutant, gradcheck: bool = False) -> tuple[str, str]:
    """What becomes of a mistake, and more about it where that is not good. By its tests, or by ``gradcheck`` alone."""
    if mutant.equivalent:
        return EQUIVALENT, mutant.equivalent
    path = copy.folder / mutant.file
    right = path.read_text()
    try:
        copy.write(mutant.file, mutant.planted(right))
    except ValueError as error:
        return STALE, str(error)
    try:
        if gradcheck:
            return (CAUGHT, "") if copy.gradcheck() else (SURVIVED, "gradcheck finds nothing wrong")
        complaint = copy.build() if mutant.compiled else ""
        if complaint:
            return BROKEN, complaint
        for test in mutant.tests:
            code, end = copy.test(test, environment=mutant.environment)
            if code != 1:  # pytest's for tests that failed; 2 and more: could not run
                return (SURVIVED if code == 0 else BROKEN), f"{test}: exit code {code}\n{end}"
        return CAUGHT, ""
    finally:
        copy.write(mutant.file, right)


def check_without(copy: Copy, mutants: list[Mutant]) -> str:
    """Every test has to pass where nothing is planted. Returns what does not."""
    if any(mutant.compiled for mutant in mutants):
        complaint = copy.build()
        if complaint:
            return complaint
    for environment in dict.fromkeys(mutant.environment for mutant in mutants):
        tests = sorted({test for mutant in mutants if mutant.environment == environment for test in mutant.tests})
        code, end = copy.test(*tests, environment=environment) if tests else (0, "")  # no names: pytest takes all
        if code:
            return end
    return ""


def report(results: list[dict[str, Any]]) -> None:
    """The table and, for each area that was run, the new results into the file."""
    print(f"\n{'area':12} planted  caught  equivalent  not caught")
    for area in dict.fromkeys(result["area"] for result in results):
        count = Counter(result["result"] for result in results if result["area"] == area)
        total, bad = sum(count.values()), sum(count[bad] for bad in (SURVIVED, STALE, BROKEN))
        print(f"{area:12} {total:7}  {count[CAUGHT]:6}  {count[EQUIVALENT]:10}  {bad:10}")


def save(results: list[dict[str, Any]]) -> None:
    """Take ``results`` into the file, in place of what it held of the same mistakes and of those that are gone."""
    old = json.loads(RESULT.read_text())["mutants"] if RESULT.exists() else []
    known = {(mutant.area, mutant.what): mutant.digest for area in areas() for mutant in read(area)}
    kept = {(result["area"], result["what"]): result for result in (*old, *results)}
    merged = [kept[key] for key, digest in known.items() if key in kept and kept[key].get("entry") == digest]
    counts: dict[str, Counter[str]] = {}
    for result in merged:
        counts.setdefault(result["area"], Counter())[result["result"]] += 1
    text = {
        "python": platform.python_version(),
        "machine": platform.machine(),
        "not_run": len(known) - len(merged),
        "areas": counts,
        "mutants": merged,
    }
    RESULT.write_text(json.dumps(text, indent=1) + "\n")


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("areas", nargs="*", metavar="AREA", help=f"Of {', '.join(areas())}. Default: all.")
    parser.add_argument("-k", default="", metavar="WORD", help="Only those with this word in description or file.")
    parser.add_argument("--gradcheck", action="store_true", help="See what minigen gradcheck notices, not the tests.")
    parser.add_argument("--folder", type=Path, help="Keep the copy, and what is compiled, there for the next time.")
    parser.add_argument("--no-result", action="store_true", help="Leave result.json as it is.")
    options = parser.parse_args()
    mutants = [m for area in options.areas or areas() for m in read(area) if options.k in m.what or options.k in m.file]
    mutants.sort(key=lambda m: (m.compiled, m.file if m.compiled else ""))  # the compiler then works on one file a time
    commit = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True).stdout.strip()
    with tempfile.TemporaryDirectory(prefix="minigen-mutants-") as temporary:
        copy = Copy((options.folder or Path(temporary)).resolve())
        wrong = "" if options.gradcheck else check_without(copy, mutants)
        if wrong:
            print(f"no mistake is planted yet, and this is wrong:\n{wrong}", file=sys.stderr)
            return 1
        results: list[dict[str, Any]] = []
        for mutant in mutants:
            begun = time.perf_counter()
            result, more = outcome(copy, mutant, options.gradcheck)
            seconds = time.perf_counter() - begun
            print(f"{result:10} {seconds:6.1f} s  {mutant.area}: {mutant.what} ({mutant.file})", flush=True)
            if result not in (CAUGHT, EQUIVALENT):
                print("    " + more.strip().replace("\n", "\n    "), flush=True)
            results.append(
                {
                    "area": mutant.area,
                    "what": mutant.what,
                    "file": mutant.file,
                    "result": result,
                    "survivor": mutant.survivor,
                    "seconds": round(seconds, 1),
                    "entry": mutant.digest,
                    "commit": commit,
                }
            )
            if not (options.no_result or options.gradcheck):
                save(results)
    report(results)
    return int(any(result["result"] not in (CAUGHT, EQUIVALENT) for result in results))


if __name__ == "__main__":
    sys.exit(main())
