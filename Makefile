# `make demo` and `make test` build .venv themselves. After that nothing is fetched any more.
#
# PyTorch is installed first and by its exact version, so that no later requirement can pull in another build of
# it. pip's own settings (PIP_INDEX_URL, PIP_EXTRA_INDEX_URL) decide where from: the CPU build is all that is needed.

TORCH := torch==2.13.0
PYTHON := python3
BIN := .venv/bin
TYPED := build/typed

export HF_HUB_OFFLINE := 1
export TOKENIZERS_PARALLELISM := false

.PHONY: demo test lint bench types base

demo: .venv/.stamp
	$(BIN)/pixeltraj demo

# One thread a process: the models in the tests are small, and threads that wait for each other are slow.
test: export OMP_NUM_THREADS := 1
test: lint types
	$(BIN)/python -m pytest -n auto --dist loadfile

lint: .venv/.stamp
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

# mypy sees the package as it is once installed: the stages inside it, not beside it.
types: .venv/.stamp
	rm -rf $(TYPED) && mkdir -p $(TYPED)/pixeltraj
	ln -s $(CURDIR)/pixeltraj/* $(addprefix $(CURDIR)/,render finetune decode eval) $(TYPED)/pixeltraj/
	cd $(TYPED) && $(CURDIR)/$(BIN)/mypy --config-file $(CURDIR)/pyproject.toml \
		--cache-dir $(CURDIR)/.mypy_cache -p pixeltraj

bench: .venv/.stamp
	$(BIN)/python -m benchmarks.demo

.venv/.stamp: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install $(TORCH)
	$(BIN)/python -m pip install -c constraints.txt -e '.[dev]'
	touch $@

# The embedded base from nothing: 20 stores, then the training. pixeltraj/embedded/README.md tells what came of it.
MANIPULATION := push-v3 sweep-into-v3 coffee-push-v3 push-wall-v3 door-open-v3 drawer-close-v3
LOCOMOTION := HalfCheetah-v5 Hopper-v5
COLLECT := $(BIN)/pixeltraj collect --seed 1000000
RANDOM := --policy random --noise 0 --max-steps 60

base: .venv/.stamp
	set -e; for task in $(MANIPULATION); do \
		$(COLLECT) $$task --out runs/base/$$task --episodes 40 --noise 0.1; \
		$(COLLECT) $$task --out runs/base/$$task-noisy --episodes 30 --noise 0.4; \
		$(COLLECT) $$task --out runs/base/$$task-random --episodes 10 $(RANDOM); \
	done
	set -e; for task in $(LOCOMOTION); do \
		$(COLLECT) $$task --out runs/base/$$task-random --episodes 50 $(RANDOM); \
	done
	set -e; for store in runs/base/*; do $(BIN)/pixeltraj render $$store; done
	$(BIN)/pixeltraj pretrain --stores runs/base/* --out runs/embedded --steps 4500 --vae.steps 1200
