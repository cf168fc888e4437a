# `make demo` and `make test` do everything on a fresh machine; each makes .venv first if it is missing.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: .venv demo check test test-long test-browser lab docs dist check-dist

# The stamp is written last, so an installation that was interrupted is taken up again.
.venv: .venv/installed
.venv/installed: constraints.txt settings.ini setup.py pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	touch $@

demo: .venv
	$(BIN)/causal-tune demo

# Before each commit, in under a minute: are the modules what the notebooks export, is the style kept, do the quick tests pass?
check: export OMP_NUM_THREADS ?= 1
check: .venv
	$(BIN)/ruff check
	$(BIN)/python -m pytest -q -m 'not slow and not browser'

# Every notebook, and the tests. Two notebooks at a time with one thread each; more threads only get into each other's way. What fails keeps nothing else
# from running.
test: export OMP_NUM_THREADS ?= 1
test: .venv
	@status=0; \
	$(BIN)/ruff check || status=1; \
	$(BIN)/python tests/notebooks.py || status=1; \
	$(BIN)/python -m pytest -m 'not long' --cov --cov-report=term:skip-covered || status=1; \
	exit $$status

# Trials: commands killed at any moment, runs of several processes and machines, torch's compiler and exporter, fuzzing, wheels.
test-long: export OMP_NUM_THREADS ?= 1
test-long: .venv
	$(BIN)/python -m pytest -m long

# Only what differs where there is a browser: notebooks that draw static pictures, tests that open pages.
test-browser: export OMP_NUM_THREADS ?= 1
test-browser: .venv
	@status=0; \
	$(BIN)/python tests/notebooks.py '/(0._figures|0._page|quality_.*)\.ipynb$$' || status=1; \
	$(BIN)/python -m pytest -m browser || status=1; \
	exit $$status

lab: .venv
	$(BIN)/causal-tune lab

# The documentation as a site: _docs/html/index.html.
docs: .venv/docs
	$(BIN)/python docs/build.py
.venv/docs: .venv/installed
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[docs]'
	touch $@

# Wheel and source distribution, checked by the tools that know what an index takes.
dist: .venv
	rm -rf dist build
	$(BIN)/python -m build --outdir dist
	$(BIN)/python -m twine check --strict dist/*
	$(BIN)/check-wheel-contents dist/*.whl

# The wheel alone, in an environment of its own and an empty folder.
check-dist: dist
	$(BIN)/python tests/dist.py dist/*.whl
