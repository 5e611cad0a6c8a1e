# `make demo`, `make test` and `make docs` work on a fresh machine: each creates .venv and installs what it needs.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
PIP    := $(BIN)/python -m pip install --quiet --disable-pip-version-check
# What was installed: the toolkit alone, or all that developing it takes.
RUNS     := $(VENV)/.runs
DEVELOPS := $(VENV)/.develops
PORT   ?= 8000

.PHONY: install demo test docs lint format clean

install: $(DEVELOPS)

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

$(RUNS): pyproject.toml | $(BIN)/python
	$(PIP) --editable .
	touch $@

$(DEVELOPS): pyproject.toml | $(BIN)/python
	$(PIP) --editable '.[dev]'
	touch $(RUNS) $@

demo: $(RUNS)
	$(BIN)/unlearn-kit demo

# On this machine alone: http://127.0.0.1:$(PORT)/
docs: $(DEVELOPS)
	$(BIN)/python docs/make_site.py build/site --serve $(PORT)

lint: $(DEVELOPS)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# One thread a worker: small networks lose more to thread overhead than they gain.
test: lint
	OMP_NUM_THREADS=1 MKL_NUM_THREADS=1 $(BIN)/python -m pytest -n 2

format: $(DEVELOPS)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf $(VENV) build dist *.egg-info
