# Everything starts here; each target sets up what it needs (scripts/setup.sh) and can be repeated.
PY := .venv/bin/python
WORKERS ?= 2

.PHONY: help demo test test-all check clean soak

help:
	@echo 'make demo       start cloudlet, deploy examples/order-food, play two users, check everything'
	@echo 'make test       all tests but the long ones (WORKERS=2)'
	@echo 'make test-all   all tests'
	@echo 'make check      style, types, import contract, documentation'
	@echo 'make bench-NAME one benchmark of bench/: a table, and bench/results/NAME.json'
	@echo 'make soak       kill and stop processes of a busy installation (ROUNDS=200 SEED=… MINUTES=30)'
	@echo 'make clean      remove .venv, the demo data and the caches of tools'

demo:
	@scripts/setup.sh
	@$(PY) -m tests.acceptance.demo

test:
	@scripts/setup.sh dev
	@$(PY) -m pytest -n $(WORKERS) --dist loadgroup -m 'not long'

test-all:
	@scripts/setup.sh dev
	@$(PY) -m pytest -n $(WORKERS) --dist loadgroup

check:
	@scripts/setup.sh dev
	@$(PY) -m ruff check .
	@$(PY) -m ruff format --check .
	@$(PY) -m mypy src tests $(if $(wildcard bench/*.py),bench)
	@.venv/bin/lint-imports
	@$(PY) -m pytest -q tests/docs

bench-%:
	@scripts/setup.sh dev
	@test -f 'bench/$(subst -,_,$*).py' || { \
	    echo 'no benchmark is called $*; there are:' $$(ls bench 2>/dev/null | sed -n 's/^\([a-z].*\)\.py$$/\1/p' | tr _ -); exit 2; }
	@$(PY) -m 'bench.$(subst -,_,$*)'

soak:
	@scripts/setup.sh dev
	@$(PY) -m tests.faults.soak

clean:
	rm -rf .venv .cloudlet-demo .mypy_cache .ruff_cache .hypothesis .import_linter_cache build dist src/*.egg-info
	find . -name __pycache__ -prune -exec rm -rf {} +
