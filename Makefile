# What people do here, by name. `make` alone lists it. PYTHON=/some/python takes another one.
PYTHON ?= python
CPP := $(shell find csrc tests bench/ladder -name '*.[ch]pp' -o -name '*.cu' -o -name '*.cuh')

help:  ## this list
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 12

install:  ## build and install into the present environment, editable, with what tests and checks need
	$(PYTHON) -m pip install -e ".[dev]"

test:  ## the tests that take a few minutes
	$(PYTHON) -m pytest -n auto

test-all:  ## all tests, the slow ones too: cubins, compiled GPU code, sanitizers
	$(PYTHON) -m pytest -m ""

lint:  ## what CI checks of the source's form and types
	$(PYTHON) -m ruff check .
	$(PYTHON) -m ruff format --check .
	clang-format --dry-run -Werror $(CPP)
	$(PYTHON) -m mypy

format:  ## lay out Python and C++ as CI wants them
	$(PYTHON) -m ruff check --fix .
	$(PYTHON) -m ruff format .
	clang-format -i $(CPP)

bench:  ## measure training steps and kernels on this machine (bench/README.md says more)
	$(PYTHON) -m bench.compare
	$(PYTHON) -m bench.kernels

tables:  ## the tables of README.md, bench/RESULTS.md and docs/operations.md, and the plots
	$(PYTHON) -m bench.report
	$(PYTHON) -c "from pathlib import Path; from minigen import ops, registry; page = Path('docs/operations.md'); \
	page.write_text(page.read_text().partition('| operation |')[0] + registry.table())"

docs:  ## what the code on the pages of docs/ prints, written into them
	$(PYTHON) tests/doc_pages.py

ci:  ## everything that must hold before a change lands, in a fresh environment
	.ci/run

.PHONY: help install test test-all lint format bench tables docs ci
