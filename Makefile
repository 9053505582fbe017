# `make sim` and `make test` each take a fresh machine with Python 3.10-3.13 to a finished job.
#   make setup    .venv with the pinned dependencies (PYTHON=/path/to/python chooses the interpreter)
#   make sim      three episodes of the shipped policy over ROS topics, recorded
#   make test     set-up, then linters, type checker and tests on all cores (ARGS="-k window" goes to pytest)
#   make lint     the linters and the type checker alone

SHELL := /bin/bash
BIN := .venv/bin
ARGS ?=

# A shell started by one of our own nodes carries the mark of another interpreter's ROS wheels; with it the
# interpreter of .venv would skip its own library paths.
unexport _ROS_WHEELS_BOOTSTRAP_COMPLETE

.PHONY: setup sim test lint clean
.NOTPARALLEL:

setup:
	@.ci/setup

# Without off-screen GL there are no camera images: said before the long set-up, not after it.
sim:
	@.ci/setup --need-gl
	@$(BIN)/embodied_rl launch sim policy:=ptp_replace_object task:=replace_object episodes:=3 \
	    mode:=lockstep cameras:=fixed,wrist record:=true

test:
	@.ci/setup --want-gl
	@$(MAKE) --no-print-directory lint
	$(BIN)/python -m pytest -q -n auto --maxprocesses 4 --dist worksteal $(ARGS)

lint:
	$(BIN)/ruff check .
	$(BIN)/lint-imports --cache-dir .import_linter_cache
	$(BIN)/mypy

clean:
	rm -rf .venv build install log *.egg-info .pytest_cache .mypy_cache .ruff_cache .import_linter_cache
