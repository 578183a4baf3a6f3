# Everything starts here. `make run` and `make test` set up what they need.
PYTHON ?= $(shell for p in python3.13 python3.12 python3.11 python3; do $$p -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null && echo $$p && break; done)
VENV := .venv
PY := $(VENV)/bin/python
export PYTHONDONTWRITEBYTECODE = 1


.PHONY: help run up console test-console bench-console images test test-fast test-long test-glue51 conformance lint bench validate bootstrap deploy operate destroy smoke clean
help:
	@echo "make run     two deliveries of sample data go the whole way, from upload to query"
	@echo "make up      the same, kept running, with the console in a browser (PORT=5000, FRESH=1 begins empty)"
	@echo "make console the console for a deployed environment (ENV=prod; OPERATE=1 lets it change data)"
	@echo "make test    lint and all tests but the long ones"
	@echo "make lint    flake8, ruff's rules and format, mypy"
	@echo "make test-long  what takes minutes a test: loads ended by SIGKILL and operations stopped at each commit point, in random schedules, over ten deliveries, a burst of a thousand files"
	@echo "make test-fast  without the slow ones: a kill at each commit point, every scenario on Spark, faults and a storm of uploads"
	@echo "make images  draw the pictures in images/ from the files and the run that they show"
	@echo "make test-console  the tests of the console, in Chromium; make bench-console  how long its pages take"
	@echo "make bench   timings against plain Spark and a naive job (ITEMS=2000000)"
	@echo "make test-glue51  the tests on Glue 5.1's Spark 3.5, Delta 3.3 and Python 3.11"
	@echo "make conformance  ask a real Trino the queries of tests/conformance again, and record its answers (820 MB once)"
	@echo "make validate  check templates, state machine and workflows, and their security"
	@echo "make bootstrap, deploy, smoke, destroy  the same on AWS, see docs/deploy.md (ENV=prod)"
	@echo "make operate ENV=prod ARGS='rollback --to RUN --dry-run'  correct, undo, replay, maintain the tables on AWS, or read their history (ARGS=history), see docs/operations.md"
	@echo "make clean   remove the environment and all local data"

$(VENV)/.ready: requirements.txt
	@test -n "$(PYTHON)" || { echo "No Python 3.11, 3.12 or 3.13 found: install one, or say make PYTHON=/path/to/python"; exit 1; }
	@echo "Setting up Python packages in $(VENV) (once, about a minute) ..."
	@$(PYTHON) -m venv $(VENV) && $(PY) -m pip install --quiet --disable-pip-version-check -r requirements.txt
	@touch $@

run: $(VENV)/.ready
	@$(PY) -m local run

# The console's packages are few, and a user of the job alone needs none of them
$(VENV)/.console-ready: $(VENV)/.ready requirements-console.txt
	@echo "Setting up the console's packages (once) ..."
	@$(PY) -m pip install --quiet --disable-pip-version-check -r requirements-console.txt
	@touch $@

PORT ?= 5000
CONSOLE_PORT ?= 8080
up: $(VENV)/.console-ready
	@$(PY) -m local up --port $(PORT) --console-port $(CONSOLE_PORT) $(if $(FRESH),--fresh)

console: $(VENV)/.console-ready
	@$(PY) -m console --env $(ENV) --port $(CONSOLE_PORT) $(if $(OPERATE),--operate)

# In Chromium, where there is one; they are part of `make test` as soon as these packages are there
$(VENV)/.console-test-ready: $(VENV)/.console-ready requirements-console-test.txt
	@$(PY) -m pip install --quiet --disable-pip-version-check -r requirements-console-test.txt
	@touch $@

AXE := axe-core@4.12.1
test-console: $(VENV)/.console-test-ready
	@command -v npm >/dev/null && npm install --silent --no-fund --no-audit --prefix .local/axe $(AXE) || echo "npm is not here: axe-core is left out"
	@$(PY) -m pytest tests/console

images: $(VENV)/.console-test-ready
	@$(PY) -m local images --run

lint: $(VENV)/.ready
	@$(PY) -m flake8 src lambda local console deploy tools tests benchmarks && echo "flake8: clean"
	@$(PY) -m ruff check . && $(PY) -m ruff format --check .
	@$(PY) -m mypy

# Two processes: one holds the Spark of tests/spark, the other takes the rest, what takes long first
PYTEST = -m pytest -n 2 --no-loadscope-reorder tests/spark tests/console tests/pipeline tests/unit tests/conformance
test: lint $(VENV)/.console-ready
	@$(PY) -m local jars
	@$(PY) $(PYTEST) -m "not long"

test-long: $(VENV)/.console-ready
	@$(PY) -m local jars
	@$(PY) -m pytest tests/spark tests/pipeline -m long

test-fast: lint $(VENV)/.console-ready
	@$(PY) -m local jars
	@$(PY) $(PYTEST) -m "not slow and not long"

conformance: $(VENV)/.ready
	@$(PY) -m tests.conformance.record

ITEMS ?= 2000000
bench: $(VENV)/.ready
	@$(PY) -m benchmarks --items $(ITEMS)

# Each page of the console on a large lake
RUNS ?= 1000
REJECTS ?= 100000
bench-console: $(VENV)/.console-test-ready
	@$(PY) -m benchmarks.console --runs $(RUNS) --rejects $(REJECTS)

# Glue 5.1's versions need an environment of their own
PYTHON311 ?= python3.11
VENV51 := .venv-glue51
$(VENV51)/.ready: requirements.txt requirements-glue51.txt
	@$(PYTHON311) -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' 2>/dev/null \
		|| { echo "Glue 5.1 is Python 3.11: install it, or say make test-glue51 PYTHON311=/path/to/python3.11"; exit 1; }
	@echo "Setting up Python packages in $(VENV51) (once, about a minute) ..."
	@$(PYTHON311) -m venv $(VENV51) && grep -vE '^(pyspark|delta-spark)==' requirements.txt > $(VENV51)/rest.txt
	@$(VENV51)/bin/python -m pip install --quiet --disable-pip-version-check -r $(VENV51)/rest.txt -r requirements-glue51.txt
	@touch $@

test-glue51: $(VENV51)/.ready
	@$(VENV51)/bin/python -m local jars
	@$(VENV51)/bin/python $(PYTEST) -m "not long"

# The checkers need an environment of their own as well: checkov pins an older boto3
CHECKS := .venv-checks
ACTIONLINT := github.com/rhysd/actionlint/cmd/actionlint@v1.7.12
$(CHECKS)/.ready: requirements-dev.txt
	@echo "Setting up the checkers in $(CHECKS) (once, about a minute) ..."
	@$(PYTHON) -m venv $(CHECKS) && $(CHECKS)/bin/python -m pip install --quiet --disable-pip-version-check -r requirements-dev.txt
	@if command -v go >/dev/null; then GOBIN=$(CURDIR)/$(CHECKS)/bin go install $(ACTIONLINT) 2>/dev/null || echo "actionlint could not be installed"; fi
	@touch $@

validate: $(VENV)/.ready $(CHECKS)/.ready
	@PATH="$(CURDIR)/$(CHECKS)/bin:$$PATH" $(PY) -m deploy validate $(if $(STRICT),--strict)

# AWS: credentials and region as for the AWS command line. PARAMETERS="AlertEmail=me@example.com NumberOfWorkers=4" changes defaults
ENV ?= prod
bootstrap: $(VENV)/.ready
	@$(PY) -m deploy bootstrap $(if $(GITHUB_SUBJECTS),--github-subjects "$(GITHUB_SUBJECTS)") $(if $(GITHUB_PROVIDER),--github-provider "$(GITHUB_PROVIDER)")

deploy: $(VENV)/.ready
	@$(PY) -m deploy up --environment $(ENV) $(if $(PLAN),--plan) $(foreach parameter,$(PARAMETERS),--parameter $(parameter))

smoke: $(VENV)/.ready
	@$(PY) -m deploy smoke --environment $(ENV)

# ARGS are the words of `python -m local`: rollback, replay, optimize, vacuum, sql, and history, which only reads
operate: $(VENV)/.ready
	@$(PY) -m deploy operate --environment $(ENV) $(ARGS)

# The data stays, unless DELETE_DATA names the environment once more
destroy: $(VENV)/.ready
	@$(PY) -m deploy down --environment $(ENV) $(if $(DELETE_DATA),--delete-data $(DELETE_DATA))

clean:
	@rm -rf $(VENV) $(VENV51) $(CHECKS) .local
