# `make demo` and `make test` are all that most people need; `make help` lists the rest.
.DELETE_ON_ERROR:
.PHONY: help demo demo-full test test-all bench-data bench-masks bench-judge bench-step bench-parcellator weights-parcellator weights-t1w test-archives test-conda test-faults test-slurm test-speed setup slurm
.PHONY: lint format docs site bench-speed gpu gpu-bundle experiments sampling-sweep scale constraints pins report clean
PYTHON ?= python3
CORES ?= all
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
# One GPU job at a time on each card; without a card there is nothing to share.
GPUS = $(shell $(BIN)/python -c 'from iqt.compute.gpus import visible_gpus; print(len(visible_gpus()))')
PYTEST = $(BIN)/python -m pytest
# Each test file in one process, so that its runs are shared; one thread each, or they would wait for one another. Files
# go in the order of pyproject.toml's folders, of which the first has the long ones: at the end no process is long alone.
JOBS = --numprocesses $(shell $(BIN)/python -c 'import os; print(len(os.sched_getaffinity(0)))') --dist loadfile --no-loadscope-reorder
SNAKEMAKE = $(BIN)/snakemake --logger iqt --cores $(CORES) $(if $(filter-out 0,$(GPUS)),--resources gpu=$(GPUS))

help: ## List the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

demo: $(READY) ## Run the whole chain on the embedded cohort and show its table
	@mkdir -p "$${XDG_CACHE_HOME:-$$HOME/.cache}" 2>/dev/null \
	  || { echo "$$HOME cannot be written to, and Snakemake keeps a cache there: export XDG_CACHE_HOME=A_FOLDER_THAT_CAN" >&2; exit 1; }
	$(SNAKEMAKE)
	@$(BIN)/iqt show results/demo

demo-full: $(READY) ## The demo with every method (half an hour)
	$(SNAKEMAKE) --configfile config/demo-full.yaml
	@$(BIN)/iqt show results/demo-full

test: $(READY) ## Run the tests that take seconds, and the whole chain once, on all cores
	$(PYTEST) $(JOBS) -m "not slow"

test-all: $(READY) ## Run all of tests/unit and tests/workflow: half an hour or more on two cores
	$(PYTEST) $(JOBS)

test-speed: $(READY) ## Measure the simulator on a volume of HCP's size
	IQT_SPEED=1 $(BIN)/python -m pytest -s tests/unit/test_degrade_speed.py

test-archives: $(READY) ## What takes minutes of the cohort's sources; needs IQT_REAL_DATA
	$(BIN)/python -m pytest --timeout=1800 tests/archives

test-slurm: $(READY) slurm ## The workflow on a real one-node Slurm: needs root and Debian's slurm-wlm and munge
	$(BIN)/python -m pytest --timeout=3000 tests/slurm

test-conda: $(READY) ## Every rule in an environment of its own, with a stand-in for conda
	$(BIN)/python -m pytest --timeout=1800 tests/conda

test-faults: $(READY) ## Ten kills, a full disk, a read-only folder and more
	$(BIN)/python -m pytest --timeout=2700 tests/faults

setup: $(READY) ## Create .venv with the pinned dependencies

$(READY): pyproject.toml envs/constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "Python 3.11 or newer is needed; $(PYTHON) is $$($(PYTHON) -V 2>&1). Try: make $(MAKECMDGOALS) PYTHON=python3.12" >&2; exit 1; }
	sh envs/setup.sh $(PYTHON) $(VENV)
	@touch $@

slurm: $(READY) ## Add Snakemake's Slurm plugin to .venv
	@$(BIN)/python -c 'import snakemake_executor_plugin_slurm' 2>/dev/null || sh envs/setup.sh $(PYTHON) $(VENV) slurm

lint: $(READY) ## Check style: ruff, snakefmt, snakemake --lint
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/snakefmt --check Snakefile workflow
	$(BIN)/snakemake --lint

format: $(READY) ## Put the code in order
	$(BIN)/ruff check --fix
	$(BIN)/ruff format
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/snakefmt Snakefile workflow

docs: $(READY) ## Write the configuration's manual and schema
	$(BIN)/iqt config readme config/README.md
	$(BIN)/iqt config schema config/schema.json

site: $(READY) ## Build the documentation site into results/site, offline
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet --clean

constraints: ## Renew envs/constraints.txt from the pins of pyproject.toml, indirect dependencies at their newest
	rm -rf $(VENV) && : > envs/constraints.txt
	$(MAKE) setup slurm
	{ $(BIN)/uv pip freeze --python $(BIN)/python --exclude-editable || $(BIN)/python -m pip freeze --exclude-editable; } \
	  | sed 's/+cpu$$//' > envs/constraints.txt

bench-data: $(READY) ## Measure how fast training data are read
	$(BIN)/iqt bench data docs/measurements/data.md

bench-parcellator: $(READY) ## Train the multi-view parcellator for as long as the 3D one, and compare them; needs IQT_REAL_DATA
	$(BIN)/python tests/measurements/parcellator.py --out results/bench-parcellator --settings \
	  '{"filters": 24, "slice_size": 80, "training": {"steps": 6000, "batch_size": 4, "learning_rate": 0.02, "validate_every": 500}}'

bench-masks: $(READY) ## Measure the engines of brain masks on real heads (a quarter of an hour); needs IQT_REAL_DATA
	OMP_NUM_THREADS=1 $(BIN)/python tests/measurements/masks.py

bench-judge: $(READY) ## Measure the shipped parcellator on real scans (ten minutes); needs IQT_REAL_DATA
	$(BIN)/python tests/measurements/judge.py --figure docs/images/judge.png

weights-t1w: $(READY) ## Train the shipped T1w model: make weights-t1w [DATA=COPY OF ds002748] (two hours, resumable)
	$(SNAKEMAKE) models --configfile config/release/t1w.yaml \
	  $(if $(DATA),--config 'cohort={"bids": {"path": "$(DATA)"}}')
	@echo "To measure and ship it: see tests/measurements/release.py"

weights-parcellator: $(READY) ## Train the 3D parcellator on label maps: make weights-parcellator LABELS=FOLDER (an hour)
	$(BIN)/iqt train-volumetric $(LABELS) --out results/release/parcellator --settings config/release/parcellator.yaml
	@echo "To ship it, copy model.safetensors and model.json of results/release/parcellator to resources/models/parcellator"

bench-step: $(READY) ## Measure a training step beside its convolutions alone (two minutes, on a quiet machine)
	$(BIN)/python tests/measurements/step.py docs/measurements/step.md

gpu: $(READY) ## On a machine with a GPU: does it compute the same, and how fast (eight minutes) [RUN=FOLDER OF A RUN]
	rm -f results/gpu/gpu.md
	$(BIN)/iqt bench gpu --out results/gpu $(if $(RUN),--run $(RUN)); status=$$?; \
	  if [ -e results/gpu/gpu.md ]; then cp results/gpu/gpu.md docs/measurements/gpu.md; fi; exit $$status

gpu-bundle: $(READY) ## Pack that for a machine with torch and no network, into results/gpu-bundle [RUN=FOLDER OF A RUN] [CHECK=1]
	rm -rf results/gpu-bundle
	$(BIN)/iqt bench gpu-bundle results/gpu-bundle $(if $(RUN),--run $(RUN))
	$(if $(CHECK),PYTHON=$(BIN)/python sh results/gpu-bundle/start.sh --check --minutes 4 --out results/gpu-check)

bench-speed: $(READY) ## Measure what one volume costs and gives against the authors' protocol (half an hour)
	$(SNAKEMAKE) cohort lowfield results/demo-full/models/diffusion_alone/seed-1/model.json --configfile config/demo-full.yaml
	$(BIN)/iqt bench speed docs/measurements/speed.md

experiments: $(READY) ## The experiments of config/experiments.yaml, and the sweep of samplers (about two hours)
	$(SNAKEMAKE) --configfile config/experiments.yaml
	$(MAKE) sampling-sweep

sampling-sweep: $(READY) ## Quality against cost of the samplers (about 40 minutes)
	$(SNAKEMAKE) sampling_sweep --configfile config/sweep.yaml

scale: $(READY) ## Measure what 1,113 and 5,000 people cost, after make demo (five minutes)
	$(BIN)/python tests/measurements/scale.py docs/measurements/scale.md --run results/demo

pins: ## Write envs/*.linux-64.pin.txt; needs conda and the network
	sh envs/pin.sh

report: $(READY) ## Pack the demo's results with Snakemake's own report
	$(SNAKEMAKE) --report results/demo/snakemake-report.zip

clean: ## Remove the environment and the demo's results
	rm -rf $(VENV) results/demo results/smoke
