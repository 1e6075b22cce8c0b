PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin

.PHONY: demo test test-all lint docs clean

demo: $(VENV)/.demo
	$(BIN)/fastsample bench --solver scire --nfe 10

test: $(VENV)/.dev
	$(BIN)/pytest -n 2

test-all: $(VENV)/.dev
	$(BIN)/pytest -n 2 -m "slow or not slow"

lint: $(VENV)/.dev .ns
	$(BIN)/ruff check .
	$(BIN)/mypy .ns/fastsample

docs: $(VENV)/.demo
	$(BIN)/python -c "from fastsample.bench.listing import solver_page; print(solver_page(), end='')" > docs/solvers.md

# The environment is reused between calls; it is made again when pyproject.toml changes.
$(VENV)/.demo: pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e .
	touch $@

$(VENV)/.dev: $(VENV)/.demo
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e ".[dev]"
	touch $@

# The folders are sub-packages of the namespace `fastsample`; mypy reads them through links.
.ns:
	mkdir -p .ns/fastsample
	for room in bench datasets models results solvers; do ln -sfn ../../$$room .ns/fastsample/$$room; done

clean:
	rm -rf $(VENV) .ns .pytest_cache .mypy_cache .ruff_cache *.egg-info build dist
