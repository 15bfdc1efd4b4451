# make setup   only the environment (.venv)
# make demo    the environment, then the main job on real cells
# make test    the environment with the test tools, then the test suite
# make test-numeric   at night: the tests that compute, with the kernels of other CPUs and on one and two threads
PYTHON ?= python3
BIN := .venv/bin

.PHONY: setup demo test test-numeric check clean
setup: .venv/.ready

.venv/.ready: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "xfm needs Python 3.11 or newer; $(PYTHON) is $$($(PYTHON) -V 2>&1). Try: make PYTHON=python3.11 $(MAKECMDGOALS)"; exit 1; }
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable .
	@touch $@

.venv/.ready-dev: .venv/.ready
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	@touch $@

demo: .venv/.ready
	$(BIN)/python jobs/demo.py --output runs/demo

test: .venv/.ready-dev
	$(BIN)/python -m pytest

test-numeric: .venv/.ready-dev
	.ci/numeric

check: .venv/.ready-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

clean:
	rm -rf .venv runs build dist *.egg-info
