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

.PHONY: demo test lint bench types

demo: .venv/.stamp
	$(BIN)/pixeltraj demo

test: lint types
	$(BIN)/python -m pytest

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
	for file in benchmarks/*.py; do $(BIN)/python $$file || exit 1; done

.venv/.stamp: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install $(TORCH)
	$(BIN)/python -m pip install -c constraints.txt -e '.[dev]'
	touch $@
