# The two commands a newcomer needs: `make demo` and `make test`. Both set everything up in .venv first.
#   make demo                                  simulated fluoroscopy, offline
#   make demo DATA=hippocampus                 real MRI, downloaded from its owners (FROM=folder takes a copy on disk)
#   make demo DATA=lung FROM=folder            real lung ultrasound, out of a clone of its owners' repository
SHELL := /bin/bash
PYTHON ?= python3
DATA ?= phantom
# the real data that a profile reads, and its folder among CINEFAB_SAMPLES
RAW_hippocampus := hippocampus
RAW_hippocampus_volume := hippocampus
RAW_lung := lung
RAW_b_lines := lung
RAW_stills := lung
COPY_hippocampus := hippocampus_mri
COPY_lung := lung_ultrasound
RAW := $(RAW_$(DATA))
FROM ?= $(if $(CINEFAB_SAMPLES),$(if $(RAW),$(CINEFAB_SAMPLES)/$(COPY_$(RAW))))
BIN := $(CURDIR)/.venv/bin
export PATH := $(BIN):$(PATH)
export VIRTUAL_ENV := $(CURDIR)/.venv

.PHONY: demo test test-slow test-gpu test-long setup clean
.DEFAULT_GOAL := demo

demo: setup
	@cinefab profile $(DATA)
	@if [ -n "$(RAW)" ] && [ ! -e data/raw/$(RAW) ]; then cinefab data $(RAW) $(if $(FROM),--from $(FROM)); fi
	@cinefab run

test: setup
	ruff check .
	mypy
	OMP_NUM_THREADS=1 pytest -n 2 --dist loadfile --no-loadscope-reorder --durations=10

test-slow: setup
	pytest -m slow

test-gpu: setup
	CUDA_VISIBLE_DEVICES=$${CUDA_VISIBLE_DEVICES:-0} pytest -m gpu

# writes its tables to docs/results
test-long: setup
	OMP_NUM_THREADS=1 pytest -m long --timeout 0 tests/trust

setup: .venv/.ready

# uv takes seconds where pip takes minutes; UV_FIND_LINKS lets it see the wheel folder pip is told of.
.venv/.ready: pyproject.toml constraints.txt
	@if command -v uv >/dev/null; then \
	  uv venv -q --clear --python $(PYTHON) .venv && UV_FIND_LINKS="$$PIP_FIND_LINKS" uv pip install -q -c constraints.txt -e '.[dev]'; \
	else \
	  $(PYTHON) -m venv --clear .venv && .venv/bin/python -m pip install -q -c constraints.txt -e '.[dev]'; \
	fi
	@touch $@

clean:
	rm -rf .venv
