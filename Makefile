# The two commands for a fresh machine: `make demo` and `make test`. Both set up the virtual environment when needed.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

DATA ?= ../shared/data/llmrouter_train
ENCODER ?= all-MiniLM-L6-v2

.PHONY: demo test format card default-router benchmarks clean

demo: $(VENV)/.installed
	HF_HUB_OFFLINE=1 $(BIN)/zooter route --file zooter_hf/cli/example_queries.jsonl

test: $(VENV)/.installed-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	HF_HUB_OFFLINE=1 $(BIN)/python -m pytest -n auto

format: $(VENV)/.installed-test
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

card: $(VENV)/.installed
	HF_HUB_OFFLINE=1 $(BIN)/python -m recipes.default_router card

default-router: $(VENV)/.installed
	HF_HUB_OFFLINE=1 $(BIN)/python -m recipes.default_router train --data $(DATA) --encoder $(ENCODER)

benchmarks: $(VENV)/.installed
	HF_HUB_OFFLINE=1 $(BIN)/python -m benchmarks.pipeline_overhead

clean:
	rm -rf $(VENV) build dist *.egg-info

# Installed again only when what is installed has changed.
$(VENV)/.installed: setup.cfg pyproject.toml constraints.txt | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet -c constraints.txt -e ".[cli]"
	touch $@

$(VENV)/.installed-test: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet -c constraints.txt -e ".[test]"
	touch $@

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || \
	    { echo "Python 3.10 or newer is needed; name it with: make PYTHON=python3.11 ..."; exit 1; }
	$(PYTHON) -m venv $(VENV)
