# On a fresh clone: make demo, make test. Both set themselves up; a second run is quick.

PYTHON ?= python3
VERSIONS := 3.11 3.12 3.13
VENV := .venv
BIN := $(VENV)/bin
# Processes that run tests; 0 for one, as a debugger wants it.
JOBS ?= 2
READY := $(VENV)/.ready
BENCH_READY := $(VENV)/.bench-ready

.DELETE_ON_ERROR:
.PHONY: help demo test lint types check test-long check-versions tools long-tools bench bench-quick bench-tools clean

help:
	@echo "make demo            a whole round against an S3 server of its own"
	@echo "make test            every check: lint, types, tests"
	@echo "make lint            ruff alone"
	@echo "make types           mypy alone"
	@echo "make check           pytest alone; make check ARGS='-k push' for some tests; JOBS=0 in one process"
	@echo "make test-long       sweeps of crashes and faults, fuzzing: hours; ARGS='-k pull' for some"
	@echo "make check-versions  pytest on each of Python $(VERSIONS) that is installed"
	@echo "make tools           install the archivers that the tests compare with"
	@echo "make bench           measure beside every peer, some 45 minutes; ARGS='--only push' for less"
	@echo "make bench-quick     the same with little data, 3 minutes"
	@echo "make bench-tools     install the peers and the server that they are measured with"
	@echo "make clean           remove what these commands made"
	@echo "PYTHON=python3.12 chooses the interpreter, for a new $(VENV)"

demo: $(READY)
	@echo "etc demo"
	@$(BIN)/etc demo

test: $(READY) tools lint types check

lint: $(READY)
	@echo "ruff check, ruff format --check"
	@$(BIN)/ruff check --quiet
	@$(BIN)/ruff format --check --quiet

types: $(READY)
	@echo "mypy --strict"
	@$(BIN)/mypy --no-error-summary

check: $(READY) tools
	@echo "pytest"
	@$(BIN)/pytest -n $(JOBS) --dist worksteal $(ARGS)

# What takes too long for every day: tests/long.
test-long: $(READY) tools long-tools
	@$(BIN)/python -m pip install -qq --group fuzz
	@echo "pytest -m long"
	@$(BIN)/pytest -m long -s $(ARGS)

# One environment for each version, made like the one for every day. pyenv puts commands into the
# PATH that fail for a version nobody has selected, so its own directories are looked into as well.
check-versions: tools
	@pyenv=$$(pyenv root 2>/dev/null); found=; for version in $(VERSIONS); do \
		python=; for candidate in "python$$version" "$$pyenv"/versions/$$version[.-]*/bin/python; do \
			"$$candidate" -c '' 2>/dev/null && { python=$$candidate; break; }; \
		done; \
		test -n "$$python" || { echo "python$$version: not installed"; continue; }; \
		found=yes; \
		$(MAKE) --no-print-directory check VENV=.venv-$$version PYTHON="$$python" || exit 1; \
	done; test -n "$$found" || { echo "none of Python $(VERSIONS) is installed" >&2; exit 1; }

$(READY): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo "Python 3.11 or later is needed, and '$(PYTHON)' is none:" >&2; \
		echo "name another one, as in: make PYTHON=python3.12 $(MAKECMDGOALS)" >&2; exit 1; }
	@echo "$(VENV): a virtual environment of $$($(PYTHON) --version)"
	@$(PYTHON) -m venv $(VENV)
	@echo "$(VENV): installing etcetera, its extras and what checks it"
	@# Older ones do not know dependency groups.
	@$(BIN)/python -m pip install -qq --upgrade 'pip>=25.1'
	@$(BIN)/python -m pip install -qq --editable '.[s3,gs,demo]' --group dev
	@touch $@

# Archives have to agree with other people's tools, so the tests run them; strace injects faults.
tools:
	@missing=; \
	tar --version 2>/dev/null | grep -q 'GNU tar' || missing="$$missing tar"; \
	command -v bsdtar >/dev/null || missing="$$missing libarchive-tools"; \
	command -v pigz >/dev/null || missing="$$missing pigz"; \
	command -v busybox >/dev/null || missing="$$missing busybox"; \
	command -v 7z >/dev/null || missing="$$missing p7zip-full"; \
	command -v strace >/dev/null || missing="$$missing strace"; \
	$(install_missing)

long-tools:
	@missing=; PATH="$$PATH:/usr/sbin:/sbin"; \
	command -v mkfs.ext4 >/dev/null || missing="$$missing e2fsprogs"; \
	$(install_missing)

# The server that Debian's nginx would start by itself is not wanted.
bench-tools:
	@missing=; PATH="$$PATH:/usr/sbin:/sbin"; \
	tar --version 2>/dev/null | grep -q 'GNU tar' || missing="$$missing tar"; \
	command -v pigz >/dev/null || missing="$$missing pigz"; \
	command -v igzip >/dev/null || missing="$$missing isal"; \
	command -v tc >/dev/null || missing="$$missing iproute2"; \
	test -e /usr/lib/nginx/modules/ngx_http_lua_module.so || \
		missing="$$missing libnginx-mod-http-lua"; \
	command -v nginx >/dev/null || { \
		missing="$$missing nginx"; \
		! command -v systemctl >/dev/null || masked=yes; }; \
	if [ -n "$$masked" ]; then $(as_root); $$sudo systemctl mask --quiet nginx; fi; \
	trap 'test -z "$$masked" || { $$sudo systemctl unmask --quiet nginx; \
		$$sudo systemctl disable --quiet nginx; }' EXIT; \
	$(install_missing)

as_root = if [ "$$(id -u)" = 0 ]; then sudo=; else sudo="sudo -n"; fi

define install_missing
if [ -z "$$missing" ]; then exit 0; fi; \
	$(as_root); \
	echo "apt-get install$$missing"; \
	command -v apt-get >/dev/null && { \
		$$sudo apt-get install --yes -qq --no-install-recommends $$missing >/dev/null 2>&1 || { \
			$$sudo apt-get update -qq && \
			$$sudo apt-get install --yes -qq --no-install-recommends $$missing >/dev/null; \
		}; \
	} || { \
		echo "Tools are needed that are missing here and could not be installed." >&2; \
		echo "These packages of Debian and Ubuntu have them:$$missing" >&2; \
		echo "Install them, or the same tools from elsewhere, then try again." >&2; exit 1; }
endef

bench: $(BENCH_READY) bench-tools
	@$(BIN)/python -m benchmarks $(ARGS)

bench-quick: $(BENCH_READY) bench-tools
	@$(BIN)/python -m benchmarks --quick $(ARGS)

$(BENCH_READY): $(READY)
	@echo "$(VENV): installing the peers"
	@$(BIN)/python -m pip install -qq --group bench
	@touch $@

clean:
	@echo "removing environments and caches"
	@rm -rf .venv .venv-* .pytest_cache .mypy_cache .ruff_cache .hypothesis dist build
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +
