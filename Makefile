# Two commands: `make demo` and `make test`. Both set up what they need, in .venv, and do nothing twice.
# Another interpreter, beside the first: make test PYTHON=python3.13 VENV=.venv-3.13

PYTHON ?= $(shell for python in python3 python3.14 python3.13 python3.12 python3.11; do \
	"$$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && { echo "$$python"; break; }; done)
PYTEST_FLAGS := -q
CAMPAIGN := campaign or hypothesis
VENV := .venv
BIN := $(VENV)/bin
# A worker for each core. One that has nothing left to do takes from another's end, and one that dies is replaced.
PYTEST := $(BIN)/pytest -n auto --dist worksteal

# Bytecode is kept, whatever the shell says: the tests start hundreds of processes, each of which imports thousands of modules.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: demo test campaign bench lint types check clean

demo: $(VENV)/ready
	@$(BIN)/runmeter demo

test: $(VENV)/ready
	$(PYTEST) $(PYTEST_FLAGS)

# What takes minutes: every pattern with every fault, a thousand runs, the documents' blocks as commands of their own, and
# each property with all its examples.
campaign: $(VENV)/ready
	$(PYTEST) -m "$(CAMPAIGN)" --hypothesis-profile campaign $(PYTEST_FLAGS)

# About ten minutes on a quiet machine: writes benchmarks/RESULTS.md, results.json and charts/. For a minute: BENCH=--quick
bench: $(VENV)/ready
	$(BIN)/runmeter bench --results benchmarks $(BENCH)

lint: $(VENV)/ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/ready
	$(BIN)/mypy

check: lint types test campaign

clean:
	rm -rf .venv .venv-* build dist src/*.egg-info .mypy_cache .ruff_cache .pytest_cache

# uv installs in a third of pip's time. Where there is none for a platform, or it does not get through, pip does it all.
DEV := -c constraints.txt -e '.[dev]'
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check
UV := $(BIN)/uv pip install --quiet --python $(BIN)/python

$(VENV)/ready: pyproject.toml constraints.txt
	@test -n "$(PYTHON)" || { echo "runmeter needs Python 3.11 or newer: install it, or say make PYTHON=/path/to/python3" >&2; exit 2; }
	@test -d src/runmeter/engine || $(PYTHON) setup.py
	@echo "setting up $(VENV): once, less than a minute"
	@$(PYTHON) -m venv $(VENV)
	@{ $(PIP) --only-binary uv -c constraints.txt uv && $(UV) $(DEV); } || \
		{ echo "without uv, then, and slower" >&2 && $(PIP) $(DEV); }
	@touch $@
