# SPDX-License-Identifier: Apache-2.0
# Everything happens in .venv, which the first target makes. With ROS sourced, that ROS is used.

PYTHON ?= python3

# Idle OpenMP threads sleep instead of spinning, which takes time from others on few cores.
export OMP_WAIT_POLICY ?= PASSIVE
# Nothing here is for other machines of the network.
export ROS_AUTOMATIC_DISCOVERY_RANGE ?= LOCALHOST
ifeq ($(and $(ROS_DISTRO),$(AMENT_PREFIX_PATH)),)
RUN := AMENT_PREFIX_PATH=$(CURDIR)/.venv .venv/bin/python
else
RUN := AMENT_PREFIX_PATH=$(CURDIR)/.venv:$(AMENT_PREFIX_PATH) \
  LD_LIBRARY_PATH=$(CURDIR)/.venv/lib:$(LD_LIBRARY_PATH) .venv/bin/python
endif

.PHONY: help env env-dev demo test bench bench-gpu gpu lint clean

help:
	@echo "make demo   run the demonstration; its results go to demo_output/"
	@echo "make env    only make the environment .venv (the other targets do it by themselves)"
	@echo "make test   run the tests"
	@echo "make bench  measure how fast it is, on the CPU; 3 minutes (bench-gpu: on a GPU)"
	@echo "make gpu    parity, benchmarks and training on a GPU, 8 minutes; into gpu_output/"
	@echo "make lint   check style, format, import rules and types"
	@echo "make clean  remove everything that make has made"
	@echo "Another Python (3.10 to 3.13): make PYTHON=python3.12 ..."

env:
	@$(PYTHON) tools/setup_env.py

env-dev:
	@$(PYTHON) tools/setup_env.py --dev

demo: env
	$(RUN) -m ttt3r_ros.cli demo --output demo_output

# A file's tests share what they make, and one worker; DDS domains are locked across processes.
test: env-dev
	$(RUN) -m pytest -n auto --maxprocesses 4 --dist loadfile

bench: env-dev
	$(RUN) benchmarks/bench_all.py

# With the Python and torch that are there: nothing is made or installed.
bench-gpu:
	$(PYTHON) benchmarks/bench_all.py --device cuda --minutes 8

# Everything worth doing on a GPU in eight minutes, see tools/gpu.py.
gpu:
	$(PYTHON) tools/gpu.py

lint: env-dev
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .
	.venv/bin/lint-imports --no-cache
	$(RUN) -m mypy

clean:
	rm -rf .venv build demo_output *.egg-info .pytest_cache .mypy_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
