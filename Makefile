# Two commands do everything: `make demo` and `make test`. Both may be run again at any time.
PYTHON ?= python3
BIN := .venv/bin
# Python keeps what it compiles, also where the environment tells it not to: the tests start hundreds of processes.
export PYTHONDONTWRITEBYTECODE :=

.PHONY: demo test test-long bench browser venv lint types clean

demo: venv          ## solar cells: prepare, train, measure, classify ten, show (about a quarter of an hour on two cores)
	$(BIN)/alexnet demo

test: lint types browser    ## lint, types and the tests, two at a time
	OMP_NUM_THREADS=1 $(BIN)/pytest --numprocesses 2 --dist loadfile

test-long: venv     ## the tests that take minutes: processes killed, hosts cut off, four processes
	$(BIN)/pytest -m long

INSTALL_CHROMIUM := apt-get install --yes --quiet --no-install-recommends chromium

browser:            ## Chromium, for the tests that look at the pages; without it they are skipped, and say so
	@command -v chromium >/dev/null || command -v google-chrome >/dev/null \
	|| { test "$$(id -u)" = 0 && command -v apt-get >/dev/null && { $(INSTALL_CHROMIUM) || { apt-get update && $(INSTALL_CHROMIUM); }; }; } \
	|| echo "no Chromium, and no apt-get as root to install it: the tests of the pages will be skipped"

bench: venv         ## every ratio against its peer, written to docs/results/ (about ten minutes)
	$(BIN)/alexnet bench --results docs/results

lint: venv
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports

types: venv
	$(BIN)/mypy

venv: .venv/.installed  ## .venv with the `alexnet` command in it

.venv/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --no-compile --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	touch $@

clean:
	rm -rf .venv build *-out
