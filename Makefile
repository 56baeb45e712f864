# Every step runs through .venv/bin/python, so a path with a space in it is no trouble.
PYTHON ?= python3
ARGS ?=
ONLY ?=
RUN := .venv/bin/python

.DEFAULT_GOAL := help
.PHONY: help demo setup test check conformance soak fuzz bench-hosts generate bare-debian clean

help: ## show this list
	@grep -E '^[a-z-]+:.*## ' Makefile | sed -E 's/^([a-z-]+):.*## /\1\t/' | expand -t 14

demo: ## set up what the demo needs and run it (ARGS="--json" and the like go to `ringfence demo`)
	@$(PYTHON) tools/setup.py demo
	@$(RUN) -m ringfence.cli demo $(ARGS)

setup: ## make .venv with every extra and the development tools
	@$(PYTHON) tools/setup.py test

test: check ## set up what the tests need, run the gate and the tests with coverage (ARGS go to pytest)
	$(RUN) -m pytest --cov=ringfence --cov-report=term:skip-covered $(ARGS)

check: setup ## the gate without the tests: style, types, layers, dependencies, dead code, tables in documents
	$(RUN) -m ruff check
	$(RUN) -m ruff format --check
	$(RUN) -m mypy
	.venv/bin/lint-imports
	$(RUN) -m deptry foundation attestation policies agent plugin
	$(RUN) -m vulture
	$(RUN) -m pytest -q tests/project/test_project_layout.py tests/project/test_docs_reference.py

conformance: setup ## run the public suites by level (ARGS="--spec DIR --wasi DIR --modules DIR")
	@.venv/bin/uv sync --quiet --frozen --inexact --all-extras --group conformance --python .venv/bin/python
	$(RUN) -m tools.conformance $(ARGS)

soak: setup ## run a hundred thousand jobs through one sandbox and look whether anything stays (ARGS="--jobs 2000")
	$(RUN) tools/soak.py --jobs 100000 $(ARGS)

fuzz: setup ## fuzz every decoder of untrusted bytes for ten minutes, and the policy engine (ARGS="--seconds 3600 httpsig")
	$(RUN) tools/fuzz.py $(ARGS)
	$(RUN) -m tools.fuzz_policies

bench-hosts: setup ## measure what each host adds by asking, beside itself without it (ARGS="--json", ARGS="--seconds 60 nginx")
	@$(RUN) -m tools.bench_hosts $(ARGS)

generate: setup ## write the generated code and the kernel catalogue anew
	$(RUN) tools/generate_proto.py
	$(RUN) tools/build_catalogue.py
	$(RUN) tools/build_header.py

bare-debian: ## prove demo and test in a fresh Debian 12 (ONLY=demo: the first alone)
	$(PYTHON) tools/bare_debian.py $(if $(ONLY),--only $(ONLY))

clean: ## remove what the targets above made
	rm -rf .venv build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache .coverage
