# Every command of the README and of CONTRIBUTING.md. Nothing needs to be installed by hand but Python 3.11 and make.
SHELL := /bin/bash
.ONESHELL:
.SHELLFLAGS := -euo pipefail -c
PYTHON ?= python3
UV_VERSION := 0.13.9
UV := .tools/uv/bin/uv
BIN := .venv/bin
# Of runtime/toolchain/toolchains.toml: what `make images` adds to the operator and the runtime.
TOOLCHAINS ?= tensorrt-10.6-cu12

.DEFAULT_GOAL := help
.PHONY: help setup demo run images test test-fast test-local test-compiled test-extended lint verify docs lock bench bench-serving clean

help:  ## this list of targets
	@grep -hE '^[a-z-]+:.*  ## ' Makefile | sed -E 's/^([a-z-]+):.*  ## (.*)/\1\t\2/' | sort | column -t -s $$'\t'

setup: .venv/.synced  ## create the locked environment in .venv

$(UV):
	$(PYTHON) -m venv .tools/uv
	.tools/uv/bin/python -m pip install --quiet uv==$(UV_VERSION)

.venv/.synced: requirements/dev.txt pyproject.toml | $(UV)
	[ -x $(BIN)/python ] || $(UV) venv --quiet --python $(PYTHON) .venv
	VIRTUAL_ENV=.venv $(UV) pip sync --quiet --require-hashes requirements/dev.txt
	VIRTUAL_ENV=.venv $(UV) pip install --quiet --no-deps --editable .
	touch $@

demo: setup  ## build, serve and query three OCR models on this machine
	hack/demo

run: setup  ## run the operator in this shell against the cluster of KUBECONFIG (docs/operator.md)
	$(BIN)/python -P -m enginesmith_operator.controller $(ARGS)

images:  ## build the container images with docker, podman or buildah, and print the chart's values for them
	hack/images $(TOOLCHAINS) $(if $(PUSH),--push $(PUSH)) $(if $(BASE),--base $(BASE)) $(ARGS)

lint: setup  ## run ruff, mypy, the import contracts and the search for dead code
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/mypy --scripts-are-modules $$(grep -lE '^#!.*python' -d skip hack/*)
	$(BIN)/lint-imports
	$(BIN)/python hack/dead-code

test-fast: setup  ## run the tests that start no server, no build and no client
	$(BIN)/pytest -n 2 -m "not slow"

test-local: setup  ## run the tests that need no cluster, and therefore no root
	$(BIN)/pytest -n 2 --dist worksteal -m "not cluster"

test-compiled: setup  ## run the tests of the transport and of joined requests on compiled modules, as images have them
	PYTHONPATH="$$(hack/compiled)" $(BIN)/pytest -n 2 --dist worksteal --second-try \
		-m "not cluster and not extended" tests/http2 \
		tests/server/test_gathered_jobs.py tests/server/test_joined_requests.py tests/server/test_batching.py

test: lint verify docs  ## run everything that CI runs
	$(BIN)/pytest -n 2 --dist worksteal --second-try -m "not extended"
	$(MAKE) test-compiled

test-extended: setup  ## run the long tests, most of them of the development cluster, and write tests/records
	hack/test-extended

bench: setup  ## write the records under benchmarks/records
	$(BIN)/python -m benchmarks.serving_overhead
	$(BIN)/python -m benchmarks.start_up
	$(BIN)/python -m benchmarks.hot_path

bench-serving: setup  ## compare serving with its peers (about 40 minutes) and write the record and the picture
	$(BIN)/python -m benchmarks.serving

verify: setup  ## check that generated files match their sources
	hack/verify

docs: setup  ## build the documentation site into .work/site; a broken link is an error
	rm -rf .work/site
	"$$(hack/venv docs)"/bin/zensical build --clean --strict

lock: $(UV)  ## write the lock files from pyproject.toml
	hack/lock

clean:  ## delete the environment, the tools and what was built
	rm -rf .venv .tools .work
