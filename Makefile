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

# The embedded base from nothing: 151 stores, then the training. pixeltraj/embedded/README.md tells what came of it.
# Five tasks are held out for good: no base of ours ever sees them.
HELDOUT := push-back-v3 plate-slide-v3 window-close-v3 faucet-open-v3 hammer-v3
MANIPULATION = $(filter-out $(HELDOUT),$(shell $(BIN)/python -c \
	"from pixeltraj.tasks import metaworld; print(*[task.name for task in metaworld.TASKS])"))
COLLECT := $(BIN)/pixeltraj collect --seed 1000000
RANDOM := --policy random --noise 0

base: .venv/.stamp
	set -e; for task in $(MANIPULATION); do \
		$(COLLECT) $$task --out runs/base/$$task --episodes 20 --noise 0.1; \
		$(COLLECT) $$task --out runs/base/$$task-noisy --episodes 10 --noise 0.4; \
		$(COLLECT) $$task --out runs/base/$$task-random --episodes 5 $(RANDOM) --max-steps 40; \
	done
	set -e; for task in HalfCheetah-v5 Hopper-v5 Walker2d-v5; do \
		$(COLLECT) $$task --out runs/base/$$task-random --episodes 40 $(RANDOM) --max-steps 60; \
	done
	$(COLLECT) Ant-v5 --out runs/base/Ant-v5 --episodes 10 --max-steps 200
	$(COLLECT) Ant-v5 --out runs/base/Ant-v5-random --episodes 10 $(RANDOM) --max-steps 60
	set -e; for task in AntMaze_UMaze-v5 AntMaze_Medium-v5 AntMaze_Large-v5; do \
		$(COLLECT) $$task --out runs/base/$$task --episodes 10 --max-steps 200; \
	done
	set -e; for task in PointMaze_UMaze-v3 PointMaze_Medium-v3 PointMaze_Large-v3; do \
		$(COLLECT) $$task --out runs/base/$$task --episodes 40; \
	done
	set -e; for task in FrankaKitchen-v1 AdroitHandDoor-v1 AdroitHandHammer-v1 AdroitHandPen-v1 AdroitHandRelocate-v1; do \
		$(COLLECT) $$task --out runs/base/$$task-random --episodes 15 $(RANDOM) --max-steps 60; \
	done
	set -e; for store in runs/base/*; do $(BIN)/pixeltraj render $$store; done
	$(BIN)/pixeltraj pretrain --stores runs/base/* --out runs/embedded-first --k 5 10 15 20 25
	$(BIN)/pixeltraj pretrain --stores runs/base/* --base runs/embedded-first --out runs/embedded --k 5 10 15 20 25 \
		--steps 13000 --lr 8e-4 --seed 1
