.DEFAULT_GOAL := help
SHELL := /bin/bash
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
COMPILE := $(BIN)/uv pip compile pyproject.toml --quiet --generate-hashes --universal --python-version 3.11 \
	--no-emit-index-url --no-emit-find-links --no-header

.PHONY: help
help: ## Show this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 18

.PHONY: venv
venv: $(VENV)/.installed ## Make the Python environment from the pinned requirements

$(VENV)/.installed: requirements/dev.txt pyproject.toml
	@hack/venv.sh $(PYTHON) $(VENV)
	@touch $@

.PHONY: lock
lock: venv ## Pin every dependency anew, with hashes
	$(COMPILE) --extra operator --output-file requirements/operator.txt
	$(COMPILE) --extra server --output-file requirements/server.txt
	$(COMPILE) --extra operator --extra server --group dev --output-file requirements/dev.txt

.PHONY: generate
generate: venv ## Write the CRD, the chart's copy and the reference pages anew
	$(BIN)/python -m hack.generate

.PHONY: check
check: venv ## Check style, types, contracts and generated files; run the unit tests
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m hack.generate --check
	@if [ -x .local/bin/helm ]; then .local/bin/helm lint --strict charts/kedge; \
	else echo "helm is not at hand: the chart is left to make test"; fi
	$(BIN)/pytest -m "not e2e" -q --cov --cov-report=term
