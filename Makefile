# darkroom: `make` lists what there is. Everything happens in .venv beside this file; nothing else is touched.
.DEFAULT_GOAL := help
SHELL := /bin/bash
PYTHON ?= python3
# compiled once, not again in each of hundreds of processes
unexport PYTHONDONTWRITEBYTECODE
BIN := .venv/bin
# two marks, because the demo needs no tools for development
USABLE := .venv/.usable
READY := .venv/.ready
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable

.PHONY: help setup demo test test-fast stores chaos soak bench screenshots check format clean

help: ## show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: $(USABLE) ## see it work: 24 edits through the whole system, on real parts and an emulator provider
	@$(BIN)/darkroom demo

# the check runs beside the tests, and what it says comes behind what they say
test: $(READY) ## everything: style, types, arrows, and all tests
	@said=$$(mktemp); trap 'rm -f "$$said"' EXIT; \
	$(MAKE) --no-print-directory check >"$$said" 2>&1 & check=$$!; \
	$(BIN)/pytest -n 6 --dist loadfile --no-loadscope-reorder; tests=$$?; \
	wait $$check; check=$$?; cat "$$said"; exit $$((tests || check))

test-fast: $(READY) ## the tests that need no services
	@$(BIN)/pytest tests/unit

AZURITE ?= $(CURDIR)/.azurite/node_modules/.bin/azurite-blob
stores: $(READY) ## the cases of docs/storage.md on every store, and its table; Azurite comes from npm, once
	@test -x $(AZURITE) || npm install --silent --no-fund --no-audit --prefix .azurite azurite@3.37.0
	@AZURITE=$(AZURITE) $(BIN)/python -m tests.write_stores

SEED ?= 1
EDITS ?= 5000
chaos: $(READY) ## thousands of edits while everything breaks (SEED=1 EDITS=5000), then the books are compared
	@$(BIN)/python -m benchmarks.chaos --seed $(SEED) --edits $(EDITS)

HOURS ?= 8
soak: $(READY) ## run after run of chaos until a million callbacks were faulted (HOURS=8); goes on where it was stopped
	@$(BIN)/python -m benchmarks.soak --hours $(HOURS)

ROW ?= all
LARGEST ?= 1000000
bench: $(READY) ## measure each row of docs/performance.md beside its peers, by turns (ROW=callbacks for one)
	@$(BIN)/python -m benchmarks.bench $(ROW) --largest $(LARGEST)

screenshots: $(READY) ## those of docs/page.md, of a demo in a real browser (it needs Chromium)
	@$(BIN)/python -m tests.browser.screenshots

check: $(READY) ## style, types, import arrows
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports

format: $(READY) ## put the code into shape
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

setup: $(READY) ## create .venv with every pinned package

# without compiling everything: what is used is compiled when it is first imported
$(USABLE): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { echo "darkroom needs Python 3.11 or newer, and $(PYTHON) is none; name one with: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 2; }
	@$(PYTHON) -c 'import venv, ensurepip; ensurepip.version()' 2>/dev/null || { echo "$(PYTHON) comes without venv; install it first (Debian, Ubuntu: apt install python3-venv)"; exit 2; }
	@test -w . || { echo "This folder cannot be written; make .venv elsewhere: $(PYTHON) -m venv DIR && DIR/bin/pip install -c constraints.txt '.[local,emulator]' && DIR/bin/darkroom demo"; exit 2; }
	@echo "setting up .venv (once, half a minute)"
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv --clear .venv
	@$(PIP) '.[local,emulator]' --no-compile
	@touch $@

$(READY): $(USABLE)
	@echo "adding the tools for development (once)"
	@$(PIP) '.[local,emulator,dev]' --no-compile
	@touch $@

clean: ## remove .venv, .darkroom and every cache
	rm -rf .venv .darkroom .azurite .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache *.egg-info
