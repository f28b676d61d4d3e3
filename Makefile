# darkroom: `make` lists what there is. Everything happens in .venv beside this file; nothing else is touched.
.DEFAULT_GOAL := help
SHELL := /bin/bash
PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready

.PHONY: help setup demo test test-fast chaos soak check format clean

help: ## show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: $(READY) ## see it work: 24 edits through the whole system, on real parts and a stand-in provider
	@$(BIN)/darkroom demo

# what waits longest starts first, so that no process is left over with it
LONGEST_FIRST := tests/whole tests/stack tests/emulator tests/http tests/database tests/unit tests
test: $(READY) check ## everything: style, types, arrows, and all tests
	@$(BIN)/pytest -n 3 --dist loadfile --no-loadscope-reorder $(LONGEST_FIRST)

test-fast: $(READY) ## the tests that need no services
	@$(BIN)/pytest tests/unit

SEED ?= 1
EDITS ?= 5000
chaos: $(READY) ## thousands of edits while everything breaks (SEED=1 EDITS=5000), then the books are compared
	@$(BIN)/python -m benchmarks.chaos --seed $(SEED) --edits $(EDITS)

HOURS ?= 8
soak: $(READY) ## run after run of chaos until a million callbacks were faulted (HOURS=8); goes on where it was stopped
	@$(BIN)/python -m benchmarks.soak --hours $(HOURS)

check: $(READY) ## style, types, import arrows
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports

format: $(READY) ## put the code into shape
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

setup: $(READY) ## create .venv with every pinned package

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "darkroom needs Python 3.11 or newer; name one with: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 2; }
	@echo "setting up .venv (once, about a minute)"
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[local,emulator,dev]'
	@touch $@

clean: ## remove .venv, .darkroom and every cache
	rm -rf .venv .darkroom .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache *.egg-info
