# `make check` is everything that has to pass before a change is handed in; `make install` prepares .venv for it.
BIN ?= .venv/bin

.PHONY: check install lint test

check: lint test

install:
	python3 -m venv .venv
	$(BIN)/pip install -q -e '.[dev]'

lint:
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

test:
	$(BIN)/pytest -n 2
