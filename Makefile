# `make demo` and `make test` do everything on a fresh machine; each makes .venv first if it is missing.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo test lab

.venv: constraints.txt settings.ini setup.py
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch .venv

demo: .venv
	$(BIN)/causal-tune demo

test: .venv
	$(BIN)/nbdev_test --n_workers 2
	$(BIN)/python -m pytest tests

lab: .venv
	$(BIN)/jupyter lab nbs
