# `make` or `make help` lists the targets. All of them may be run again at any time.
PYTHON ?= python3
BIN := .venv/bin
SITE := docs/_build
# Python keeps its compiled files even where the environment disables that: the tests start hundreds of processes.
export PYTHONDONTWRITEBYTECODE :=

.PHONY: help demo test test-long bench browser docs venv lint types clean

help:               ## list the targets
	@awk -F ':[^#]*## ' '/^[a-z-]+:.*## / { printf "%-11s%s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: venv          ## solar cells: prepare, train, evaluate, classify ten images, write the report (15 minutes on 2 cores)
	$(BIN)/alexnet demo

test: venv browser   ## lint, type checks, documentation and tests, two at a time
	$(MAKE) --no-print-directory --jobs 2 lint types docs
	OMP_NUM_THREADS=1 $(BIN)/pytest --numprocesses 2 --dist loadfile --no-loadscope-reorder

test-long: venv     ## tests that take minutes (killed processes, lost hosts, four processes), and further forms of others
	$(BIN)/pytest -m long

INSTALL_CHROMIUM := apt-get install --yes --quiet --no-install-recommends chromium

browser:            ## install Chromium for the tests of the pages; without it they are skipped with a message
	@command -v chromium >/dev/null || command -v google-chrome >/dev/null \
	|| { test "$$(id -u)" = 0 && command -v apt-get >/dev/null && { $(INSTALL_CHROMIUM) || { apt-get update && $(INSTALL_CHROMIUM); }; }; } \
	|| echo "Chromium is missing and cannot be installed (apt-get and root are needed): the tests of the pages will be skipped"

docs: venv          ## build the documentation into docs/_build/site; a warning is an error
	$(BIN)/sphinx-build --builder html --fail-on-warning --keep-going --quiet --doctree-dir $(SITE)/doctrees docs $(SITE)/site
	@echo "open $(SITE)/site/index.html"

bench: venv         ## time the package against its peers, write docs/results/ (10 minutes)
	$(BIN)/alexnet bench --results docs/results

lint: venv          ## ruff: errors and formatting
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports

types: venv         ## mypy
	$(BIN)/mypy

venv: .venv/.installed  ## create .venv with the `alexnet` command and the development tools

.venv/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --no-compile --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	touch $@

clean:              ## remove .venv and everything built or written by the demo and the experiments
	rm -rf .venv build $(SITE) *-out
