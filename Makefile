.DEFAULT_GOAL := help
SHELL := /bin/bash
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
KERNEL := model_server/kedge_server/libcounting.so
LOCALCLUSTER := $(PYTHON) -m hack.localcluster
COMPILE := $(BIN)/uv pip compile pyproject.toml --quiet --generate-hashes --universal --python-version 3.11 \
	--no-emit-index-url --no-emit-find-links --no-header
SAME_IN_PEERS := httptools|joblib|numpy|orjson|scikit-learn|scipy|threadpoolctl|uvicorn|uvloop
# What the image can do without being built anew; docs/design/2026-11-25-server-edges.md weighs it.
SERVER_EXTRAS := --extra server --extra s3 --extra gs --extra tracing

.PHONY: help
help: ## Show this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 18

.PHONY: python
python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
	    echo "Kedge needs Python 3.11 or newer as '$(PYTHON)'; name another one with: make PYTHON=python3.12 ..." >&2; exit 2; }

.PHONY: demo
demo: up venv images ## Show a good model being promoted and bad ones rolled back, on a local cluster
	@$(BIN)/python -m hack.demo

# The cluster comes first: it needs nothing but Python, and says at once what this machine lacks.
.PHONY: test
test: up venv ## Run every test: the checks, then end to end on the local cluster
	@$(MAKE) --no-print-directory check
	@$(MAKE) --no-print-directory explore
	@$(MAKE) --no-print-directory e2e

.PHONY: e2e
e2e: up venv images ## Run the end-to-end tests
	@$(LOCALCLUSTER) exec -- $(BIN)/pytest -m e2e

.PHONY: explore
explore: venv ## Check the invariants in every state that small rollouts can reach
	$(BIN)/pytest -m exhaustive -q -n auto --dist worksteal -rP

.PHONY: up
up: python ## Bring up the local cluster
	@$(LOCALCLUSTER) up

.PHONY: images
images: up ## Build the images and load them into the local cluster
	@$(LOCALCLUSTER) images

.PHONY: stop
stop: python ## Delete the local cluster and stop what it needed; caches stay
	@$(LOCALCLUSTER) down

.PHONY: clean
clean: python ## Remove all that was made here, caches outside the checkout included
	@$(LOCALCLUSTER) purge
	@rm -rf .venv .local build dist .coverage .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache
	@rm -f $(KERNEL)
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +

.PHONY: venv
venv: $(VENV)/.installed $(KERNEL) ## Make the Python environment from the pinned requirements

$(VENV)/.installed: requirements/dev.txt pyproject.toml
	@hack/venv.sh $(PYTHON) $(VENV)
	@touch $@

$(KERNEL): hack/native.sh requirements/compiler.txt model_server/kedge_server/counting.c | $(VENV)/.installed
	@echo "compiling the model server's kernel"
	@hack/native.sh $(BIN)/python $@

.PHONY: lock
lock: venv ## Pin every dependency anew, with hashes
	$(COMPILE) --extra operator $(SERVER_EXTRAS) --group dev --output-file requirements/dev.txt
	@# What is shipped is what is tested.
	$(COMPILE) --extra operator --constraint requirements/dev.txt --output-file requirements/operator.txt
	$(COMPILE) $(SERVER_EXTRAS) --constraint requirements/dev.txt --output-file requirements/server.txt
	$(COMPILE) --no-annotate --group compiler --output-file requirements/compiler.txt
	@# The model's libraries and the HTTP server's are the same everywhere, so that only the servers differ.
	for peer in bentoml fastapi litserve mlserver; do \
	    $(COMPILE) --no-annotate --group peer-$$peer --output-file requirements/peer-$$peer.txt \
	    --constraint <(sed -nE 's/^(($(SAME_IN_PEERS))==[^\\]*)\\?$$/\1/p' requirements/server.txt) || exit 1; \
	done

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
	$(BIN)/pytest -m "not e2e and not exhaustive" -q --cov --cov-report=term

.PHONY: bench-decisions
bench-decisions: venv ## Measure what the verdicts promise, and write docs/decisions anew (about 15 min)
	$(BIN)/python -m benchmarks.decisions

.PHONY: bench-serving
bench-serving: venv ## Measure the model server beside others, and write docs/serving anew (about 25 min)
	$(BIN)/python -m benchmarks.serving
