# Every verb makes what it needs. An environment is made once per lock, Python and folder: the stamp in it carries their hash.

PYTHON ?= python3
BIN := .venv/bin
BUF := tests/node/node_modules/.bin/buf
PROTOC := .venvs/protos/bin/python -m grpc_tools.protoc

PYTHON_VERSION := $(shell $(PYTHON) -VV)
key = $(shell { echo '$(PYTHON_VERSION) $(CURDIR)'; cat $(1); } | sha256sum | cut -c1-16)
VENV := .venv/.made-$(call key,requirements/lock.txt requirements/torch.txt)
PACKAGE := .venv/.installed-$(call key,pyproject.toml hatch_build.py $(sort $(wildcard engines/backends/torch_lm/kernels/src/*)))
PROTOS := .venvs/protos/.made-$(call key,requirements/protos.txt)
STUBS := $(foreach lock,$(wildcard requirements/stubs/*.txt),$(lock:requirements/%.txt=.venvs/%)/.made-$(call key,$(lock)))
NODE := tests/node/node_modules/.package-lock.json

.DEFAULT_GOAL := help
.PHONY: help run test test-slow check protos bench soak repeat fmt lock clean venv

help: ## prints the verbs
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-10s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

run: $(PACKAGE) ## starts a cluster here and shows it at work, on PORT=50050; serves until Ctrl-C, or with ONCE=1 ends by itself
	@$(BIN)/roundhouse up --tour --state-dir .roundhouse $(if $(ONCE),--once) $(if $(PORT),--port $(PORT))

test: $(PACKAGE) $(PROTOS) $(STUBS) $(NODE) ## runs the tests that need neither a GPU nor minutes; T="-k name" chooses
	@$(BIN)/pytest -n 2 --dist loadfile -m "not slow and not gpu" $(T)

test-slow: $(PACKAGE) $(PROTOS) $(STUBS) $(NODE) ## runs the tests that take minutes
	@$(BIN)/pytest -n 2 --dist loadfile -m "slow and not gpu" --ignore tests/e2e $(T) || [ $$? -eq 5 ]  # 5: there is none
	@$(BIN)/pytest -m "slow and not gpu" tests/e2e $(T) || [ $$? -eq 5 ]

check: $(PACKAGE) $(PROTOS) $(NODE) ## checks style, types, the direction of imports, and the contract
	$(BIN)/ruff check --quiet --output-format concise
	$(BIN)/ruff format --check --quiet
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo
	$(BUF) lint
	$(BUF) format --diff --exit-code
	@if tag=$$(git describe --tags --abbrev=0 --match 'v[0-9]*' 2>/dev/null); \
	then echo "$(BUF) breaking, against $$tag"; $(BUF) breaking --against ".git#tag=$$tag"; \
	else echo "no release is tagged yet: the contract may still change"; fi
	.venvs/protos/bin/python scripts/proto_docs.py protos
	$(BIN)/pytest --quiet tests/unit/test_protos.py

protos: $(PROTOS) ## writes the stubs in roundhouse/v1 and roundhouse/internal/v1 anew
	@rm -f roundhouse/v1/*_pb2* roundhouse/internal/v1/*_pb2*
	@$(PROTOC) -I protos --python_out=. --pyi_out=. --grpc_python_out=. $$(find protos -name '*.proto' | sort)

bench: $(PACKAGE) ## runs the benchmarks, one after the other: two hours on a machine that is to be quiet; QUICK=1 takes a look
	@for program in $(sort $(filter-out __init__,$(notdir $(basename $(wildcard benchmarks/*.py))))); \
	do echo "benchmarks.$$program"; $(BIN)/python -m benchmarks.$$program $(if $(QUICK),--quick) || exit; done

soak: $(PACKAGE) ## breaks whatever a cluster consists of for MINUTES (default 15) and keeps what came of it; SEED=1f2e repeats one
	@ROUNDHOUSE_CHAOS_S=$$(( 60 * $(or $(MINUTES),15) )) ROUNDHOUSE_CHAOS_REST_S=30 ROUNDHOUSE_CHAOS_SEED=$(or $(SEED),random) \
	ROUNDHOUSE_CHAOS_RESULTS=benchmarks/results/chaos-$$(date +%F)-$$(git rev-parse --short=8 HEAD).jsonl $(BIN)/pytest tests/e2e/test_chaos.py

repeat: $(PACKAGE) $(PROTOS) $(STUBS) $(NODE) ## repeats all tests until one fails or MINUTES (default 30) are over
	@end=$$(( $$(date +%s) + 60 * $(or $(MINUTES),30) )); while [ $$(date +%s) -lt $$end ]; \
	do $(BIN)/pytest --exitfirst --quiet -m "not gpu" $(T) || exit; done

fmt: $(PACKAGE) $(NODE) ## formats, and mends what can be mended without thought
	@$(BIN)/ruff check --fix-only --quiet
	@$(BIN)/ruff format --quiet
	@$(BUF) format --write

lock: .venvs/lock/bin/uv ## resolves anew what requirements/ pins
	@compile="$< pip compile --quiet --upgrade --config-file requirements/uv.toml"; \
	$$compile -c requirements/constraints.txt --extra torch --extra dev pyproject.toml -o requirements/lock.txt && \
	for source in requirements/*.in requirements/stubs/*.in; do $$compile $$source -o $${source%.in}.txt || exit; done

clean: ## removes environments, caches and builds
	@rm -rf .venv .venvs tests/node/node_modules dist engines/backends/torch_lm/kernels/lib .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +

venv: $(PACKAGE) ## makes .venv and does nothing in it

$(VENV):
	@$(PYTHON) -c 'import sys; sys.exit("Python 3.11 is needed: make PYTHON=..." if sys.version_info < (3, 11) else 0)'
	@echo "environment: .venv, with $$($(PYTHON) -V)"
	@$(PYTHON) -m venv --clear .venv
	@echo "environment: .venv, what requirements/lock.txt names"
	@$(BIN)/pip install -qq --no-deps --require-hashes -r requirements/lock.txt
	@echo "environment: .venv, torch"
	@$(BIN)/pip install -qq -r requirements/torch.txt
	@touch $@

$(PACKAGE): $(VENV)
	@echo "environment: .venv, this project (editable)"
	@$(BIN)/pip install -qq --no-deps --no-build-isolation -e .
	@rm -f .venv/.installed-*
	@touch $@

# Each of these is made of one lock, small, and of no use but to the verb that needs it.
.venvs/%:
	@echo "environment: $(@D)"
	@$(PYTHON) -m venv --clear $(@D)
	@$(@D)/bin/pip install -qq --no-deps --require-hashes -r $(patsubst .venvs/%,requirements/%.txt,$(@D))
	@touch $@

.venvs/lock/bin/uv:
	@$(PYTHON) -m venv --clear .venvs/lock
	@.venvs/lock/bin/pip install -qq uv

$(NODE): tests/node/package-lock.json
	@if command -v npm > /dev/null; \
	then echo "environment: $(@D)"; cd tests/node && npm ci --ignore-scripts --silent && touch node_modules/$(@F); \
	else echo "environment: no npm here: tests marked node are skipped"; fi
