# make demo    fit, forecast and stream a real, gappy series; writes demo.png
# make test    the whole test suite
# make lint    ruff and mypy
# make bench   the comparisons with peers, each after the tests of what it times; BENCH="kalman s4d" runs these two
# make bench-accuracy   the table of accuracies on real tasks, from its ledger or measured; ACCURACY="m4 tanks" takes these
#              two, ACCURACY="--print" measures nothing. STATESPACE_DATA names the folder with the real data
# make docs    the documentation, into docs/_build/html
# make gpu-check   on a machine with a CUDA device: the tests that need one, then each kernel beside its limit and its
#              peers; one table, and gpu-check.json, from which it goes on where it was stopped. GPU="ssd wkv" times these
#              two, GPU_ARGS="--seconds 540" stops it in time, GPU_PYTHON=python3 takes a Python that has what it needs
#
# Each installs what it needs into .venv first. PYTHON=... chooses the interpreter, PYTEST_ARGS=... is handed on.

PYTHON ?= $(shell command -v python3.11 || command -v python3)
BIN := .venv/bin
# Two processes; the tests of a file stay in one, so that a Numba function is compiled by one and cached for the rest.
# tests/conftest.py says in which order the files are taken.
PYTEST_ARGS ?= -n 2 --dist loadfile --no-loadscope-reorder

.PHONY: demo test lint bench bench-accuracy docs gpu-check clean clean-cache

# torch first and by its exact pin: a looser one takes the newest build, with several GB of CUDA packages.
.venv/.installed: pyproject.toml constraints.txt
	@$(PYTHON) -c "import sys; sys.exit(sys.version_info < (3, 11) and 'statespace needs Python 3.11 or newer: make PYTHON=/path/to/python3.11')"
	@echo "Installing into .venv: one to several minutes, once."
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet "$$(grep '^torch==' constraints.txt)"
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[test,plot,data]'
	touch $@

.venv/.installed-docs: .venv/.installed
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[docs]'
	touch $@

.venv/.installed-bench: .venv/.installed
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[benchmarks]'
	touch $@

demo: .venv/.installed
	$(BIN)/python examples/demo.py

test: .venv/.installed
	$(BIN)/python -m pytest $(PYTEST_ARGS)

lint: .venv/.installed
	$(BIN)/python -m ruff check .
	$(BIN)/python -m mypy

bench: .venv/.installed-bench
	$(BIN)/python tests/benchmarks/run.py $(BENCH)

bench-accuracy: .venv/.installed-bench
	$(BIN)/python tests/benchmarks/bench_accuracy.py $(ACCURACY)

docs: .venv/.installed-docs
	$(BIN)/python -m sphinx -W --keep-going -b html docs docs/_build/html

.venv/.installed-gpu: .venv/.installed
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[gpu]'
	touch $@

ifdef GPU_PYTHON
gpu-check:
else
GPU_PYTHON := $(BIN)/python
gpu-check: .venv/.installed-gpu
endif
	@$(GPU_PYTHON) tests/benchmarks/gpu.py $(GPU) $(GPU_ARGS)

clean:
	rm -rf .venv build dist docs/_build docs/api docs/gallery docs/sg_execution_times.rst .pytest_cache .mypy_cache .ruff_cache .hypothesis demo.png
	$(MAKE) clean-cache
	rm -rf *.egg-info

# Numba's cache notices a change in a function's own file only, not in the helpers that it inlines.
clean-cache:
	find . -name '__pycache__' -prune -exec rm -rf {} +
