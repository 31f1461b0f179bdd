# Everything that this project does, from a bare Python 3.11 and make. `make help` lists the targets.

SHELL := /bin/bash
.SHELLFLAGS := -eo pipefail -c
.ONESHELL:
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/installed
NB ?=
PORT ?= 8000

# More threads than this make small tensors slower, and a shared machine slower still.
THREADS ?= $(shell n=$$(getconf _NPROCESSORS_ONLN 2>/dev/null || echo 1); echo $$(( n < 8 ? n : 8 )))
export OMP_NUM_THREADS ?= $(THREADS)
export MKL_NUM_THREADS ?= $(THREADS)
export NUMBA_NUM_THREADS ?= $(THREADS)
# SOLUTIONS=0: the instructors' edition, whose pages hold no solutions.
export RWKVLIB_SOLUTIONS := $(or $(SOLUTIONS),1)
export PIP_DISABLE_PIP_VERSION_CHECK := 1

NOTEBOOKS := $(wildcard notebooks/*.ipynb)

.PHONY: help install book serve test check check-book plain check-colab links quality lint format bench notebooks lock clean

help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1\t/' | expand -t 14

install: $(STAMP) ## make .venv from requirements.lock and install rwkvlib in it (editable)

$(STAMP): requirements.lock pyproject.toml setup.py
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "requirements.lock needs Python 3.11 or later: make PYTHON=python3.11 ...")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet -r requirements.lock
	$(BIN)/python -m pip install --quiet --no-deps -e .
	touch $@

book: $(STAMP) ## execute the notebooks and render the book (SOLUTIONS=0 for one without solutions)
	$(BIN)/python -m book html

serve: book ## serve the book on http://127.0.0.1:8000 (PORT=...)
	$(BIN)/python -m book serve --port $(PORT)

# One thread in each of several processes is faster than several threads in one.
PYTEST = OMP_NUM_THREADS=1 MKL_NUM_THREADS=1 $(BIN)/python -m pytest -n $(THREADS) --durations=60 --durations-min=4

# Notebooks are executed once, for the tests and for the book; see tests/replay.py.
# loadfile: the cells of a notebook share a kernel, so a file stays in one process.
test: $(STAMP) ## run the tests and compare the notebooks' checked outputs
	$(BIN)/python -m book execute
	$(PYTEST) -p tests.replay --dist loadfile --no-loadscope-reorder tests --ignore=tests/pages $(NOTEBOOKS) \
	  --nbval-lax --nbval-current-env --nbval-cell-timeout=1800 --nbval-sanitize-with tests/nbval_sanitize.cfg

# What fails most often and takes little time.
QUICK = tests/layers tests/analysis tests/bookkit tests/data/test_files.py tests/data/test_items.py tests/models/test_model.py \
  tests/models/test_registry.py tests/wkv/test_errors.py tests/wkv/test_masked.py tests/engine/test_config.py \
  tests/engine/test_losses.py tests/engine/test_metrics.py tests/engine/test_schedules.py tests/test_files.py \
  tests/test_imports.py tests/test_project.py

check: lint ## lint and quick tests, before a commit
	$(PYTEST) --dist loadfile -m "not slow" $(QUICK)

check-book: $(STAMP) ## test the built pages in a headless Chromium
	RWKVLIB_NEEDS_BOOK=1 $(PYTEST) tests/pages

plain: $(STAMP) ## write notebooks/plain/, the edition of the chapters for Colab
	$(BIN)/python -m book plain

check-colab: $(STAMP) ## run the plain edition in an environment such as Colab's, from the last commit
	$(BIN)/python tests/colab/check_plain.py

links: $(STAMP) ## check the book's links to other sites (needs the internet)
	$(BIN)/python -m book links

# The plain edition quotes the chapters' run times, which this measures.
quality: book ## measure the built book into results/book/quality.json (needs Chromium)
	$(BIN)/python -m book quality
	$(BIN)/python -m book plain

lint: $(STAMP) ## check the code's style and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(STAMP) ## correct the code's style
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(STAMP) ## run every script in benchmarks/
	@shopt -s nullglob
	for script in benchmarks/bench_*.py benchmarks/cuda_resources.py; do
	  echo "== $$script"
	  $(BIN)/python "$$script"
	done

notebooks: $(STAMP) ## execute the notebooks in place, to be committed with outputs (NB=notebooks/04_wkv.ipynb for one)
	$(BIN)/python -m book notebooks $(NB)

lock: ## resolve pyproject.toml anew in a clean environment and rewrite requirements.lock
	$(PYTHON) .ci/lock.py

clean: ## remove the built book and its caches, but not .venv
	rm -rf _build .pytest_cache .ruff_cache
