# Everything here works on a fresh clone with Go and python3; what else is needed is fetched, at pinned versions, into
# .cache. `go build ./...` and `go test ./...` need none of it.

# The file VERSION names the last release, and the commit that changed it is that release. What comes after says how many
# commits later: v0.1.0+12.g4bc730101, with .dirty if something is not committed, v0.1.0+unknown without git.
VERSION ?= v$(shell cat VERSION)$(shell release=$$(git log -1 --format=%h --abbrev=9 -- VERSION 2>/dev/null); \
	if [ -z "$$release" ]; then echo +unknown; else \
	here=$$(git describe --always --abbrev=9 --dirty=.dirty --exclude='*'); \
	[ "$$here" = "$$release" ] || echo "+$$(git rev-list --count "$$release"..HEAD).g$$here"; fi)
GO          ?= go
# The toolchain that go.mod names, also where the environment says "local": it mends what the installed one may not.
export GOTOOLCHAIN := $(shell sed -n 's/^toolchain //p' go.mod)
PYTHON3     ?= python3

UV_VERSION            := 0.13.8
GOLANGCI_LINT_VERSION := v2.15.0
GOTESTSUM_VERSION     := v1.13.0
GOVULNCHECK_VERSION   := v1.9.0
VULNDB_VERSION        := v0.0.0-20261105234957-e22db6528018

CACHE         := $(CURDIR)/.cache
POSTGRES      := test/postgres.sh
PYTHON        := $(CACHE)/python/bin/python
GOLANGCI_LINT := $(CACHE)/bin/golangci-lint-$(GOLANGCI_LINT_VERSION)
GOTESTSUM     := $(CACHE)/bin/gotestsum-$(GOTESTSUM_VERSION)
GOVULNCHECK   := $(CACHE)/bin/govulncheck-$(GOVULNCHECK_VERSION)
VULNDB        := $(CACHE)/vulndb/$(VULNDB_VERSION)

# A uv on PATH is used as it is; where there is none, one is installed beside the environment it makes.
UV := $(shell uv --version >/dev/null 2>&1 && command -v uv || echo $(CACHE)/uv/bin/uv)

# What the race detector watches: every package that starts goroutines or has what they share (found in its sources, so that none is
# forgotten), with simulator and kills at their short length.
RACE = ./engine/... $(shell grep -rlE --include='*.go' --exclude='*_test.go' --exclude-dir=idl --exclude-dir='.?*' --exclude-dir=bench \
	'^[[:space:]]*go [a-z]|\.Go\>|"sync"|"sync/atomic"' . | xargs -n 1 dirname | sort -u)

FUZZTIME ?= 20s

.DEFAULT_GOAL := help
.PHONY: help build test test-go test-race test-python hostile chromium mutations seeds lint vulnerabilities format fuzz demo generate python postgres lock clean

help: ## show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-15s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

build: ## bin/aloft
	CGO_ENABLED=0 $(GO) build -trimpath -ldflags '-s -w -X main.version=$(VERSION)' -o bin/aloft ./cmd/aloft

test: test-go test-race test-python ## everything: vet, Go tests with nothing skipped, race run, darwin build, end to end

test-go: python $(GOTESTSUM) postgres
	$(GO) vet ./...
	GOOS=darwin GOARCH=arm64 CGO_ENABLED=0 $(GO) build ./...
	trap '$(POSTGRES) stop' EXIT && url=$$($(POSTGRES) start) && \
	ALOFT_TEST_POSTGRES=$$url ALOFT_TEST_PYTHON=$(PYTHON) ALOFT_TEST_REGENERATE=1 \
		$(GOTESTSUM) --format pkgname-and-test-fails --jsonfile $(CACHE)/go-test.json -- -timeout 30m ./...
	@skipped=$$(grep '"Action":"skip"' $(CACHE)/go-test.json | grep -o '"Package":"[^"]*","Test":"[^"]*"'); \
	if [ -n "$$CI" ] && [ -n "$$skipped" ]; then printf 'make test: these tests were skipped:\n%s\n' "$$skipped"; exit 1; fi

test-race:
	CGO_ENABLED=1 $(GO) test -race -short $(RACE)

mutations: ## plant bugs into the engine, one by one: the simulator must find each
	$(GO) test ./engine/simulation -run Planted -mutations -v -count=1 -timeout 60m

SEEDS ?= 100000
FIRST ?= 1
seeds: ## SEEDS (100,000) worlds of the simulator from FIRST (1) on
	nice -n 19 $(GO) test ./engine/simulation -run Seeds -seeds=$(SEEDS) -first=$(FIRST) -v -count=1 -timeout 24h

test-python: python build
	ALOFT_TEST_BINARY=$(CURDIR)/bin/aloft PATH="$(dir $(PYTHON)):$$PATH" $(PYTHON) -m pytest test --ignore=test/hostile

hostile: python build chromium ## what attackers try, against the built binary, in a memory group where there are any
	ALOFT_TEST_BINARY=$(CURDIR)/bin/aloft PATH="$(dir $(PYTHON)):$$PATH" test/hostile/in_group.sh $(PYTHON) -m pytest test/hostile

lint: $(GOLANGCI_LINT) ## golangci-lint as .golangci.yaml says
	$(GOLANGCI_LINT) run

vulnerabilities: $(GOVULNCHECK) $(VULNDB) ## known ones that bin/aloft can reach, but for those listed in test/vulnerabilities.txt
	$(GOVULNCHECK) -db file://$(VULNDB) -format json ./cmd/aloft >$(CACHE)/vulnerabilities.json
	$(PYTHON3) test/vulndb.py check test/vulnerabilities.txt <$(CACHE)/vulnerabilities.json

format: $(GOLANGCI_LINT) ## gofmt and import order
	$(GOLANGCI_LINT) fmt

fuzz: ## every fuzz target for FUZZTIME (20s)
	@grep -rl --include='*_test.go' '^func Fuzz' . | while read -r file; do \
		for target in $$(grep -o '^func Fuzz[A-Za-z0-9_]*' $$file | cut -d' ' -f2); do \
			$(GO) test -run '^$$' -fuzz "^$$target\$$" -fuzztime $(FUZZTIME) ./$$(dirname $$file) || exit 1; \
		done; \
	done

demo: build python ## a real pipeline through a real client, on this machine
	bin/aloft demo --python $(PYTHON)

generate: ## the Go code of the protocol
	$(GO) generate ./idl

python: $(CACHE)/python/ready ## the Python environment of the demo and the tests, in .cache/python

chromium: ## a browser for the tests of foreign pages: where there is none, Debian's package is installed
	@command -v chromium >/dev/null || command -v chromium-browser >/dev/null || { command -v apt-get >/dev/null || { echo 'missing: chromium (and no apt-get to install it with)'; exit 1; }; \
		root=; [ "$$(id -u)" = 0 ] || root=sudo; $$root apt-get update -qq && DEBIAN_FRONTEND=noninteractive $$root apt-get install -y -qq --no-install-recommends chromium >/dev/null; }

postgres: ## a PostgreSQL for the tests: where there is none, Debian's package is installed
	$(POSTGRES) install

lock: $(UV) ## newest versions of everything the Python environment holds, into examples/constraints.txt
	$(UV) pip compile --quiet --universal --upgrade --python-version 3.10 --no-annotate \
		--custom-compile-command 'make lock' --output-file examples/constraints.txt test/requirements.txt

clean: ## remove what was built and fetched
	rm -rf bin .cache

# Bytecode is compiled once here, so that the first task does not pay for it. The interpreter is the machine's own.
$(CACHE)/python/ready: examples/requirements.txt examples/constraints.txt test/requirements.txt | $(UV)
	rm -rf $(CACHE)/python
	$(UV) venv --quiet --python-preference only-system --python "$$(command -v $(PYTHON3))" $(CACHE)/python
	$(UV) pip install --quiet --compile-bytecode --python $(PYTHON) \
		--constraint examples/constraints.txt --requirement test/requirements.txt
	touch $@

$(CACHE)/uv/bin/uv:
	$(PYTHON3) -m venv $(CACHE)/uv
	$(CACHE)/uv/bin/python -m pip install --quiet --disable-pip-version-check uv==$(UV_VERSION)

# Tools are built by their own go.mod, so that their modules are not ours.
$(GOLANGCI_LINT):
	GOFLAGS= GOBIN=$(CACHE)/bin $(GO) install github.com/golangci/golangci-lint/v2/cmd/golangci-lint@$(GOLANGCI_LINT_VERSION)
	mv $(CACHE)/bin/golangci-lint $@

$(GOTESTSUM):
	GOFLAGS= GOBIN=$(CACHE)/bin $(GO) install gotest.tools/gotestsum@$(GOTESTSUM_VERSION)
	mv $(CACHE)/bin/gotestsum $@

$(GOVULNCHECK):
	GOFLAGS= GOBIN=$(CACHE)/bin $(GO) install golang.org/x/vuln/cmd/govulncheck@$(GOVULNCHECK_VERSION)
	mv $(CACHE)/bin/govulncheck $@

# The database is a Go module, which the module proxy has and go.sum's own database vouches for: no other download is needed.
$(VULNDB):
	module=$$($(GO) mod download -json golang.org/x/vulndb@$(VULNDB_VERSION) | sed -n 's/^\t"Dir": "\(.*\)",*$$/\1/p') && \
	rm -rf $@.new && $(PYTHON3) test/vulndb.py make "$$module" $@.new && mv $@.new $@
