# `make demo` and `make test` are the two commands; everything they need they install themselves.

BIN := .venv/bin
# Only where the distribution's Go is too old (scripts/bootstrap).
export PATH := $(CURDIR)/.venv/go/bin:$(PATH)

.PHONY: help demo test quick chaos soak cluster test-cluster lint format stubs pins changelog bench coverage clean

help: ## Show this list
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 24

demo: ## Show what it does, on this machine, each step verified (root)
	@scripts/bootstrap demo
	@$(BIN)/akvfs demo

test: ## Run every test (root; PYTEST_ADDOPTS is read)
	@scripts/bootstrap test
	@$(BIN)/pytest

quick: ## Run the tests that need neither root nor FUSE
	@scripts/bootstrap test
	@$(BIN)/pytest tests/unit tests/stateful

chaos: ## Let everything fail many times, with bounds of time: for an idle machine (root; minutes)
	@scripts/bootstrap test
	@$(BIN)/pytest tests/chaos

soak: ## Rotate and kill for SOAK_MINUTES (10), with bounds of growth (root)
	@scripts/bootstrap test
	@$(BIN)/pytest tests/soak

cluster: ## Run a Kubernetes node until Ctrl-C (root; builds for minutes the first time)
	@scripts/bootstrap cluster
	@PYTHONPATH=tests $(BIN)/python -m cluster

test-cluster: ## Run the tests on a Kubernetes node (root; builds for minutes the first time)
	@scripts/bootstrap cluster
	@PYTHONPATH=tests $(BIN)/python -m cluster --prepare
	@$(BIN)/pytest tests/cluster

bench: ## Measure reads, publishes and rotations, each beside a reference (root)
	@scripts/bootstrap test
	@PYTHONPATH=tests $(BIN)/python -m bench

lint: ## Check style, types, import fences, stubs and changelog
	@scripts/bootstrap lint
	@scripts/lint

format: ## Let ruff rewrite what it can
	@scripts/bootstrap lint
	@$(BIN)/ruff check --fix-only --quiet
	@$(BIN)/ruff format

stubs: ## Generate the wire stubs
	@scripts/bootstrap lint
	@scripts/stubs

pins: ## Resolve the requirement files anew (UPGRADE=1: to newer versions)
	@scripts/bootstrap lint
	@scripts/pins $(if $(UPGRADE),--upgrade)

changelog: ## Show what the changelog fragments amount to
	@scripts/bootstrap lint
	@$(BIN)/towncrier build --draft

coverage: ## Run every test and report the lines that none of them reached
	@scripts/bootstrap test
	@$(BIN)/coverage erase
	@$(BIN)/coverage run -m pytest
	@$(BIN)/coverage combine --quiet
	@$(BIN)/coverage report

clean: ## Remove what was installed and generated here
	@rm -rf .venv .bootstrap.lock .hypothesis .mypy_cache .pytest_cache .ruff_cache .import_linter_cache \
	  .coverage .coverage.* *.egg-info build dist reports
