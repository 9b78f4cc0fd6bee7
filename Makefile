# `make run` does the main job, `make test` runs the tests; both set up .venv first. `make help` lists the rest.
PYTHON ?= python3.11
BIN := .venv/bin

.DEFAULT_GOAL := help
.PHONY: help setup run test test-slow lint bench

help: ## show this list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 12

.venv/installed: requirements.lock pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --disable-pip-version-check --quiet -r requirements.lock
	$(BIN)/pip install --disable-pip-version-check --quiet --no-deps --no-build-isolation -e .
	-@git config merge.compactlm.driver '"$(CURDIR)/$(BIN)/compactlm" merge-lock %O %A %B %P' 2>/dev/null
	touch $@

setup: .venv/installed ## create the virtual environment and install the locked dependencies

run: setup ## compress the model of params.yaml, end to end
	$(BIN)/compactlm run

test: setup lint ## run the linters and the tests
	$(BIN)/pytest -n 3 --dist loadfile --no-loadscope-reorder

test-slow: setup ## run the tests on real models
	$(BIN)/pytest -m slow --override-ini addopts="--strict-markers -ra"

lint: setup ## ruff, mypy, import contracts
	$(BIN)/ruff check flows infra tasks tests
	$(BIN)/ruff format --check flows infra tasks tests
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: setup ## measure what docs/benchmarks.md reports
	$(BIN)/python -m tests.bench
