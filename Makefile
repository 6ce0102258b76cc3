# make demo       the whole road on the emulated board: train, pack, flash, classify, adapt, report
# make test       formatting, linting and all tests but the long ones
# make test-long  the long tests (fuzzing, more seeds)
# make bench      tables of speed and memory, peers measured in the same run
# make format     formats C and Python in place
# make clean      removes what these made

VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.ternio-installed
C_SOURCES := $(wildcard host/engine/*.[ch] device/src/*.[ch] device/src/kernels/*.[ch] device/include/*.h host/ternio/_build/*.py)
C_STYLED = $(shell git ls-files '*.c' '*.h')

.PHONY: demo test test-long bench format lint setup clean

setup: $(STAMP)

$(STAMP): pyproject.toml host/hatch_build.py $(C_SOURCES)
	@.ci/setup
	@test -x $(BIN)/python || python3 -m venv $(VENV)
	@echo "setup: installing ternio into $(VENV)"
	@$(BIN)/python -m pip install -q --disable-pip-version-check --upgrade pip
	@$(BIN)/python -m pip install -q -e '.[test]'
	@touch $@

demo: $(STAMP)
	@$(BIN)/ternio demo motion

lint: $(STAMP)
	@$(BIN)/ruff check -q .
	@$(BIN)/ruff format -q --check . || { echo "run: make format"; exit 1; }
	@clang-format --dry-run -Werror $(C_STYLED) || { echo "run: make format"; exit 1; }

test: lint
	@$(BIN)/python -m pytest -m 'not slow'

test-long: $(STAMP)
	@$(BIN)/python -m pytest -m slow

bench: $(STAMP)
	@for b in tests/bench/bench_*.py; do $(BIN)/python $$b || exit 1; done

format: $(STAMP)
	@$(BIN)/ruff check -q --fix . || true
	@$(BIN)/ruff format -q .
	@clang-format -i $(C_STYLED)

clean:
	rm -rf $(VENV) .pytest_cache .ruff_cache build dist demo-out firmware/.pio host/ternio/*.so
