PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin

.PHONY: demo test test-all gate lint docs site speed frontier clean

# SciRE alone; then beside four others at two budgets on the first of the same noises, its samples and theirs as a picture
# with the reference solution in the last column, and which of them to use.
demo: $(VENV)/.demo
	$(BIN)/fastsample bench --solver scire --nfe 10
	$(BIN)/fastsample bench --solver scire,dpmpp-2m,unipc,ipndm,ddim --nfe 6,10 --samples 64 --metrics psnr --out results-demo
	$(BIN)/fastsample plot results-demo --kind samples --images 4 -o results-demo/samples.png
	$(BIN)/fastsample recommend results-demo --budget 10

test: $(VENV)/.dev
	$(BIN)/pytest -n 2

test-all: $(VENV)/.dev
	$(BIN)/pytest -n 2 -m "slow or not slow"

# The samplers on the embedded models against the committed baseline.
gate: $(VENV)/.demo
	rm -rf .gate
	FASTSAMPLE_HOME=.gate/home $(BIN)/fastsample bench --model cifar10-tiny-vp,cifar10-tiny-flow \
		--solver scire,dpmpp-2m,unipc,flow-solver --nfe 10 --samples 64 --metrics psnr,fd --out .gate/store
	$(BIN)/fastsample check .gate/store --baseline results/baselines/embedded.json --strict

lint: $(VENV)/.dev .ns
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy .ns/fastsample

docs: $(VENV)/.demo
	$(BIN)/python -c "from fastsample.bench.cli.listing import solver_page; print(solver_page(), end='')" > docs/solvers.md
	$(BIN)/python -c "from fastsample.bench.cli.model_page import model_page; print(model_page(), end='')" > docs/models.md
	$(BIN)/python -c "import pathlib; from fastsample.results.papers.page import filled; \
		pages = map(pathlib.Path, ('docs/published.md', 'docs/protocols.md')); \
		[page.write_text(filled(page.read_text('utf-8')), 'utf-8') for page in pages]"

# The documentation as a site, in site/; a warning is a fault.
site: $(VENV)/.dev .ns
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict

# Ratios to other libraries and to what a run cannot do without, on this machine and on one thread.
speed: $(VENV)/.dev
	OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 $(BIN)/python tests/speed > docs/speed.md.part
	mv docs/speed.md.part docs/speed.md

# The numbers of docs/frontier.md: some three hours of one core; a run that was stopped goes on. The tables that are learned
# for it lie apart, so that `bench` elsewhere does not find them.
EQUAL := --train 32 --validation 32 --steps 60 --minutes 1000
frontier: $(VENV)/.demo
	cd docs && ../$(BIN)/fastsample bench --config frontier.toml
	cd docs && ../$(BIN)/fastsample bench --config frontier-transfer.toml
	cd docs && ../$(BIN)/fastsample bench --config frontier-search.toml
	export FASTSAMPLE_HOME=results-frontier-home; \
	for model in cifar10-tiny-vp cifar10-tiny-flow; do for kind in bns gs ld3 s4s; do \
		$(BIN)/fastsample distill $$kind --model $$model --nfe 3,4,5 --evaluations 20000 $(EQUAL) || exit 1; \
		$(BIN)/fastsample distill $$kind --model $$model --nfe 6,7,8 --evaluations 40000 $(EQUAL) || exit 1; \
	done; done
	cd docs && FASTSAMPLE_HOME=../results-frontier-home ../$(BIN)/fastsample bench --config frontier-learned.toml
	cd docs && ../$(BIN)/python frontier_page.py

# The environment is reused between calls; it is made again when pyproject.toml changes.
$(VENV)/.demo: pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e .
	touch $@

# k-diffusion's samplers need two of the packages that it asks for (the extra has them); others hold numpy below 2.
$(VENV)/.dev: $(VENV)/.demo
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e ".[dev]"
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps k-diffusion==0.1.1.post1
	touch $@

# The folders are sub-packages of `fastsample`; mypy reads them through links.
.ns:
	mkdir -p .ns/fastsample
	for room in __init__.py py.typed bench datasets models results solvers; do ln -sfn ../../$$room .ns/fastsample/$$room; done

clean:
	rm -rf $(VENV) .ns .gate site .pytest_cache .mypy_cache .ruff_cache *.egg-info build dist
