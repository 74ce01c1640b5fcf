# Everything happens inside $(VENV), which the first target that needs it makes: no other state, no activation.

VENV ?= .venv
PYTHON ?=
# What to compare with, when not everything: make report PEERS="numpy scipy"
PEERS ?=
REPORT_ARGS ?=
SPEED_ARGS ?=
PYTEST_ARGS ?=
ASV_ARGS ?=
BENCH_ARGS ?=
GPU_ARGS ?=
# An interpreter that has what a GPU machine needs (PyTorch, Numba, numba-cuda, pytest): nothing is installed then.
GPU_PYTHON ?=
# Kernels compiled beforehand, by `make gpu-kernels`, perhaps on another machine.
GPU_KERNELS ?= .gpu-kernels
GPU_ARCH ?= sm_90
# From which commit on `make asv` looks for a change, from which factor on it calls it one (`make asv-same` shows why),
# and by which benchmarks: ratios within one process. Times of different processes differ by more on a shared machine.
ASV_BASE ?= main
ASV_FACTOR ?= 1.3
ASV_BENCH ?= ^kernels
ASV_COMMITS ?= 10

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help report speed readme test lint format bench asv asv-same asv-slowdown asv-check asv-history asv-publish gpu gpu-check gpu-kernels venv clean

python := $(VENV)/bin/python
asv := $(VENV)/bin/asv
install := $(python) -m pip install --disable-pip-version-check -c constraints.txt
space := $(subst ,, )

# A stamp a set of installed things. A changed pin, dependency or version (__init__.py has it) installs anew.
stamps := $(VENV)/stamps
declared := pyproject.toml constraints.txt softmax_numba/__init__.py
ifeq ($(strip $(PEERS)),)
packages := -e '.[report]'
report_stamp := $(stamps)/report
else
packages := -e '.[bench]' $(filter-out numpy,$(PEERS))
report_stamp := $(stamps)/report-$(subst $(space),-,$(strip $(PEERS)))
override REPORT_ARGS += --peers $(PEERS)
endif

gpu_stamp := $(if $(GPU_PYTHON),,$(stamps)/gpu)
gpu_run := $(if $(wildcard $(GPU_KERNELS)),SOFTMAX_NUMBA_KERNELS=$(abspath $(GPU_KERNELS))) PYTHONPATH=. \
  $(or $(GPU_PYTHON),$(python))

help:  ## Show this list
	@echo 'make TARGET [NAME=value ...]'
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-12s %s\n", $$1, $$2 }' Makefile
	@echo 'Names:'
	@echo '  PYTHON=python3.12        the Python that makes $(VENV) (default: the newest from 3.11 to 3.14)'
	@echo '  PEERS="numpy scipy"      what to install and compare with (default: numpy scipy torch)'
	@echo '  REPORT_ARGS="--full"     options of: softmax-numba report'
	@echo '  SPEED_ARGS="--threads 1"   options of: softmax-numba speed'
	@echo '  PYTEST_ARGS="-k axis"    options of: pytest'
	@echo '  GPU_PYTHON=python3       what runs `make gpu`, with PyTorch and Numba in it (default: $(VENV), installed into)'
	@echo '  GPU_ARGS="--resume"      options of: python -m softmax_numba.bench.gpu; GPU_ARCH=sm_90, GPU_KERNELS=.gpu-kernels'
	@echo '  ASV_BASE=HEAD~1          what `make asv` compares with (default: main); ASV_FACTOR=1.3, ASV_BENCH=Latency'

report: $(report_stamp)  ## Compare with NumPy, SciPy and PyTorch on this machine; prints the table and the page's path
	$(VENV)/bin/softmax-numba report $(REPORT_ARGS)

speed: $(report_stamp)  ## The grid of regimes against PyTorch, with goals: regimes.md in softmax-speed/
	$(VENV)/bin/softmax-numba speed $(SPEED_ARGS)

readme: $(report_stamp)  ## Write README.md's picture and tables from a report: make readme FROM=reports/epyc-zen3
	$(python) scripts/readme_table.py $(FROM)

test: $(stamps)/dev  ## Run the whole test suite
	$(python) -m pytest --numprocesses=auto --maxprocesses=4 --dist=worksteal $(PYTEST_ARGS)

lint: $(stamps)/dev  ## Check format, style and types
	$(python) -m ruff format --check .
	$(python) -m ruff check .
	$(python) -m mypy

format: $(stamps)/dev  ## Format the sources and mend what can be mended
	$(python) -m ruff check --fix-only .
	$(python) -m ruff format .

bench: $(stamps)/bench  ## Each step alone, beside the peers' same step, with pytest-benchmark; kept in .benchmarks/
	$(python) -m pytest tests/benchmarks -o python_files='bench_*.py' -p no:xdist --benchmark-autosave \
	  --benchmark-group-by=group --benchmark-columns=median,iqr,rounds --benchmark-sort=name $(BENCH_ARGS)

asv: $(stamps)/asv  ## This commit against main, benchmark by benchmark, each in an environment of its own
	$(asv) continuous --factor $(ASV_FACTOR) --bench '$(ASV_BENCH)' $(ASV_ARGS) $(ASV_BASE) HEAD

asv-same: $(stamps)/asv  ## Whether `make asv` can be believed: the same sources against themselves, three times
	$(python) scripts/asv_trial.py same --factor $(ASV_FACTOR)

asv-slowdown: $(stamps)/asv  ## And whether it finds a kernel that is made 30 % slower
	$(python) scripts/asv_trial.py slowdown --factor $(ASV_FACTOR)

asv-check: $(stamps)/asv  ## Run every benchmark once in .venv, to see that it runs; keeps nothing
	$(asv) check --environment existing:$(python)
	SOFTMAX_NUMBA_ASV_SECONDS=10 $(asv) run --environment existing:$(python) --launch-method forkserver --quick --dry-run \
	  --show-stderr $(ASV_ARGS)

asv-history: $(stamps)/asv  ## Measure the last commits of main that have not been measured
	$(asv) run --skip-existing-commits --steps $(ASV_COMMITS) $(ASV_ARGS) main

asv-publish: $(stamps)/asv  ## The measured history as pages, in .asv/html
	$(asv) publish $(ASV_ARGS)

gpu: $(gpu_stamp)  ## Test, check and measure on this machine's NVIDIA GPU; what came of it in softmax-gpu/
	$(gpu_run) -m softmax_numba.bench.gpu $(GPU_ARGS)

gpu-check: $(stamps)/dev  ## The stages of `make gpu` without a GPU, as small as can be
	$(python) -m softmax_numba.bench.gpu --rehearse --out softmax-gpu-rehearsal $(GPU_ARGS)

gpu-kernels: $(stamps)/dev  ## Compile every kernel for GPU_ARCH without a GPU, for `make gpu` to take along
	$(python) -m softmax_numba.gpu --arch $(GPU_ARCH) --keep $(GPU_KERNELS) --jobs 2

venv: $(stamps)/pip  ## Make .venv, with nothing in it but pip

clean:  ## Remove .venv, caches and build products; reports stay
	if [ -f $(VENV)/pyvenv.cfg ]; then rm -rf $(VENV); fi
	rm -rf build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find softmax_numba tests -name __pycache__ -type d -prune -exec rm -rf {} +

$(stamps)/pip:
	sh scripts/make_venv.sh $(VENV) $(PYTHON)
	$(python) -m pip install --disable-pip-version-check --quiet 'pip>=25.1'  # the first with --group
	mkdir -p $(stamps)
	touch $@

$(report_stamp): $(declared) | $(stamps)/pip
	$(install) $(packages)
	touch $@

$(stamps)/dev: $(report_stamp)
	$(install) --group dev
	touch $@

$(stamps)/gpu: $(stamps)/dev
	$(install) -e '.[bench,cuda]' torch cupy-cuda13x
	touch $@

$(stamps)/bench: $(stamps)/dev
	$(install) --group bench
	touch $@

$(stamps)/asv: $(stamps)/dev
	$(install) --group asv
	$(asv) machine --yes
	touch $@
