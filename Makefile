# `make check` is everything that has to pass before a change is handed in; `make install` prepares .venv for it.
BIN ?= .venv/bin

.PHONY: check install lint test faults coverage docs

check: lint test docs

install:
	python3 -m venv .venv
	$(BIN)/pip install -q -e '.[dev]'

lint:
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/typos

test:
	$(BIN)/pytest -n 2

# Kill commands, fill disks, feed hostile files: tests/faults. Another SEED makes other cases.
SEED ?= 2022
faults:
	LIM_KERAS_FAULTS_SEED=$(SEED) $(BIN)/pytest -n 2 --dist=load -m faults --timeout=0 tests/faults

# All tests again with coverage, half as long again as without; fails below the share in pyproject.toml.
coverage:
	$(BIN)/pytest -n 2 --cov --cov-report=term

# The documentation site, into site/. The variable silences an advertisement of the theme.
docs:
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet
