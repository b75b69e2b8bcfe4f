# Two commands: `make demo` and `make test`. Both set up what they need, in .venv, and do nothing twice.
# Another interpreter: make demo PYTHON=python3.13

PYTHON ?= $(shell for python in python3 python3.14 python3.13 python3.12 python3.11; do \
	"$$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && { echo "$$python"; break; }; done)
PYTEST_FLAGS := -q
VENV := .venv
BIN := $(VENV)/bin

.PHONY: demo test bench lint types wheel check clean

demo: $(VENV)/ready
	@$(BIN)/runmeter demo

# A worker for each core; the tests of a file stay together, as they share servers and processes.
test: $(VENV)/ready
	$(BIN)/pytest -n auto --dist loadfile $(PYTEST_FLAGS)

# About ten minutes on a quiet machine: writes benchmarks/RESULTS.md, results.json and charts/. For a minute: BENCH=--quick
bench: $(VENV)/ready
	$(BIN)/runmeter bench --results benchmarks $(BENCH)

lint: $(VENV)/ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/ready
	$(BIN)/mypy

check: lint types test

clean:
	rm -rf $(VENV) build dist src/*.egg-info .mypy_cache .ruff_cache .pytest_cache

$(VENV)/ready: pyproject.toml constraints.txt
	@test -n "$(PYTHON)" || { echo "runmeter needs Python 3.11 or newer: install it, or say make PYTHON=/path/to/python3" >&2; exit 2; }
	@echo "setting up $(VENV): once, about a minute"
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@
