# make demo   try the whole program, without an account or a network
# make test   all checks, in about six minutes
# make test-long  crashes at every call, and many more kills and requests (an hour)
# make lint   style, types and the direction of imports
# make coverage  which lines the tests reach
# make bench  speed and memory, beside DuckDB, Polars and five peers (an hour)
# make clean  remove what the other targets made

PYTHON ?= python3
BIN := .venv/bin

.PHONY: help demo test test-long lint coverage bench clean
help:
	@grep '^# make' Makefile | cut -c3-

.venv/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --constraint constraints.txt --editable .
	@touch $@

.venv/tested: .venv/installed
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[test]'
	@touch $@

demo: .venv/installed
	$(BIN)/mixpanel-etl demo

lint: .venv/tested
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

test: lint
	$(BIN)/pytest --numprocesses 2 --dist loadfile

# One test at a time: tests that kill processes depend on timing.
test-long: lint
	CRASHES=all KILLS=100 SCHEMATHESIS=30 $(BIN)/pytest tests/scenarios/test_crash.py tests/scenarios/test_kill.py \
		tests/control/test_api_schema.py tests/daemon/test_daemon.py::test_kill

coverage: .venv/tested
	$(BIN)/pytest --cov=engine --cov-report=term:skip-covered

# A separate environment: with pandas installed, as for the tests, every command imports it.
.venv-bench/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv-bench
	.venv-bench/bin/pip install --quiet --constraint constraints.txt --editable '.[bench]'
	@touch $@

bench: .venv-bench/installed
	.venv-bench/bin/python -m benchmarks all --peers all

clean:
	rm -rf .venv .venv-bench benchmarks/cache demo-data .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
