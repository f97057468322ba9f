# make demo     install into .venv, train on handwritten digits, use the model
# make test     install into .venv, then lint, types and every default test
# make check    ruff, mypy and the quick tests
# make faults   the whole fault matrix, some 20 minutes; counts in benchmarks/results/faults.json
# make docs     the pages of docs/ and of every command, in build/docs; warnings are errors
# make bench    the measurements of benchmarks/, as JSON
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed

export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: demo test check lint types quick fix bench faults docs clean

$(INSTALLED): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit("dltool needs Python 3.11 or newer: make PYTHON=python3.11") if sys.version_info < (3, 11) else None'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --upgrade pip
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --group dev
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --no-build-isolation --editable .
	touch $@

demo: $(INSTALLED)
	rm -rf runs/cnn/demo
	$(BIN)/dltool cnn train --out runs/cnn/demo
	$(BIN)/dltool cnn predict runs/cnn/demo examples/digits --top 2 --grid runs/cnn/demo/predictions.png

test: lint types
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n 2 --dist worksteal --durations 25

check: lint types quick

lint: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(INSTALLED)
	$(BIN)/mypy

quick: $(INSTALLED)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n 2 --dist loadfile tests/core tests/test_cli.py

fix: $(INSTALLED)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

faults: $(INSTALLED)
	DLTOOL_FAULTS=full DLTOOL_FAULTS_OUT=benchmarks/results/faults.json OMP_NUM_THREADS=1 \
		$(BIN)/python -m pytest -q -n 2 --dist load --timeout 1800 tests/faults tests/plugins/test_conformance.py

docs: $(INSTALLED)
	$(BIN)/python -m mkdocs build --strict --clean

bench: $(INSTALLED)
	$(BIN)/python benchmarks/startup.py
	$(BIN)/python benchmarks/loop_overhead.py
	$(BIN)/python benchmarks/checkpoint.py
	$(BIN)/python benchmarks/runs.py
	$(BIN)/python benchmarks/cnn_recipes.py

clean:
	rm -rf $(VENV) build dist .pytest_cache .mypy_cache .ruff_cache
