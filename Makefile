# Needs GNU make and Python 3.11 or newer; everything else is installed into .venv.

VENV := .venv
VENV_PYTHON := $(VENV)/bin/python
STAMP := $(VENV)/.stamp

# The newest Python that will do. Any other: make setup PYTHON=/path/to/python
PYTHON ?= $(shell for candidate in python3.14 python3.13 python3.12 python3.11 python3; do \
	$$candidate -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null \
	&& { echo $$candidate; break; }; done)

# Only what the code needs today; the extras for frameworks and servers come with their packages.
REQUIREMENTS := --editable '.[agents,chroma,classic,fast,langchain,langgraph,local,postgres,text,testing]' --group dev
PIP := $(VENV_PYTHON) -m pip --disable-pip-version-check
# --group came with pip 25.1.
INSTALL := $(PIP) install -qq --upgrade 'pip>=25.1' && $(PIP) install -qq $(REQUIREMENTS)
CHECK_ENVIRONMENT := $(VENV_PYTHON) tests/packaging/check_environment.py
VENV_WORKS := $(VENV_PYTHON) -c 'import sys, pip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null

.DEFAULT_GOAL := help
.PHONY: help setup demo test lint format types wheel bench clean new-venv

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-8s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: ## build or repair .venv: the project, editable, and the tools for its tests
	@if [ -e $(STAMP) ] && ! $(CHECK_ENVIRONMENT); then rm -f $(STAMP); fi
	@$(MAKE) --no-print-directory --silent $(STAMP)

# A missing package is added, and what was installed by hand stays. An environment that cannot run,
# or is still wrong after an installation that succeeded, is made anew.
$(STAMP): pyproject.toml
	@$(VENV_WORKS) || $(MAKE) --no-print-directory new-venv
	@echo "installing into $(VENV)"
	@$(INSTALL)
	@$(CHECK_ENVIRONMENT) || { $(MAKE) --no-print-directory new-venv && $(INSTALL) && $(CHECK_ENVIRONMENT); }
	@touch $(STAMP)

new-venv:
	@test -n "$(PYTHON)" || { echo "No Python 3.11 or newer found. Install one, or name it:" \
		"make setup PYTHON=/path/to/python" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "$(PYTHON) does not run," \
		"or is older than 3.11. Name another: make setup PYTHON=/path/to/python" >&2; exit 1; }
	@echo "making $(VENV) with $$($(PYTHON) --version)"
	@rm -rf $(VENV)
	@$(PYTHON) -m venv $(VENV)

demo: setup ## run the demonstration
	@$(VENV)/bin/agentmem demo

# Each process takes the next tests that are left, and has a PostgreSQL server of its own.
test: setup ## run the tests
	$(VENV_PYTHON) -m pytest --numprocesses auto --maxprocesses 4 --dist worksteal $(ARGS)

lint: setup ## check style and formatting
	$(VENV_PYTHON) -m ruff check .
	$(VENV_PYTHON) -m ruff format --check .

format: setup ## fix what lint can fix by itself
	$(VENV_PYTHON) -m ruff check --fix .
	$(VENV_PYTHON) -m ruff format .

types: setup ## check the types of the packages
	$(VENV_PYTHON) -m mypy --strict

wheel: setup ## build the wheel and try it in a clean environment
	$(VENV_PYTHON) tests/packaging/check_wheel.py

bench: setup ## run the benchmarks
	$(VENV_PYTHON) -m benchmarks $(ARGS)

clean: ## remove build results and caches; .venv stays
	rm -rf build dist htmlcov .coverage .hypothesis .mypy_cache .pytest_cache .ruff_cache
	find . -name .venv -prune -o -name .git -prune -o -type d -name __pycache__ -exec rm -rf {} +
