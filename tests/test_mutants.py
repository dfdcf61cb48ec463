"""The lists of planted mistakes keep up with the code. What plants them, mutants/run.py, takes too long for CI."""

from __future__ import annotations

import re

import pytest
from mutants import run

MUTANTS = [mutant for area in run.areas() for mutant in run.read(area)]


@pytest.mark.parametrize("area", run.areas())
def test_every_mistake_has_its_place_and_its_tests(area):
    wrong = []
    for mutant in run.read(area):
        try:
            assert mutant.planted((run.ROOT / mutant.file).read_text()) != (run.ROOT / mutant.file).read_text()
        except ValueError as error:
            wrong.append(f"{mutant.what}: {error}")
        if bool(mutant.tests) == bool(mutant.equivalent):
            wrong.append(f"{mutant.what}: has to name its tests, or why there can be none")
        for test in mutant.tests:
            file, _, name = test.partition("::")
            text = (run.ROOT / file).read_text() if (run.ROOT / file).is_file() else ""
            name = name.partition("[")[0]
            if not text or (name and not re.search(rf"^def {name}\(", text, re.M)):
                wrong.append(f"{mutant.what}: there is no test {test}")
    assert not wrong, "\n".join(wrong)


def test_each_mistake_is_planted_once():
    places = [(mutant.file, mutant.old, mutant.new) for mutant in MUTANTS]
    names = [(mutant.area, mutant.what) for mutant in MUTANTS]
    assert len(set(places)) == len(places) and len(set(names)) == len(names)


def test_a_place_is_found_exactly_once():
    mutant = run.Mutant("area", "what", "file", "b", "c")
    assert mutant.planted("abd") == "acd"
    wide = run.Mutant("area", "what", "file", "f(a, b) +  c", " d ")
    assert wide.planted("1 * f(\n    a,\n    b,\n) + c\n") == "1 * d\n"
    for text in ("ad", "abbd"):
        with pytest.raises(ValueError, match="instead of once"):
            mutant.planted(text)
