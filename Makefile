# Medformer: every target does its own set-up. `make help` lists them.
PYTHON ?= python3
VENV   ?= .venv
OUT    ?= runs/demo
DATA   ?=
# Tests that run beside each other: as many as there are CPUs, or a number.
WORKERS ?= logical

BIN   := $(abspath $(VENV))/bin
STAMP := $(VENV)/.medformer-installed

# DeepSpeed finds the ninja of the virtual environment through PATH.
export PATH := $(BIN):$(PATH)

.DEFAULT_GOAL := help
.PHONY: help install demo test test-all chaos timm-checks lint format bench benchmark-small docs clean

help:  ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
	@echo
	@echo "  make demo DATA=FOLDER    use the MedMNIST files in FOLDER instead of downloading or synthesising; so does benchmark-small"
	@echo "  PYTHON=python3.12        the interpreter that makes the virtual environment (3.11 or newer)"

install: $(STAMP)  ## virtual environment and packages; again only when pyproject.toml or constraints.txt change

$(STAMP): pyproject.toml constraints.txt
	@command -v $(PYTHON) >/dev/null || { echo "medformer: $(PYTHON) not found; name a Python 3.11 or newer: make PYTHON=python3.12" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "medformer: $$($(PYTHON) -V 2>&1) is too old, 3.11 or newer is needed: make PYTHON=python3.12" >&2; exit 1; }
	@command -v "$${CXX:-g++}" >/dev/null || { echo "medformer: no C++ compiler: DeepSpeed compiles one small operator. Install g++ (Debian: apt install g++) or set CXX" >&2; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "medformer: pip fetches and installs 7 GB into $(VENV), more than half of it the CUDA that torch asks for: several minutes, in which it says nothing unless something is wrong"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[cluster,dev]'
	@echo "medformer: installed; $(BIN)/medformer doctor says what is there"
	@touch $@

demo: $(STAMP)  ## the main job end to end, small: images to shards to model to few-label result page
	$(BIN)/medformer demo --out "$(OUT)" --overwrite $(if $(DATA),--data "$(DATA)")

test: $(STAMP)  ## the test suite, about twenty minutes on 2 cores
	$(BIN)/python -m pytest -m "not slow" -n $(WORKERS) --maxprocesses 8 --dist loadgroup --durations 20

test-all: $(STAMP)  ## the test suite with its slow tests
	$(BIN)/python -m pytest

chaos: $(STAMP)  ## kill, stop and fill what a run depends on, over thirty times, and compare with an unbroken run
	$(BIN)/python -m tests.chaos runs/chaos

timm-checks: $(STAMP)  ## timm's own model tests, run on the backbone
	$(BIN)/python -m tests.timm_suite

lint: $(STAMP)  ## style, types, import rules
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(STAMP)  ## put the code into the house style
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(STAMP)  ## ratios against peers, into benchmarks/RESULTS.md
	$(BIN)/python -m benchmarks

benchmark-small: $(STAMP)  ## the released model on two sets at few labels: a part of docs/benchmark.md
	test -d runs/shards/breastmnist -a -d runs/shards/retinamnist || $(BIN)/medformer shards build medmnist --set breastmnist --set retinamnist $(if $(DATA),root="$(DATA)") --out runs/shards
	$(BIN)/medformer evaluate release/medformer-nano --data runs/shards/breastmnist runs/shards/retinamnist --per-class 10 --fraction 0.1 --strategies frozen --seeds 0 1 2 --out runs/benchmark-small --overwrite

docs: $(STAMP)  ## the documents as a site in site/, which opens without a network; any warning is an error
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

clean:  ## remove caches and run outputs; the virtual environment stays
	rm -rf runs build dist site .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis *.egg-info
	find . -name __pycache__ -not -path './$(VENV)/*' -type d -prune -exec rm -rf {} +
