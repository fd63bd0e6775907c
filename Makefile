# Each target makes its own environment if it is not there.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
# Two workers share two cores; TensorFlow starts once in each.
WORKERS ?= 2
# The release the torch lane runs; a range would fetch the newest CUDA build.
TORCH ?= torch==2.13.0
# Under benchmarks/: the shared module, and what needs an environment of its own.
NOT_ALONE := benchmarks/page.py benchmarks/peers.py
PYTEST := $(BIN)/python -m pytest -n $(WORKERS) --dist loadfile -q
export TF_CPP_MIN_LOG_LEVEL ?= 3
export CUDA_VISIBLE_DEVICES ?= -1
export TF_ENABLE_ONEDNN_OPTS ?= 0

.PHONY: demo test check lint types test-slow test-floor test-backends \
    wheel docs bench bench-peers clean

demo: $(VENV)/.demo
	$(BIN)/python -m stablekeras demo

test: $(VENV)/.dev
	$(PYTEST) -m "not slow"

check: lint types docs test wheel test-floor test-backends

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.dev
	$(BIN)/mypy

# The long campaigns: thousands of programs, faults and mutated files.
test-slow: $(VENV)/.dev
	$(PYTEST) -m slow

# The wheel as a user gets it: installed alone, imported outside the checkout.
wheel: $(VENV)/.dev
	$(BIN)/python tests/wheel.py

# The oldest Keras and TensorFlow that pyproject.toml admits.
test-floor:
	$(MAKE) VENV=.venv-floor FLOOR=1 .venv-floor/.dev
	.venv-floor/bin/python -m pytest -n $(WORKERS) --dist loadfile -q \
	    -m "not slow and not distributed" tests/unit tests/scenarios

# What needs no TensorFlow, on Keras' other backends.
test-backends: .venv-backends/.dev
	for backend in jax torch; do \
	    KERAS_BACKEND=$$backend .venv-backends/bin/python -m pytest \
	        -n $(WORKERS) --dist loadfile -q -m "backends and not slow" \
	        tests || exit 1; \
	done

docs: $(VENV)/.docs
	$(BIN)/mkdocs build --strict

# Each writes its tables and pictures into the docs.
bench: $(VENV)/.dev
	for script in $(filter-out $(NOT_ALONE),$(wildcard benchmarks/*.py)); do \
	    $(BIN)/python $$script --write || exit 1; \
	done

# PyTorch, JAX and optax beside ours.
bench-peers: .venv-peers/.dev
	.venv-peers/bin/python benchmarks/peers.py --write

clean:
	rm -rf .venv .venv-* build dist site

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

ifdef FLOOR
PINS := keras==3.12.0 tensorflow==2.19.0
endif

$(VENV)/.demo: pyproject.toml | $(VENV)/bin/python
	$(BIN)/python -m pip install -q -e ".[demo]" $(PINS)
	touch $@

$(VENV)/.dev: pyproject.toml | $(VENV)/bin/python
	$(BIN)/python -m pip install -q -e ".[dev]" $(PINS)
	touch $@

.venv-backends/.dev: pyproject.toml
	$(PYTHON) -m venv .venv-backends
	.venv-backends/bin/python -m pip install -q -e ".[dev]" jax $(TORCH)
	touch $@

.venv-peers/.dev: pyproject.toml
	$(PYTHON) -m venv .venv-peers
	.venv-peers/bin/python -m pip install -q -e . jax optax $(TORCH)
	touch $@

$(VENV)/.docs: pyproject.toml | $(VENV)/bin/python
	$(BIN)/python -m pip install -q -e ".[dev,docs]" $(PINS)
	touch $@
