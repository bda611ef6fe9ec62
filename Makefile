# make run    set up, start a proxy with a certificate and a key, and print a curl line that works
# make test   set up, and run all tests, two modules at a time; with PYTEST_WORKERS=4, four
# make test-deploy  only the tests of deployments: containers, systemd, Kubernetes, Prometheus, HAProxy
# make check  format, lint and types
# make bench  the side-by-side benchmark against nginx and Caddy; rewrites docs/benchmarks.md
# make soak   15 minutes of mixed load, all of it accounted for; rewrites docs/soak.md
# make lock   compile requirements.lock anew from pyproject.toml

PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11; do \
	$$p -c 'import ensurepip, sys, venv; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' 2>/dev/null && echo $$p && break; done)

.PHONY: run test test-deploy check bench soak lock
.DEFAULT_GOAL := run

.venv/ready: requirements.lock pyproject.toml
	@test -n "$(PYTHON)" || { echo "Python 3.11 to 3.13 with venv is needed: on Debian, apt-get install python3-venv" >&2; exit 1; }
	@echo "setting up .venv (about a minute, once)" >&2
	@rm -rf .venv && $(PYTHON) -m venv .venv
	@.venv/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	@.venv/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@

run: .venv/ready
	@.venv/bin/ollama-auth-proxy quickstart $(ARGS)

PYTEST_WORKERS ?= 2

test: .venv/ready
	.venv/bin/pytest -n $(PYTEST_WORKERS) $(ARGS)

test-deploy: .venv/ready
	.venv/bin/pytest -n $(PYTEST_WORKERS) tests/deploy $(ARGS)

check: .venv/ready
	.venv/bin/ruff format --check .
	.venv/bin/ruff check .
	.venv/bin/mypy

bench: .venv/ready
	.venv/bin/python -m bench $(or $(ARGS),--write)

soak: .venv/ready
	.venv/bin/python -m bench.soak $(or $(ARGS),--write)

lock: .venv/ready
	.venv/bin/uv pip compile pyproject.toml --all-extras --universal --generate-hashes \
		--no-emit-index-url --no-header --quiet --output-file requirements.lock
