# Everything starts here. `make run` and `make test` set up what they need.
PYTHON ?= $(shell for p in python3.13 python3.12 python3.11 python3; do $$p -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null && echo $$p && break; done)
VENV := .venv
PY := $(VENV)/bin/python
export PYTHONDONTWRITEBYTECODE = 1


.PHONY: help run up console test-console bench-console images test test-fast test-long shake test-glue51 conformance lint bench bench-check bench-report validate bootstrap deploy operate destroy smoke restore drift clean
help:
	@echo "Try it"
	@echo "  make run               load two sample deliveries, from upload to query, and report"
	@echo "  make up                the same, kept running, with the console in a browser"
	@echo "                         (PORT=5000, FRESH=1 starts empty, ENGINE=trino uses a real Trino, 820 MB once)"
	@echo "Test it"
	@echo "  make lint              flake8, ruff, mypy"
	@echo "  make test              lint and all tests except the long ones"
	@echo "  make test-fast         the same without the slow ones"
	@echo "  make test-long         tests that take minutes each: kills, two writers, lost executors, 50 seeds of shake"
	@echo "  make test-glue51       the tests on the versions of Glue 5.1: Spark 3.5, Delta 3.3, Python 3.11"
	@echo "  make test-console      the tests of the console, with Chromium"
	@echo "  make shake             the whole pipeline while S3 fails, Spark is killed and events repeat (SEED=1 COUNT=1)"
	@echo "  make conformance       record the answers of a real Trino again (820 MB once)"
	@echo "  make validate          check templates, state machine and workflows, and their security"
	@echo "Measure it"
	@echo "  make bench             the job beside plain Spark and a naive job (ITEMS=2000000)"
	@echo "  make bench-check       the check before an upload"
	@echo "  make bench-report      the function that writes the report, on a large run"
	@echo "  make bench-console     each page of the console on a large lake"
	@echo "On AWS, see docs/deploy.md (ENV=prod)"
	@echo "  make bootstrap, deploy, smoke, drift, restore, destroy"
	@echo "  make operate           correct, undo, replay, maintain, show history or rejects (ARGS='rollback --to RUN --dry-run')"
	@echo "  make console           the console for a deployed environment (OPERATE=1 allows changes)"
	@echo "Other"
	@echo "  make images            draw the pictures in images/"
	@echo "  make clean             remove the environments and all local data"

$(VENV)/.ready: requirements.txt
	@test -n "$(PYTHON)" || { echo "No Python 3.11, 3.12 or 3.13 found: install one, or run make PYTHON=/path/to/python"; exit 1; }
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
	@$(PY) -m local up --port $(PORT) --console-port $(CONSOLE_PORT) $(if $(FRESH),--fresh) $(if $(ENGINE),--engine $(ENGINE))

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
	@$(PY) -m tests.images --run

lint: $(VENV)/.ready
	@$(PY) -m flake8 src lambda rules client local console deploy samples tests && echo "flake8: clean"
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

SEED ?= 1
COUNT ?= 1
shake: $(VENV)/.console-ready
	@$(PY) -m local jars
	@PYTHONPATH=src $(PY) -m tests.pipeline.shake $(SEED) $(COUNT) $(RATE)

conformance: $(VENV)/.ready
	@$(PY) -m tests.conformance.record

ITEMS ?= 2000000
bench: $(VENV)/.ready
	@$(PY) -m tests.benchmarks --items $(ITEMS)

# The check before an upload
bench-check: $(VENV)/.ready
	@$(PY) -m tests.benchmarks.check

# Each page of the console on a large lake
RUNS ?= 1000
REJECTS ?= 100000
bench-console: $(VENV)/.console-test-ready
	@$(PY) -m tests.benchmarks.console --runs $(RUNS) --rejects $(REJECTS)

# Memory and time of RunReport on a large run
bench-report: $(VENV)/.ready
	@$(PY) -m tests.benchmarks.report

# Glue 5.1's versions need an environment of their own
PYTHON311 ?= python3.11
VENV51 := .venv-glue51
$(VENV51)/.ready: requirements.txt requirements-glue51.txt
	@$(PYTHON311) -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' 2>/dev/null \
		|| { echo "Glue 5.1 is Python 3.11: install it, or run make test-glue51 PYTHON311=/path/to/python3.11"; exit 1; }
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
export PARAMETERS TAGS
bootstrap: $(VENV)/.ready
	@$(PY) -m deploy bootstrap $(if $(GITHUB_SUBJECTS),--github-subjects "$(GITHUB_SUBJECTS)") $(if $(GITHUB_CHECK_SUBJECTS),--github-check-subjects "$(GITHUB_CHECK_SUBJECTS)") $(if $(GITHUB_PROVIDER),--github-provider "$(GITHUB_PROVIDER)") $(if $(BOUNDARY),--permissions-boundary "$(BOUNDARY)") $(if $(ROLE_PREFIX),--role-prefix "$(ROLE_PREFIX)") --tags "$$TAGS"

deploy: $(VENV)/.ready
	@$(PY) -m deploy up --environment $(ENV) $(if $(PLAN),--plan) --parameters "$$PARAMETERS" --tags "$$TAGS"

smoke: $(VENV)/.ready
	@$(PY) -m deploy smoke --environment $(ENV)

# FROM names the environment whose archive it is; ENV a new one
restore: $(VENV)/.ready
	@test -n "$(FROM)" || { echo "Name the environment whose archive to use: make restore ENV=new FROM=prod"; exit 1; }
	@$(PY) -m deploy restore --environment $(ENV) --from $(FROM)

drift: $(VENV)/.ready
	@$(PY) -m deploy drift --environment $(ENV)

# ARGS are the words of `python -m local`: rollback, replay, rebuild, optimize, vacuum, sql, and history and rejects, which only read
operate: $(VENV)/.ready
	@$(PY) -m deploy operate --environment $(ENV) $(ARGS)

# The data stays, unless DELETE_DATA names the environment once more
destroy: $(VENV)/.ready
	@$(PY) -m deploy down --environment $(ENV) $(if $(DELETE_DATA),--delete-data $(DELETE_DATA)) $(if $(UNPROTECT),--unprotect $(UNPROTECT))

clean:
	@rm -rf $(VENV) $(VENV51) $(CHECKS) .local
