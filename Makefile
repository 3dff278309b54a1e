# Everything runs in .venv, which is made from requirements.lock by the first command that needs it.
#   make report [PROFILE=quick]   run all notebooks, build the book
#   make test                     lint, the core suite, notebooks 01 to 05 replayed strictly (ten minutes)
#   make test-all                 and faults, browser, JupyterLab, Slurm, full-size networks (an hour)
#   make lab | bench              JupyterLab | the library against the literal formulas
#   make refresh                  run the stored notebooks in place, keep the outputs that tests compare
#   make env | lint | lock [UPGRADE=1] | clean
SHELL := bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

PYTHON ?= python3
PROFILE ?= quick
TESTFLAGS ?=

VENV := .venv
PY := $(VENV)/bin/python
STAMP := $(VENV)/.made-from-lock
CRF_LOG := $(VENV)/crf-build.log
# uv from PATH, else one of our own in .venv-uv
UV = $(firstword $(shell uv --version >/dev/null 2>&1 && command -v uv) $(CURDIR)/.venv-uv/bin/uv)

# Notebooks must run with the kernel of .venv, whatever kernels and Jupyter settings the user has.
export JUPYTER_PREFER_ENV_PATH := 1
export PYDEVD_DISABLE_FILE_VALIDATION := 1
# A thread that waits sleeps: on a busy machine, threads that spin cost thirty times their share.
export OMP_WAIT_POLICY := passive
export GOMP_SPINCOUNT := 0
# Compiled modules are kept whatever the user's shell says: without them each kernel compiles torch anew, 10 s.
unexport JUPYTER_PATH PYTHONHOME VIRTUAL_ENV PYTHONDONTWRITEBYTECODE

PYTEST = results=$$(mktemp -d); trap 'rm -rf "$$results"' EXIT; RECAM_RESULTS="$$results" \
  $(PY) -m pytest -n 2 --dist loadscope --no-loadscope-reorder $(1) $(TESTFLAGS)

.PHONY: help report test test-all lab bench refresh lint env lock clean

help:
	@sed -n 's/^#   //p' Makefile

# While one core checks the parameters, the other compiles what kernels and the book import, in a new environment.
report: $(STAMP)
	@$(PY) -c "import sympy, scipy.stats, seaborn, ipykernel.kernelapp, jupyter_book.sphinx, myst_nb.sphinx_ext" & \
	  $(PY) -m recamlib.cli report --profile "$(PROFILE)"

lint: $(STAMP)
	@$(PY) -m ruff check .
	@$(VENV)/bin/lint-imports --no-cache --no-logo
	@$(PY) -m mypy
	@$(PY) scripts/house.py

# A results folder of its own: cached stages of an earlier run must not answer for today's code.
test: lint
	@$(call PYTEST,recamlib tests)

test-all: test
	@$(call PYTEST,tests/nightly)

lab: $(STAMP)
	@$(PY) -m jupyter lab --notebook-dir=notebooks

bench: $(STAMP)
	@for script in benchmarks/bench_*.py; do echo "== $$script"; $(PY) "$$script"; done

# Text outputs and run counts stay (nbval would pass a stripped notebook), and what is tagged keep_output: the
# tables and one picture. Other images and run metadata go.
refresh: $(STAMP)
	@results=$$(mktemp -d); trap 'rm -rf "$$results"' EXIT; \
	for notebook in notebooks/[0-9]*.ipynb; do \
	  RECAM_RESULTS="$$results" $(PY) -m recamlib.cli run "$$notebook" --output notebooks; done
	@$(PY) -m nbstripout --keep-count --max-size 4k --extra-keys \
	  "metadata.papermill cell.metadata.papermill cell.metadata.execution metadata.language_info" notebooks/[0-9]*.ipynb

env: $(STAMP)

# The dense CRF is compiled here; a machine that cannot do it gets everything else.
$(STAMP): requirements.lock requirements-crf.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null || { \
	  echo "recam needs Python 3.11, 3.12 or 3.13, but '$(PYTHON)' is $$($(PYTHON) --version 2>&1 | tail -n 1);" \
	       "name another one: make PYTHON=python3.12 ..." >&2; exit 2; }
	@[ -x "$(UV)" ] || { echo "uv is not on the PATH: putting one into .venv-uv"; \
	  $(PYTHON) -m venv .venv-uv && .venv-uv/bin/python -m pip install --quiet uv; }
	@$(PY) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null || { \
	  rm -rf $(VENV); "$(UV)" venv --quiet --no-project --python "$$($(PYTHON) -c 'import sys; print(sys.executable)')" $(VENV); }
	@echo "environment: syncing $(VENV) with requirements.lock"
	@"$(UV)" pip sync --quiet --python $(PY) --require-hashes requirements.lock
	@"$(UV)" pip install --quiet --python $(PY) --no-deps --no-build-isolation --editable .
	@echo "environment: the dense CRF (compiled the first time, up to a minute)"
	@"$(UV)" pip install --quiet --python $(PY) --require-hashes --no-deps --no-build-isolation \
	  -r requirements-crf.lock >$(CRF_LOG) 2>&1 || \
	  echo "environment: no dense CRF, everything else is there (no C++ compiler, no Python headers or no network?" \
	       "see $(CRF_LOG)); once there is one, run: make -B env" >&2
	@touch $(STAMP)

# Needs the package index; everything else works from what the lock names.
lock:
	@[ -x "$(UV)" ] || { $(PYTHON) -m venv .venv-uv && .venv-uv/bin/python -m pip install --quiet uv; }
	@"$(UV)" pip compile pyproject.toml --extra dev --universal --python-version 3.11 --generate-hashes \
	  --no-emit-index-url --no-emit-find-links --custom-compile-command "make lock" --quiet \
	  $(if $(UPGRADE),--upgrade) --output-file requirements.lock
	@$(PYTHON) -c 'import tomllib; extras = tomllib.load(open("pyproject.toml", "rb"))["project"]["optional-dependencies"]; \
	  print(*extras["crf"], sep="\n")' | \
	  "$(UV)" pip compile - --no-deps --universal --python-version 3.11 --generate-hashes \
	  --no-emit-index-url --no-emit-find-links --custom-compile-command "make lock" --quiet \
	  $(if $(UPGRADE),--upgrade) --output-file requirements-crf.lock
	@$(MAKE) --no-print-directory env
	@$(PY) scripts/make_environment.py

clean:
	@rm -rf book/_build book/executed .mypy_cache .pytest_cache .ruff_cache .hypothesis *.egg-info
	@find . -name __pycache__ -type d -not -path './.venv*' -prune -exec rm -rf {} +
	@echo "removed the built book, executed notebooks and caches; kept .venv, data/ and results/"
