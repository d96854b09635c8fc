# Every target works on a fresh clone: the virtual environment is made when it is missing or out of date.
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
EXTRAS ?= cpu,cluster
# the package as it imports, for tools that only read files
TREE := .state/lint/paperflows
export PATH := $(CURDIR)/$(BIN):$(PATH)

.PHONY: help run test alltests lint ui repro bench clean
help: ## show the targets
	@grep -E '^[a-z]+:.*##' Makefile | sed 's/:.*##/\t/' | expand -t 10

$(BIN)/python:
	$$(command -v $(PYTHON) || command -v python3) -m venv $(VENV)

$(STAMP): pyproject.toml constraints.txt setup.py | $(BIN)/python
	$(BIN)/python -m pip install --quiet --no-compile --constraint constraints.txt --editable '.[$(EXTRAS)]'
	touch $@

# with the test tools, in one go: it is all of the other
$(VENV)/.installed-dev: pyproject.toml constraints.txt setup.py | $(BIN)/python
	$(BIN)/python -m pip install --quiet --no-compile --constraint constraints.txt --editable '.[$(EXTRAS),dev]'
	touch $(STAMP) $@

run: $(STAMP) ## install, run CLAIF offline on the built-in corpora, print its verdicts
	paperflows run claif

test: $(VENV)/.installed-dev ## install with test tools, run all tests, beside them check style, types and layers
	$(MAKE) --no-print-directory --jobs 2 lint alltests

alltests: $(VENV)/.installed-dev
	pytest -n 2 --durations 30

lint: $(VENV)/.installed-dev ## style, types, layers, spelling, generated files
	ruff check . && ruff format --check .
	mkdir -p $(TREE) && ln -sfn $(CURDIR)/paperflows/* $(foreach layer,flows tasks components kernels,$(CURDIR)/$(layer)) $(TREE)/
	cd $(TREE)/.. && mypy --config-file $(CURDIR)/pyproject.toml && lint-imports --config $(CURDIR)/pyproject.toml
	codespell
	paperflows sync --check

ui: $(STAMP) ## Prefect, MLflow and the report page on this machine, until Ctrl-C
	paperflows serve

repro: $(STAMP) ## reproduce every paper of dvc.yaml; does nothing when nothing changed
	dvc repro

bench: $(VENV)/.installed-dev ## measure speeds and overheads as ratios; writes docs/results/bench
	python tests/bench

clean: ## remove working state (results, checkpoints, caches), not the outputs
	rm -rf .state
