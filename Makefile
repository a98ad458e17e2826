# `make help` lists what there is. Two need nothing but Python 3.11 or later: `make demo` and `make test`.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PYTEST_ARGS ?= -n 2 --dist loadfile
BENCH_ARGS ?=
POOL_ARGS ?=

ENVTEST := .envtest
KUBE_VERSION := $(shell awk '$$1 == "k8s.io/kubernetes" {print $$2}' tests/envtest/go.mod)
KUBE_MAJOR := $(word 1,$(subst ., ,$(KUBE_VERSION:v%=%)))
KUBE_MINOR := $(word 2,$(subst ., ,$(KUBE_VERSION:v%=%)))
KUBE_LDFLAGS := -X k8s.io/component-base/version.gitVersion=$(KUBE_VERSION) \
  -X k8s.io/component-base/version.gitMajor=$(KUBE_MAJOR) \
  -X k8s.io/component-base/version.gitMinor=$(KUBE_MINOR)

GO_IS_THERE = command -v go >/dev/null || { \
  echo "make: go is not installed; https://go.dev/doc/install, or set KUBEBUILDER_ASSETS to a kube-apiserver and etcd" >&2; \
  exit 1; }

UV_VERSION := 0.13.9

SIM := PYTHONPATH=tests $(BIN)/python -m sim
SIM_WORLDS ?= 2000
SIM_RESULT := .sim.json

.DEFAULT_GOAL := help
.PHONY: help install demo test test-integration sim sim-full bench-smoke pool-figures lint build run envtest kube-tools crd docs lock clean
.DELETE_ON_ERROR:

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  %-17s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

install: $(VENV)/.installed ## make .venv from the hash-locked packages, with khook in it

$(VENV)/.installed: requirements/dev.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
	  echo "make: $(PYTHON) is missing or older than Python 3.11; name another: make PYTHON=python3.12 $(MAKECMDGOALS)" >&2; \
	  exit 1; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || { \
	  echo "make: $(PYTHON) cannot make virtual environments; on Debian and Ubuntu: apt-get install python3-venv" >&2; \
	  exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes --no-deps -r requirements/dev.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@

demo: install ## the whole system on an embedded cluster; no Kubernetes needed
	@$(BIN)/khook demo

test: install ## all tests; those of the real API server where it is at hand (make envtest)
	$(BIN)/python -m pytest $(PYTEST_ARGS)

test-integration: install $(if $(KUBEBUILDER_ASSETS),,envtest) ## the tests that need the real API server
	KHOOK_REQUIRE_ENVTEST=1 $(BIN)/python -m pytest $(PYTEST_ARGS) -m envtest

sim: install ## 2,000 simulated half-hours with faults, and defects that they must find (some 10 minutes on 2 cores)
	$(SIM) --worlds $(SIM_WORLDS) --mutants --short --json $(SIM_RESULT)

sim-full: install ## 20,000 of them, and each defect in the first 500
	$(SIM) --worlds 20000 --mutants --json $(SIM_RESULT)

bench-smoke: install ## a minute of load on `khook run`: incidents a second, latency, CPU, memory
	@$(BIN)/python -m bench $(BENCH_ARGS)

pool-figures: install ## four minutes of kills, freezes and stops: what each costs, and the ring's figures
	@$(BIN)/python -m bench.pool_figures $(POOL_ARGS)

lint: install ## format, lint, types, and which room may import which
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

build: install ## the wheel, into dist/
	$(BIN)/hatchling build -t wheel

run: install ## the controller, with your kubeconfig and KAGENT_API_KEY
	$(BIN)/khook run

envtest: $(ENVTEST)/etcd $(ENVTEST)/kube-apiserver $(ENVTEST)/go-template kube-tools ## build the real API server and Go's templates for the tests (Go, about 10 minutes, once)

$(ENVTEST)/etcd: tests/envtest/go.mod tests/envtest/go.sum
	@$(GO_IS_THERE)
	cd tests/envtest && go build -o ../../$@ go.etcd.io/etcd/server/v3

$(ENVTEST)/kube-apiserver: tests/envtest/go.mod tests/envtest/go.sum
	@$(GO_IS_THERE)
	cd tests/envtest && go build -ldflags "$(KUBE_LDFLAGS)" -o ../../$@ k8s.io/kubernetes/cmd/kube-apiserver

$(ENVTEST)/go-template: tests/peers/go_template/go.mod tests/peers/go_template/main.go
	@$(GO_IS_THERE)
	cd tests/peers/go_template && go build -o ../../../$@ .

kube-tools: $(ENVTEST)/.kube-tools ## fetch helm and kubectl for the tests, pinned by hash

$(ENVTEST)/.kube-tools: tests/envtest/kube_tools.py tests/envtest/kube-tools.lock | install
	$(BIN)/python tests/envtest/kube_tools.py $(ENVTEST)
	@touch $@

crd: install ## write crds/ from the models in khook/api
	$(BIN)/python -m khook.api.crd > crds/kagent.dev_hooks.yaml.new
	@mv crds/kagent.dev_hooks.yaml.new crds/kagent.dev_hooks.yaml

docs: install ## write what the documents say of models, settings, metrics and log keys
	$(BIN)/python -m reference

lock: .uv/bin/uv ## resolve the packages afresh, with hashes
	.uv/bin/uv pip compile pyproject.toml --universal --generate-hashes --python-version 3.11 --no-header \
	  --quiet --upgrade -o requirements/run.lock
	.uv/bin/uv pip compile pyproject.toml --group dev --allow-unsafe --universal --generate-hashes \
	  --python-version 3.11 --no-header --quiet --upgrade -o requirements/dev.lock

.uv/bin/uv:
	$(PYTHON) -m venv .uv
	.uv/bin/python -m pip install --quiet --disable-pip-version-check uv==$(UV_VERSION)

clean: ## remove all that these targets made
	rm -rf $(VENV) $(ENVTEST) .uv dist build .coverage .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache $(SIM_RESULT)
