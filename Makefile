# Two commands set everything up: `make demo` and `make test`.
PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin
DATA ?= ../shared/data/tiny_imagenet
OUT ?= runs/demo
PYTEST = $(BIN)/python -m pytest --numprocesses=2 --dist=loadfile --no-loadscope-reorder \
	--data=$(DATA)

.PHONY: demo test test-slow lint paper clean

demo: $(VENV)/installed
	$(BIN)/inverse-set sample --model=mini --constraint="fc8/bell pepper:p99:p99.9" \
		--num_samples=500 --num_seeds=50 --out=$(OUT) --overwrite
	$(BIN)/inverse-set verify $(OUT)
	@echo "Open $(OUT)/gallery.html, or look at $(OUT)/grid.png"

test: $(VENV)/tested lint
	$(PYTEST) -m "not slow"

# What takes long, or needs torch.
test-slow: $(VENV)/tested-slow
	$(PYTEST) -m slow

# Every experiment, and docs/results.md; goes on where it was stopped.
paper: $(VENV)/tested-slow
	$(BIN)/python -m experiments.paper $(if $(wildcard $(DATA)),--data=$(DATA))

lint: $(VENV)/tested
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

$(VENV)/installed: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable .
	touch $@

$(VENV)/tested: $(VENV)/installed
	$(BIN)/python -m pip install --quiet --editable '.[test]'
	touch $@

$(VENV)/tested-slow: $(VENV)/tested
	$(BIN)/python -m pip install --quiet --editable '.[test-slow]'
	touch $@

clean:
	rm -rf $(VENV) runs build *.egg-info
