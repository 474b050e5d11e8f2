# Everything that a newcomer, a contributor or CI does has its command here.
#
#   make serve PORT=8001            any setting can be given as REFINE_..., such as REFINE_MODEL
#   make install PIP_ARGS="..."     extra arguments for pip, such as an index with a small torch

PYTHON ?= python3
PIP_ARGS ?=

BIN := .venv/bin
INSTALLED := .venv/.installed
DEVELOPED := .venv/.developed

.PHONY: install dev serve check format test test-slow browser bench bench-gpu test-gpu soak docs lock audit sbom image-size train-pocket clean

install: $(INSTALLED)  ## .venv with instant-refine in it
dev: $(DEVELOPED)  ## the same with what checks and tests need

$(INSTALLED): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or newer is needed" if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --constraint constraints.txt $(PIP_ARGS) --editable .
	touch $@

$(DEVELOPED): $(INSTALLED)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt $(PIP_ARGS) --editable '.[dev,train]'
	touch $@

serve: $(INSTALLED)  ## serve on the bundled checkpoint
	$(BIN)/instant-refine serve $(if $(PORT),--port $(PORT)) $(SERVE_ARGS)

check: $(DEVELOPED)  ## lint, types, import directions
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(DEVELOPED)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

# A process a core, up to four; a file's tests stay together, for they share what they start.
SIDE_BY_SIDE := --numprocesses logical --maxprocesses 4 --dist loadfile

test: $(DEVELOPED)  ## about 6 minutes on two cores
	$(BIN)/python -m pytest -m "not slow" $(SIDE_BY_SIDE)

test-slow: $(DEVELOPED) browser  ## what needs load or minutes, about 25
	$(BIN)/python -m pytest -m "slow and not alone" $(SIDE_BY_SIDE)
	$(BIN)/python -m pytest -m alone

browser:  ## Debian's Chromium, for the tests of the page, where it is missing and can be installed
	@command -v chromium >/dev/null || (apt-get update && apt-get install --yes --no-install-recommends chromium) \
	  || echo "no Chromium: the tests of the page will be skipped"

BUDGET ?= 3600
BENCH_PYTHON = $(if $(wildcard $(BIN)/python),$(BIN)/python,$(PYTHON))

bench: $(DEVELOPED)  ## all measurements of this machine in BUDGET=3600 seconds; use an idle machine
	$(BIN)/python -m benchmarks.suite --budget $(BUDGET)

bench-gpu:  ## the same on CUDA, full-size random weights; works in a bare checkout without network
	PYTHONPATH=$(CURDIR) $(BENCH_PYTHON) -m benchmarks.suite --device cuda --budget $(BUDGET)

test-gpu:  ## the tests that need CUDA; from a bare checkout, too
	PYTHONPATH=$(CURDIR) $(BENCH_PYTHON) -m pytest tests/gpu

SECONDS ?= 1800

soak: $(DEVELOPED)  ## half an hour of mixed load; fails if memory, objects, threads, files or tasks grow
	$(BIN)/python -m benchmarks.soak --seconds $(SECONDS) $(SOAK_ARGS)

docs: $(DEVELOPED)  ## write the generated tables and images of the documents
	$(BIN)/python -m docs.make

AUDIT := .audit/bin

$(AUDIT)/pip-audit:
	$(PYTHON) -m venv .audit
	$(AUDIT)/python -m pip install --quiet $(PIP_ARGS) pip-audit==2.10.1 cyclonedx-bom==7.5.0

REPORT = $(dir $(AUDIT))report.json

# pip-audit ends alike for faults and for a list that does not answer, but writes no report then.
audit: $(AUDIT)/pip-audit  ## known faults of what is locked; asks PyPI's list of them
	@rm -f $(REPORT); status=0; \
	$(AUDIT)/pip-audit --requirement requirements-cuda.lock --require-hashes --disable-pip --strict \
	  --format json --output $(REPORT) $(AUDIT_ARGS) || status=$$?; \
	if ! test -s $(REPORT); then \
	  echo "NOTHING WAS AUDITED: the list of known faults does not answer, or does not know a package." >&2; \
	  echo "Run this where pypi.org answers, or try AUDIT_ARGS='--vulnerability-service osv'." >&2; \
	  exit 2; \
	fi; \
	echo "The report is in $(REPORT)."; exit $$status

sbom: $(AUDIT)/pip-audit  ## what the image is made of, as CycloneDX
	$(AUDIT)/cyclonedx-py requirements requirements-cuda.lock --output-file sbom.json

lock: $(DEVELOPED)  ## pin anew what is installed, and with hashes what goes into the image
	$(BIN)/python -m pip freeze --exclude-editable | sed 's/+cpu//' > constraints.txt
	$(BIN)/uv pip compile pyproject.toml --extra ray --extra cuda --constraint constraints.txt --universal \
	  --python-version 3.11 --generate-hashes --no-annotate --custom-compile-command "make lock" \
	  --quiet --output-file requirements-cuda.lock

image-size: $(DEVELOPED)  ## what the wheels in the image weigh, as the index tells
	mkdir -p build
	$(BIN)/uv pip compile pyproject.toml --extra ray --extra cuda --constraint constraints.txt --python-version 3.12 \
	  --python-platform x86_64-unknown-linux-gnu --format pylock.toml --quiet --output-file build/pylock.toml
	$(BIN)/python -c 'import tomllib; \
	  packages = tomllib.load(open("build/pylock.toml", "rb"))["packages"]; \
	  sizes = [max(wheel["size"] for wheel in package["wheels"]) for package in packages]; \
	  print(f"{len(sizes)} wheels, {sum(sizes) / 1e9:.2f} GB")'

train-pocket: $(DEVELOPED)  ## train the bundled checkpoint, or go on where it stopped
	GOMP_SPINCOUNT=10000 $(BIN)/python -m models.training.train --stage all $(TRAIN_ARGS)

clean:
	rm -rf .venv .audit build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .import_linter_cache
