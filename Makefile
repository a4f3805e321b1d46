# `make demo` and `make test` need only Python 3.11+ and make: each sets up its own environment first.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
DOCS_STAMP := $(VENV)/.docs-installed

.PHONY: demo test lint docs peers install clean

# The stamp is newer than the files that say what to install, so a second call starts at once.
$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check "$$(grep '^torch==' constraints.txt)"
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable ".[demo,plots,dev]"
	touch $@

install: $(STAMP)

demo: $(STAMP)
	$(BIN)/gmp-atl run recipes/demo.yaml

# Two workers of two threads each share two cores: threads that wait by spinning would take them from the others. The demo
# has the cores to itself, and there threads that sleep are woken too late for products as small as those of `mini`.
test: export OMP_WAIT_POLICY ?= PASSIVE
test: $(STAMP)
	$(BIN)/python -m pytest -n 2 --dist loadfile

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo

$(DOCS_STAMP): $(STAMP)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable ".[docs]"
	touch $@

# The pages as a site in build/docs; the build itself needs no network. The variable hides an announcement of the theme.
docs: $(DOCS_STAMP)
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

# transformers' own model tests on our models; needs the network for the source package of transformers.
peers: $(STAMP)
	$(BIN)/python benchmarks/peers.py

clean:
	rm -rf $(VENV)
