# Two commands matter: `make run` and `make test`. Each does its own set-up.
SHELL := /bin/bash
VENV := .venv
PYTHON := $(VENV)/bin/python
WORKERS ?= 2
# More for pytest: make test ARGS="-k door"
ARGS ?=

# Named after what is to be installed: a changed file is a new stamp, an unchanged one costs nothing.
hash = $(shell sha256sum $(1) | cut -c1-16)
RUN_STAMP := $(VENV)/.run-$(call hash,requirements.txt)
DEV_STAMP := $(VENV)/.dev-$(call hash,requirements-dev.txt)
INSTALL = $(PYTHON) -m pip install --quiet --disable-pip-version-check --require-hashes
CAN_APT = [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null
APT = apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends

.PHONY: run test soak check bench lint format lock clean tools
.DELETE_ON_ERROR:

run: $(RUN_STAMP)
	@exec $(PYTHON) manage.py serve

test: $(DEV_STAMP) tools
	$(PYTHON) -m pytest -n $(WORKERS) $(ARGS)

# The long forms: hundreds of kills at random, a minute beside a writer.
soak: $(DEV_STAMP) tools
	$(PYTHON) -m pytest -m soak --timeout 3600 $(ARGS)

check: lint test

lint: $(DEV_STAMP)
	$(PYTHON) -m ruff format --check .
	$(PYTHON) -m ruff check .
	$(PYTHON) -m mypy

format: $(DEV_STAMP)
	$(PYTHON) -m ruff format .
	$(PYTHON) -m ruff check --fix .

bench: $(DEV_STAMP) tools
	$(PYTHON) -m bench

# Compiles the .in files; versions already locked stay. `make lock LOCK=--upgrade` takes the newest.
LOCK ?=
COMPILE = $(VENV)/lock/bin/uv pip compile --quiet --universal --python-version 3.11 \
	--generate-hashes --no-emit-index-url --no-header $(LOCK)
lock: | $(PYTHON)
	$(PYTHON) -m venv $(VENV)/lock
	$(VENV)/lock/bin/pip install --quiet uv
	$(COMPILE) requirements.in -o requirements.txt
	$(COMPILE) requirements-dev.in -c requirements.txt -o requirements-dev.txt

clean:
	rm -rf $(VENV) .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(PYTHON):
	@python3 -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "OmniDash needs Python 3.11 or newer as python3." >&2; exit 1; }
	@python3 -c 'import ensurepip, venv' 2>/dev/null \
		|| { $(CAN_APT) && $(APT) python3-venv >/dev/null; } \
		|| { echo "Missing: python3-venv. Install it: apt-get install python3-venv" >&2; exit 1; }
	@echo "Creating $(VENV) ..."
	@python3 -m venv $(VENV) || { rm -rf $(VENV); exit 1; }

$(RUN_STAMP): | $(PYTHON)
	@echo "Installing requirements.txt ..."
	@$(INSTALL) -r requirements.txt
	@touch $@

$(DEV_STAMP): | $(PYTHON)
	@echo "Installing requirements-dev.txt ..."
	@$(INSTALL) -r requirements-dev.txt
	@touch $@ $(RUN_STAMP)

# What tests use that pip cannot install. The fonts let a browser show every name in the fixtures.
FONTS := /usr/share/fonts/opentype/noto/NotoSansCJK-Regular.ttc \
	/usr/share/fonts/truetype/noto/NotoColorEmoji.ttf
# Debian keeps PostgreSQL's server off the PATH.
HAS_POSTGRESQL = { command -v initdb || ls /usr/lib/postgresql/*/bin/initdb; } >/dev/null 2>&1
tools:
	@if ! { command -v redis-server && command -v chromium && ls $(FONTS); } >/dev/null 2>&1 \
			|| ! $(HAS_POSTGRESQL); then \
		if $(CAN_APT); then \
			echo "Installing redis-server, postgresql, chromium and fonts ..."; \
			$(APT) redis-server postgresql chromium fonts-noto-cjk fonts-noto-color-emoji >/dev/null; \
		fi; \
	fi
	@for tool in redis-server chromium; do \
		command -v $$tool >/dev/null || { \
			echo "Missing: $$tool. Install it: apt-get install $$tool" >&2; exit 1; }; \
	done
	@$(HAS_POSTGRESQL) || { \
		echo "Missing: initdb. Install it: apt-get install postgresql" >&2; exit 1; }
