# The menu. `make` alone shows it.
#
#   make PYTHON=python3.12 book     another Python
#   make VENV=/tmp/crate book       another place for the environment
#   make CORES=2 book               two notebooks at a time, in place of one for each core
#   make GRID=params/mine.yml grid  another grid of runs
#
# What the book and the grids are made of, and in which order, stands in workflow/Snakefile.

PYTHON ?= $(shell for p in python3.11 python3; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)
VENV ?= .venv
BIN := $(VENV)/bin
ENV := $(VENV)/.crate-analysis

NAMES := $(sort $(basename $(notdir $(wildcard notebooks/*.ipynb notebooks/*.py))))
STATE := book/_build/state
HTML := book/_build/html
CORES ?= all
GRID ?= params/grid.yml
SNAKEMAKE := $(BIN)/snakemake --cores $(CORES)

# Modules are compiled when they are first imported and kept so: unkept, it doubles every start.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.NOTPARALLEL:
.DELETE_ON_ERROR:
.PHONY: help env book grid test lab lint sync bench clean FORCE

help:  ## this list
	@echo 'make <target>:'
	@sed -n 's/^\([a-z]*\):.*##  *\(.*\)/  \1|\2/p' $(firstword $(MAKEFILE_LIST)) | \
		awk -F'|' '{ printf "%-9s%s\n", $$1, $$2 }'

env: $(ENV)  ## create the environment in .venv from the pinned versions
	@echo 'The environment is up to date: $(VENV)'

book: $(ENV) $(STATE)/sync  ## run the notebooks and build the book
	@$(SNAKEMAKE) book
	@echo 'The book is up to date: $(HTML)/index.html'

# A wrong grid file is told at once, in one line. The page is made of what is done, even where a run
# failed.
grid: $(ENV) $(STATE)/sync  ## run a grid of notebooks, models, data sets and seeds, and sum it up
	@$(BIN)/python workflow/grid.py gather $(GRID)
	@$(SNAKEMAKE) cells --config grid=$(GRID); failed=$$?; \
		$(SNAKEMAKE) summary --config grid=$(GRID) && exit $$failed

# A process for each core needs no more threads. The slow tests use all cores themselves, or kill what
# they start: one after the other.
test: book  ## run all tests, the built book in a browser included
	OMP_NUM_THREADS=1 $(BIN)/pytest -m 'not slow' -n logical --dist loadfile
	$(BIN)/pytest -m slow

lab: $(ENV) $(STATE)/sync  ## open the notebooks in JupyterLab
	$(BIN)/jupyter lab --config=workflow/jupyter_config.py

lint: $(ENV)  ## check style and types
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

sync: $(STATE)/sync  ## bring the .ipynb and .py of each notebook together, the newer side wins
	@echo 'The notebooks are in step.'

bench: $(ENV)  ## measure speed and memory
	@for script in benchmarks/*.py; do echo "== $$script" && $(BIN)/python $$script || exit 1; done

clean:  ## remove the built book, the executed notebooks and their figures, keep the environment
	rm -rf book/_build book/notebooks book/figures/*.svg output notebooks/output results/grid

# --- environment -----------------------------------------------------------------------------

# Asked for another Python than the environment has: make it anew.
ifneq ($(filter command environment,$(origin PYTHON)),)
ifneq ($(shell $(PYTHON) -V 2>&1),$(shell $(BIN)/python -V 2>&1))
$(ENV): FORCE
CLEAR := --clear
endif
endif

$(ENV): pyproject.toml constraints.txt
	@test -n '$(PYTHON)' || { echo 'Python 3.11 or newer is needed: make PYTHON=/path/to/python3.11' >&2; exit 1; }
	@$(PYTHON) -c 'import sys; v = sys.version_info; sys.exit(None if v >= (3, 11) else \
		f"Python 3.11 or newer is needed, $(PYTHON) is {v.major}.{v.minor}")'
	@echo 'Installing the environment into $(VENV); this takes some minutes the first time.'
	@test -z '$(CLEAR)' -a -x $(BIN)/pip || $(PYTHON) -m venv $(CLEAR) $(VENV)
	@$(BIN)/python -m pip install -q --disable-pip-version-check --no-compile \
		-c constraints.txt -e '.[book,test]'
	@touch $@

# --- notebooks -------------------------------------------------------------------------------

# Twice: the second pass writes the .py anew from the .ipynb, so that there is one way to write it.
SIDES = $(foreach n,$(NAMES),$(firstword $(wildcard $(n:%=notebooks/%.py) $(n:%=notebooks/%.ipynb))))
$(STATE)/sync: $(wildcard notebooks/*) | $(ENV)
	@mkdir -p $(@D)
	@$(BIN)/jupytext -q --sync $(SIDES)
	@touch $(NAMES:%=notebooks/%.ipynb)
	@$(BIN)/jupytext -q --sync $(NAMES:%=notebooks/%.ipynb)
	@touch $@
