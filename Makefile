# Everything starts here. `make run` and `make test` set up what they need.
PYTHON ?= $(shell for p in python3.13 python3.12 python3.11 python3; do $$p -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null && echo $$p && break; done)
VENV := .venv
PY := $(VENV)/bin/python
export PYTHONDONTWRITEBYTECODE = 1


.PHONY: help run up images test test-slow lint bench clean
help:
	@echo "make run     two deliveries of sample data go the whole way, from upload to query"
	@echo "make up      the same, kept running: upload and query yourself (PORT=5000)"
	@echo "make test    lint and tests"
	@echo "make test-slow  the slow ones: a kill at each commit point, every scenario on Spark, faults and a storm of uploads"
	@echo "make images  draw the pictures in images/ from the files and the run that they show"
	@echo "make bench   timings against plain Spark and a naive job (ITEMS=2000000)"
	@echo "make clean   remove the environment and all local data"

$(VENV)/.ready: requirements.txt
	@test -n "$(PYTHON)" || { echo "No Python 3.11, 3.12 or 3.13 found: install one, or say make PYTHON=/path/to/python"; exit 1; }
	@echo "Setting up Python packages in $(VENV) (once, about a minute) ..."
	@$(PYTHON) -m venv $(VENV) && $(PY) -m pip install --quiet --disable-pip-version-check -r requirements.txt
	@touch $@

run: $(VENV)/.ready
	@$(PY) -m local run

PORT ?= 5000
up: $(VENV)/.ready
	@$(PY) -m local up --port $(PORT)

images: $(VENV)/.ready
	@$(PY) -m local images --run

lint: $(VENV)/.ready
	@$(PY) -m flake8 src lambda local tests benchmarks && echo "flake8: clean"

test: lint
	@$(PY) -m local jars
	@$(PY) -m pytest -m "not slow" tests/unit tests/pipeline tests/spark

# Kills at each commit point, every scenario on real Spark, faults and a storm of uploads in the whole pipeline: many minutes
test-slow: $(VENV)/.ready
	@$(PY) -m local jars
	@$(PY) -m pytest -m slow tests/spark tests/pipeline

ITEMS ?= 2000000
bench: $(VENV)/.ready
	@$(PY) -m benchmarks --items $(ITEMS)

clean:
	@rm -rf $(VENV) .local
