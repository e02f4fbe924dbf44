# Every target makes what it needs; the environment is .venv (uv inside it reads requirements.lock).
.DEFAULT_GOAL := help
.PHONY: help install demo demo-drift test campaigns check format dev bench clean

PYTHON ?= python3.11
VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed

export DAGSTER_HOME := $(CURDIR)
export DAGSTER_DISABLE_TELEMETRY := true
export DO_NOT_TRACK := true
export ITERATIVE_DO_NOT_TRACK := true
export MLFLOW_DISABLE_TELEMETRY := true
export GX_ANALYTICS_ENABLED := false

help: ## show this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-11s %s\n", $$1, $$2}'

$(STAMP): requirements.lock pyproject.toml
	@command -v $(PYTHON) >/dev/null || { echo "$(PYTHON) is not installed; set PYTHON=<a Python 3.11>"; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check 'uv>=0.9'
	$(BIN)/uv pip sync --quiet --python $(BIN)/python requirements.lock
	$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --editable .
	@touch $(STAMP)

install: $(STAMP) ## make .venv from requirements.lock

demo: $(STAMP) ## simulate churn, run its lifecycle at the end of month 24, show the result
	test -f data/sources/churn/accounts.parquet || $(BIN)/mlops simulate churn --customers 20000 --months 30 --seed 7
	$(BIN)/mlops run churn --as-of 2025-01-01

demo-drift: demo ## go on to the end of month 30: what the drift of months 25 and 27 does
	$(BIN)/mlops run churn --as-of 2025-07-01

test: $(STAMP) ## run the tests
	$(BIN)/python -m pytest

campaigns: $(STAMP) ## run the long tests at full size (SMOKE=1: at a size for every commit)
	MLOPS_TEST_SIZE=$(if $(SMOKE),small,full) $(BIN)/python -m pytest -m $(if $(SMOKE),campaign,"campaign or sized")

check: $(STAMP) ## format, lint, types, import contracts: all clean or red
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

format: $(STAMP) ## format the code
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

dev: $(STAMP) ## Dagster UI with its daemon on :3000, MLflow UI on :5000 (loopback)
	$(BIN)/python -m mlops_pipeline dev

bench: $(STAMP) ## run every benchmark; prints JSON and a table, writes docs/benchmarks.md
	$(BIN)/python -m benchmarks.run

clean: ## remove all generated state (data/) and caches; keeps .venv
	find data -mindepth 1 ! -name README.md -delete
	rm -rf .pytest_cache .mypy_cache .ruff_cache .hypothesis
