# Needs git, make and Python 3.11 or newer. To choose another Python: make setup PYTHON=python3.12
.DEFAULT_GOAL := help
.PHONY: help setup demo reference docs test test-all coverage test-compose test-faults test-transformer-lens \
	test-gpu-compile gpu-compile lint bench bench-pruning lock clean

# The first Python that runs (a version manager's shim may fail), is new enough and can create a virtual environment.
USABLE := import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))
PYTHON ?= $(shell for python in python3.13 python3.12 python3.11 python3; do \
	$$python -c '$(USABLE)' 2>/dev/null && echo $$python && break; done)
PIP := .venv/bin/python -m pip --quiet --disable-pip-version-check
UV ?= uv
LENS := .venv-transformer-lens
GPU := .venv-gpu
# On Linux, plain torch would be the build for GPUs, with a size of gigabytes.
TORCH ?= torch==2.13.0$(if $(filter Linux,$(shell uname)),+cpu)

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-21s  %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: .venv/.ready ## create .venv with the locked packages and miiii-search

demo: .venv/.run ## run a small search and show the best configuration
	@.venv/bin/miiii-search up --preset demo --no-dashboard

test: .venv/.test ## run the fast tests: no servers, no processes, no browser (some of them: make test ARGS="-k leases")
	@.venv/bin/pytest --fast --numprocesses $(UNIT_PROCESSES) --dist worksteal --ignore tests/integration -m "not ($(NEEDS_MORE))" $(ARGS)

test-all: setup test ## run all tests but the soaks: PostgreSQL, processes, a browser and containers where they are
	@.venv/bin/pytest --numprocesses $(PROCESSES) --dist loadfile --no-loadscope-reorder --rest $(ARGS)

NEEDS_MORE = postgres or process or browser or docker or slow or soak or gpu_compile

coverage: setup ## run the unit tests, and show which branches of the core they do not reach, per package
	@.venv/bin/pytest --fast --numprocesses $(UNIT_PROCESSES) --dist worksteal --ignore tests/integration \
		-m "not ($(NEEDS_MORE))" --cov --cov-report=term-missing $(ARGS)
	@for package in experiment training trial_queue study pruners worker; do printf '%-12s ' $$package; \
		.venv/bin/coverage report --format=total --include="miiii_search/$$package/*"; done

test-compose: setup ## run only the tests of the images and the compose files (needs a container engine)
	@docker info >/dev/null || { echo "make test-compose needs a container engine that docker info reaches" >&2; exit 2; }
	@.venv/bin/pytest tests/integration/test_compose.py $(ARGS)

test-faults: setup ## run the long fault tests: 50 kills over 60 trials, outages of ten minutes; about an hour
	@MIIII_KILLS=50 MIIII_FAULT_TRIALS=60 MIIII_FAULT_EPOCHS=100000 MIIII_OUTAGE_SECONDS=600 \
		.venv/bin/pytest -s -m "" tests/integration/test_faults.py $(ARGS)

test-transformer-lens: setup $(LENS)/.ready ## load exported weights in TransformerLens, in a separate environment (1.6 GB)
	@runs=$$(mktemp -d) && trap 'rm -rf "$$runs"' EXIT && .venv/bin/python tests/outside/export_runs.py "$$runs" && \
		$(LENS)/bin/python -W ignore::DeprecationWarning tests/outside/load_in_transformer_lens.py "$$runs"

$(LENS)/.ready: tests/outside/requirements.txt
	@echo "Setting up $(LENS) (a few minutes) ..."
	@.venv/bin/python -m venv --clear $(LENS)
	@$(LENS)/bin/python -m pip --quiet --disable-pip-version-check install '$(TORCH)' --requirement $< || { \
		echo "if $(TORCH) was not found, add PyTorch's index of CPU builds to pip's (PIP_EXTRA_INDEX_URL),\
	 or use another build: make test-transformer-lens TORCH=torch" >&2; exit 2; }
	@touch $@

# JAX's compiler for NVIDIA GPUs runs on any Linux machine. This environment is apart, as it is for nothing else.
gpu-compile: $(GPU)/.ready ## compile the training programs for GPUs that are not here, and predict their speed (ARGS=--quick: one)
	@$(GPU)/bin/python bench/gpu_compile.py $(or $(ARGS),--table miiii_search/training/gpu_predictions.json)

test-gpu-compile: $(GPU)/.ready ## test the programs that are compiled for GPUs, in the environment of make gpu-compile
	@JAX_PLATFORMS=cpu JAX_SKIP_CUDA_CONSTRAINTS_CHECK=1 \
		$(GPU)/bin/pytest -m gpu_compile tests/bench/test_gpu_compile.py $(ARGS)

$(GPU)/.ready: requirements/cuda.lock requirements/test.lock requirements/build.lock
	@echo "Setting up $(GPU) (some minutes, 7 GB) ..."
	@.venv/bin/python -m venv --clear $(GPU) 2>/dev/null || $(PYTHON) -m venv --clear $(GPU)
	@$(GPU)/bin/python -m pip --quiet --disable-pip-version-check install --require-hashes --only-binary :all: \
		$(addprefix -r ,$^)
	@$(GPU)/bin/python -m pip --quiet --disable-pip-version-check install --no-deps --no-build-isolation --editable .
	@touch $@

lint: setup ## check style, formatting, types and imports
	@.venv/bin/ruff check
	@.venv/bin/ruff format --check
	@.venv/bin/mypy
	@.venv/bin/lint-imports --no-cache

reference: .venv/.run ## write docs/reference/ again, after a change to options, fields, presets, metrics or files
	@.venv/bin/python -m website.reference

docs: .venv/.docs ## build the documentation's site in site/, and fail on a dead link or a page that no menu lists
	@NO_MKDOCS_2_WARNING=1 .venv/bin/mkdocs build --quiet --strict $(ARGS)
	@echo "open site/index.html in a browser, or serve it while you write: .venv/bin/mkdocs serve"

bench: SHELL := bash
bench: setup ## run the benchmarks, about 40 minutes; tables, JSON and pictures go to bench-results
	@mkdir -p $(BENCH_RESULTS)
	@set -o pipefail; for name in training parts lanes refill telemetry scaling precision storage fleet analysis; do \
		.venv/bin/python bench/$$name.py --json $(BENCH_RESULTS)/$$name.json $$( \
			case $$name in lanes|refill) echo --figure $(BENCH_RESULTS)/$$name.png;; esac) $(ARGS) || exit; \
	done | tee $(BENCH_RESULTS)/tables.txt

bench-pruning: setup ## evaluate pruning rules and samplers on the recorded curves, a few minutes; figures go to bench-results/pruning
	@mkdir -p $(BENCH_RESULTS)/pruning
	@.venv/bin/python bench/pruning.py --json $(BENCH_RESULTS)/pruning/rules.json --figures $(BENCH_RESULTS)/pruning $(ARGS)
	@.venv/bin/python bench/pruning.py --sensitivity $(ARGS)
	@.venv/bin/python bench/samplers.py --json $(BENCH_RESULTS)/pruning/samplers.json --figure $(BENCH_RESULTS)/pruning/samplers.png $(ARGS)

BENCH_RESULTS ?= bench-results

# The unit tests compute all the time. The others spend much of their time waiting for processes.
UNIT_PROCESSES ?= logical
PROCESSES ?= 3

lock: ## update the locks after a change to pyproject.toml, with uv (newer versions: make lock LOCK_ARGS=--upgrade)
	@command -v $(UV) >/dev/null || { echo "make lock needs uv (pip install uv), or its path: make lock UV=..." >&2; exit 2; }
	@$(COMPILE) -o requirements/run.lock --extra s3 pyproject.toml
	@$(COMPILE) -o requirements/dev.lock -c requirements/run.lock --extra dev pyproject.toml
	@$(COMPILE) -o requirements/test.lock -c requirements/dev.lock --extra test pyproject.toml
	@$(COMPILE) -o requirements/cuda.lock -c requirements/run.lock --extra cuda --extra s3 pyproject.toml
	@$(COMPILE) -o requirements/coordinator.lock -c requirements/run.lock --group coordinator
	@$(COMPILE) -o requirements/docs.lock -c requirements/dev.lock --group docs
	@$(COMPILE) -o requirements/build.lock -c requirements/dev.lock --group build

COMPILE = $(UV) pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
	--custom-compile-command "make lock" $(LOCK_ARGS)

clean: ## remove .venv, caches and build outputs (keeps databases and results)
	@rm -rf .venv $(LENS) $(GPU) .mypy_cache .pytest_cache .ruff_cache .hypothesis build dist site
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +

# Each builds on the one before: what `make demo` needs, what `make test` needs, and everything.
.venv/.run: requirements/run.lock requirements/build.lock pyproject.toml
	@python="$(PYTHON)"; "$${python:-false}" -c '$(USABLE)' 2>/dev/null || { echo "miiii-search needs Python 3.11 or newer with venv\
	 (Debian, Ubuntu: apt install python3-venv); name one with: make setup PYTHON=/path/to/python3" >&2; exit 2; }
	@echo "Setting up .venv (about a minute) ..."
	@.venv/bin/python -c '' 2>/dev/null || $(PYTHON) -m venv --clear .venv
	@$(PIP) install --require-hashes --only-binary :all: -r requirements/run.lock -r requirements/build.lock
	@$(PIP) install --no-deps --no-build-isolation --editable .
	@touch $@

.venv/.test: .venv/.run requirements/test.lock
	@echo "Installing what the tests need ..."
	@$(PIP) install --require-hashes --only-binary :all: -r requirements/test.lock
	@touch $@

.venv/.ready: .venv/.test requirements/dev.lock
	@echo "Installing the development tools ..."
	@$(PIP) install --require-hashes --only-binary :all: -r requirements/dev.lock
	@touch $@

.venv/.docs: .venv/.run requirements/docs.lock
	@echo "Installing what the documentation needs ..."
	@$(PIP) install --require-hashes --only-binary :all: -r requirements/docs.lock
	@touch $@
