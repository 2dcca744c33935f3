# Everything a person runs here. Plain python3 (3.11 or newer), venv and pip; `make help` lists the targets.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
DEMO_OUT ?= demo
# The registry's default build of torch brings several GB of CUDA; the pinned version has a CPU wheel where pip is set up for one.
PIP_ARGS ?=
# Where tools.install leaves commands that it takes out of a system package without installing it.
export PATH := $(CURDIR)/.cache/tools:$(PATH)

.DEFAULT_GOAL := help
.PHONY: help setup demo serve test lint types imports proto-check deploy-check stubs format bench loadtest bench-peers bench-ceiling \
	gpu-check gpu-bench tools clean train quality

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(STAMP) ## Make the virtual environment and install everything into it

$(STAMP): pyproject.toml proto/pyproject.toml clients/python/pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "limner needs Python 3.11 or newer")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check $(PIP_ARGS) torch==2.13.0
	$(BIN)/python -m pip install --quiet --disable-pip-version-check $(PIP_ARGS) \
		-e ./proto -e './clients/python[pillow]' -e '.[dev,train]'
	touch $@

demo: $(STAMP) ## Serve, generate portraits of two shipped references, leave them in demo/
	$(BIN)/python -m tools.demo --out $(DEMO_OUT)

serve: $(STAMP) ## Run the server on localhost:50051 (metrics on 9464)
	$(BIN)/limner-server

test: $(STAMP) tools ## Run lint, types, import rules, proto checks and all tests
	$(MAKE) --no-print-directory lint types imports proto-check deploy-check
	$(BIN)/python -m pytest

lint: $(STAMP) ## Check style with ruff
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: $(STAMP) ## Format the code
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

types: $(STAMP) ## Check types with mypy --strict
	$(BIN)/mypy

imports: $(STAMP) ## Check which layer imports which
	$(BIN)/lint-imports

proto-check: $(STAMP) tools ## Lint the API, look for breaking changes and for drift of the generated stubs
	$(BIN)/python -m tools.stubs --check
	$(BIN)/python -m tools.buf

deploy-check: $(STAMP) tools ## Hold deploy/ against kubectl, schemas, hadolint, promtool, Envoy and our policy
	$(BIN)/python -m tools.deploy

stubs: $(STAMP) ## Generate the Python stubs and Envoy's descriptors from the .proto files
	$(BIN)/python -m tools.stubs

tools: $(STAMP) ## Install what the tests need outside pip, where that is allowed
	$(BIN)/python -m tools.install

bench: $(STAMP) ## Measure the service against diffusers and against its own bare engine loop
	$(BIN)/python -m loadtests.bench

BENCH_ARGS ?=

bench-peers: $(STAMP) ## Measure the service and its peers in one run (an hour; BENCH_ARGS="--rounds 1" for less)
	$(BIN)/python -m loadtests.peers --pip-args='$(PIP_ARGS)' $(BENCH_ARGS)

bench-ceiling: $(STAMP) ## Place the service between its bare engine loop and the machine's arithmetic ceiling
	$(BIN)/python -m loadtests.bench.ceiling $(BENCH_ARGS)

SCENARIO ?= steady
LOADTEST_ARGS ?= --serve

loadtest: $(STAMP) ## Run a load test against a server of its own (SCENARIO=steady; docs/loadtests.md has the others)
	$(BIN)/python -m loadtests run $(SCENARIO) $(LOADTEST_ARGS)

# The environment is the caller's: a GPU machine has its own torch. `make gpu-check PYTHON=/path/to/python`.
GPU_PYTHON := PYTHONPATH=$(CURDIR):$(CURDIR)/proto:$(CURDIR)/clients/python:$(PYTHONPATH) $(PYTHON)
GPU_ARGS ?=

gpu-check: ## Compare the GPU backends with diffusers on the GPU at hand; installs nothing
	$(GPU_PYTHON) -m loadtests.gpu.check --output build/gpu-check.json $(GPU_ARGS)

gpu-bench: ## Measure ticks and images/s at published sizes on the GPU at hand; installs nothing
	$(GPU_PYTHON) -m loadtests.gpu.bench --output build/gpu-bench.json $(GPU_ARGS)

train: $(STAMP) ## Train the embedded model from nothing (hours on two cores)
	for stage in world vae clip image reader unet adapter export calibrate; do $(BIN)/python -m engine.embedded.recipe $$stage || exit; done

quality: $(STAMP) ## Measure the embedded model: accuracies, curves, contact sheets, the card's tables
	$(BIN)/python -m engine.embedded.quality

clean: ## Remove everything that was generated
	rm -rf $(VENV) .cache build dist demo node_modules tools/node_modules
