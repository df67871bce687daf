# make demo   try the whole program, without an account or a network
# make test   everything that is checked, in under five minutes
# make test-long  the same with every moment of a crash, and many more kills and requests (an hour)
# make lint   style, types and the direction of imports only
# make coverage  which lines the tests reach
# make bench  how fast, and in how much memory, beside DuckDB, Polars and five peers (an hour)
# make clean  remove what the others made

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

# One test at a time: those that kill go by the clock.
test-long: lint
	CRASHES=all KILLS=100 SCHEMATHESIS=30 $(BIN)/pytest tests/scenarios/test_crash.py tests/scenarios/test_kill.py \
		tests/control/test_api_schema.py tests/daemon/test_daemon.py::test_kill

coverage: .venv/tested
	$(BIN)/pytest --cov=engine --cov-report=term:skip-covered

# An environment of its own: with pandas in it, as for the tests, every command would import that.
.venv-bench/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv-bench
	.venv-bench/bin/pip install --quiet --constraint constraints.txt --editable '.[bench]'
	@touch $@

bench: .venv-bench/installed
	.venv-bench/bin/python -m benchmarks all --peers all

clean:
	rm -rf .venv .venv-bench benchmarks/cache demo-data .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
