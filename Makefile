# Every command of the README and of CONTRIBUTING.md. Nothing needs to be installed by hand but Python 3.11 and make.
SHELL := /bin/bash
.ONESHELL:
.SHELLFLAGS := -euo pipefail -c
PYTHON ?= python3
UV_VERSION := 0.13.9
UV := .tools/uv/bin/uv
BIN := .venv/bin

.PHONY: setup demo run test test-fast test-extended lint verify lock bench clean

setup: .venv/.synced  ## the locked environment in .venv

$(UV):
	$(PYTHON) -m venv .tools/uv
	.tools/uv/bin/python -m pip install --quiet uv==$(UV_VERSION)

.venv/.synced: requirements/dev.txt pyproject.toml | $(UV)
	[ -x $(BIN)/python ] || $(UV) venv --quiet --python $(PYTHON) .venv
	VIRTUAL_ENV=.venv $(UV) pip sync --quiet --require-hashes requirements/dev.txt
	VIRTUAL_ENV=.venv $(UV) pip install --quiet --no-deps --editable .
	touch $@

demo: setup  ## three OCR models built, served and asked on this machine
	hack/demo

run: setup  ## the operator in this shell, against the cluster of KUBECONFIG (docs/operator.md)
	$(BIN)/python -P -m enginesmith_operator.controller $(ARGS)

lint: setup  ## ruff, mypy and the import contracts
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy -p enginesmith_contract -p enginesmith_runtime -p enginesmith_operator -p enginesmith_cli
	$(BIN)/mypy hack/development_cluster
	$(BIN)/lint-imports

test-fast: setup  ## the tests that start no server, no build and no client
	$(BIN)/pytest -n 2 -m "not slow"

test: lint verify  ## everything that CI runs
	$(BIN)/pytest -n 2 --dist worksteal -m "not extended"

test-extended: setup  ## what takes the development cluster longer than a change should wait; its last run is in tests/records
	hack/test-extended

bench: setup  ## the records under benchmarks/records
	$(BIN)/python -m benchmarks.serving_overhead
	$(BIN)/python -m benchmarks.start_up

verify: setup  ## generated files are what their sources say
	hack/verify

lock: $(UV)  ## write the lock files anew from pyproject.toml
	hack/lock

clean:
	rm -rf .venv .tools .work
