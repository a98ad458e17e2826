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

HELM ?= helm
HELM_ARGS ?=
NAMESPACE ?= kagent-system

UV_VERSION := 0.13.9

VERSION := $(shell awk -F '"' '/^version = /{print $$2; exit}' pyproject.toml)
WHEEL := dist/khook-$(VERSION)-py3-none-any.whl
RUN_VENV := .run
INTO_RUN_VENV = $(BIN)/python -m pip --python $(RUN_VENV)/bin/python install \
  --quiet --disable-pip-version-check --no-compile --no-deps
IMG ?= khook:$(VERSION)
PYTHON_IMAGE ?=
# The first that is there and answers: a docker without its daemon does not.
CONTAINER_ENGINE ?= $(shell for engine in docker podman buildah; do \
  $$engine info >/dev/null 2>&1 && { echo $$engine; break; }; done)
IMAGE_CHECK_ARGS ?=

SIM := PYTHONPATH=tests $(BIN)/python -m sim
SIM_WORLDS ?= 2000
SIM_RESULT := .sim.json

.DEFAULT_GOAL := help
.PHONY: help install demo test test-integration sim sim-full bench-smoke pool-figures screenshot lint build run docker-build image-check sbom audit envtest kube-tools charts deploy undeploy crd docs lock clean
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
	REQUIRE_ENVTEST=1 $(BIN)/python -m pytest $(PYTEST_ARGS) -m envtest

sim: install ## 2,000 simulated half-hours with faults, and defects that they must find (some 10 minutes on 2 cores)
	$(SIM) --worlds $(SIM_WORLDS) --mutants --short --json $(SIM_RESULT)

sim-full: install ## 20,000 of them, and each defect in the first 500
	$(SIM) --worlds 20000 --mutants --json $(SIM_RESULT)

bench-smoke: install ## a minute of load on `khook run`: incidents a second, latency, CPU, memory
	@$(BIN)/python -m bench $(BENCH_ARGS)

pool-figures: install ## four minutes of kills, freezes and stops: what each costs, and the ring's figures
	@$(BIN)/python -m bench.pool_figures $(POOL_ARGS)

screenshot: install ## the status page of a running demo, into docs/images (needs Chromium)
	PYTHONPATH=tests $(BIN)/python -m screenshot docs/images/status-page.png

lint: install ## format, lint, types, and which room may import which
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

build: install $(WHEEL) ## the wheel, into dist/

$(WHEEL): $(VENV)/.installed pyproject.toml README.md $(shell find khook shards -name '*.py')
	$(BIN)/hatchling build -t wheel

run: install ## the controller, with your kubeconfig and KAGENT_API_KEY
	$(BIN)/khook run

docker-build: ## the image IMG=name:tag, with docker, podman or buildah
	@[ -n "$(CONTAINER_ENGINE)" ] || { \
	  echo "make: neither docker nor podman nor buildah answers here (docker info, ...)" >&2; \
	  echo "make: \`make image-check\` tries the Dockerfile without one; CONTAINER_ENGINE=... names another" >&2; exit 1; }
	$(CONTAINER_ENGINE) build --file Dockerfile --tag $(IMG) \
	  $(if $(PYTHON_IMAGE),--build-arg PYTHON_IMAGE=$(PYTHON_IMAGE)) \
	  --build-arg VERSION=$(VERSION) --build-arg REVISION=$(shell git rev-parse HEAD 2>/dev/null || echo unknown) \
	  --build-arg SOURCE_DATE_EPOCH=$(shell git log -1 --format=%ct 2>/dev/null || echo 0) .

image-check: install ## the Dockerfile's steps without a container engine, and khook started from it (root, mmdebstrap)
	PYTHONPATH=tests $(BIN)/python -m image $(IMAGE_CHECK_ARGS)

# What the image holds, at hand: the locked packages and the wheel, without a pip.
$(RUN_VENV)/.installed: $(VENV)/.installed requirements/run.lock $(WHEEL)
	rm -rf $(RUN_VENV)
	$(PYTHON) -m venv --without-pip $(RUN_VENV)
	$(INTO_RUN_VENV) --require-hashes -r requirements/run.lock
	$(INTO_RUN_VENV) --no-index $(WHEEL)
	@touch $@

sbom: $(RUN_VENV)/.installed .sbom/.installed ## dist/sbom.cdx.json: all that the image's environment holds (CycloneDX)
	.sbom/bin/cyclonedx-py environment $(RUN_VENV)/bin/python --pyproject pyproject.toml --output-reproducible \
	  -o .sbom/installed.json
	.sbom/bin/python -W ignore .sbom/bin/cyclonedx-py requirements requirements/run.lock --output-reproducible \
	  -o .sbom/locked.json
	.sbom/bin/python tests/image/sbom.py .sbom/installed.json .sbom/locked.json dist/sbom.cdx.json

audit: .audit/.installed ## what is known against the locked packages: a report from PyPI, and no gate
	@.audit/bin/pip-audit --requirement requirements/run.lock --require-hashes --disable-pip --strict \
	  --progress-spinner off || echo "make: something is known, or PyPI could not be asked; a report, and no gate"

.sbom/.installed .audit/.installed: .%/.installed: requirements/%.lock
	$(PYTHON) -m venv .$*
	.$*/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes --no-deps -r $<
	@touch $@

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

charts: kube-tools ## lint the Helm charts and pack them, into dist/
	$(ENVTEST)/helm lint --strict --quiet charts/*
	$(ENVTEST)/helm package charts/* --destination dist

deploy: ## install or upgrade both Helm charts, in the cluster of your kubeconfig (HELM_ARGS="--set ...")
	$(HELM) upgrade --install kagent-hook-crds charts/kagent-hook-crds --namespace $(NAMESPACE) --create-namespace
	$(HELM) upgrade --install kagent-hook-controller charts/kagent-hook-controller \
	  --namespace $(NAMESPACE) --create-namespace $(HELM_ARGS)

undeploy: ## uninstall them; the CRD and every Hook stay
	$(HELM) uninstall kagent-hook-controller --namespace $(NAMESPACE) --ignore-not-found
	$(HELM) uninstall kagent-hook-crds --namespace $(NAMESPACE) --ignore-not-found

crd: install ## write the CRD from the models in khook/api, into crds/ and the chart
	$(BIN)/python -m khook.api.crd > crds/kagent.dev_hooks.yaml.new
	@mv crds/kagent.dev_hooks.yaml.new crds/kagent.dev_hooks.yaml
	@cp crds/kagent.dev_hooks.yaml charts/kagent-hook-crds/files/kagent.dev_hooks.yaml

docs: install ## write what the documents say of models, settings, metrics and log keys
	$(BIN)/python -m reference

lock: .uv/bin/uv ## resolve the packages afresh, with hashes
	.uv/bin/uv pip compile pyproject.toml --universal --generate-hashes --python-version 3.11 --no-header \
	  --quiet --upgrade -o requirements/run.lock
	.uv/bin/uv pip compile pyproject.toml --group dev --allow-unsafe --universal --generate-hashes \
	  --python-version 3.11 --no-header --quiet --upgrade -o requirements/dev.lock
	for group in build sbom audit; do \
	  .uv/bin/uv pip compile --group $$group --allow-unsafe --universal --generate-hashes \
	    --python-version 3.11 --no-header --quiet --upgrade -o requirements/$$group.lock || exit 1; done

.uv/bin/uv:
	$(PYTHON) -m venv .uv
	.uv/bin/python -m pip install --quiet --disable-pip-version-check uv==$(UV_VERSION)

clean: ## remove all that these targets made
	rm -rf $(VENV) $(ENVTEST) .uv .image .sbom .audit $(RUN_VENV) dist build .coverage .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache $(SIM_RESULT)
