SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

LINT_VERSION := v2.15.0
# A linter built by an older Go than the module asks for refuses to work, hence Go's version in the name.
LINT := .local/bin/golangci-lint-$(LINT_VERSION)-$(shell go env GOVERSION)

# The tests behind the build tag surroundings, which share their package with others.
SURROUNDINGS := ^Test(SentinelFailover|RedisOverTLS|PgBouncer|PostgresOverTLS|RestoredBackup|RestoredWithinADay)$$

.PHONY: help demo bench bench-fleet test torture mutants surroundings check lint fmt gofmt vet build race services-stop clean

help: ## this list
	@while IFS= read -r line; do \
	  if [[ $$line =~ ^([a-z-]+):.*##\ (.*)$$ ]]; then \
	    printf '  make %-14s %s\n' "$${BASH_REMATCH[1]}" "$${BASH_REMATCH[2]}"; \
	  fi; \
	done <Makefile

demo: build ## the whole system against simulated ERPs, until Ctrl-C; ONCE=1 ends by itself
	@exports=$$(scripts/services start demo); eval "$$exports"
	trap 'scripts/services stop demo' EXIT
	bin/demo

bench: build ## the figures of docs/performance.md; ERP=netsuite chooses the ERP, CUSTOMERS='20000 100000' the sizes
	@exports=$$(scripts/services start demo); eval "$$exports"
	trap 'scripts/services stop demo' EXIT
	bin/bench

bench-fleet: build ## 10,000 connections and a huge first load beside them; CONNECTIONS=1000 HUGE=100000 MINUTES=1 for less
	@exports=$$(scripts/services start demo); eval "$$exports"
	trap 'scripts/services stop demo' EXIT
	bin/bench fleet

test: race ## all tests with the race detector; DATABASE_URL and REDIS_URL are used where set
	@exports=$$(scripts/services start test); eval "$$exports"
	go test -race $$(go list ./... | grep -v '/internal/demo$$')
	go test -race ./internal/demo # by itself: its programs need the cores that compiling takes

surroundings: ## real Sentinels, PgBouncer, TLS and restored backups, with the real programs; installs what is missing as root
	@for program in redis-sentinel pgbouncer; do
	  if ! command -v $$program /usr/sbin/$$program >/dev/null; then scripts/install $$program; fi
	done
	exports=$$(scripts/services start test); eval "$$exports"
	go test -count=1 -tags surroundings -run '$(SURROUNDINGS)' ./internal/demo

torture: ## drawn faults for MINUTES (2), or RUNS of them; SEED=n begins there, CLOCKS=1 has wrong clocks too; docs/proof.md
	@exports=$$(scripts/services start test); eval "$$exports"
	mkdir -p .local
	go test -c -o .local/torture.test ./internal/torture
	cd internal/torture
	../../.local/torture.test -test.run '^TestCampaign$$' -seed $(or $(SEED),0) -runs $(or $(RUNS),0) \
	  -minutes $(or $(MINUTES),$(if $(RUNS),0,2)) $(if $(CLOCKS),-clocks)

mutants: ## each rule broken on purpose, and the test that notices; ONLY='lease' chooses by name
	@exports=$$(scripts/services start test); eval "$$exports"
	go run ./cmd/mutants

check: gofmt vet lint test torture ## what CI runs

lint: $(LINT) ## golangci-lint
	$(LINT) run ./...

fmt: ## format the Go files
	gofmt -w .

build: ## the programs, into bin/
	go build -o bin/ ./cmd/...

services-stop: ## end the private Postgres and Redis servers
	scripts/services stop demo
	scripts/services stop test

clean: ## end the private servers and delete their data, the programs and the linter
	scripts/services remove demo
	scripts/services remove test
	rm -rf bin .local

gofmt:
	@unformatted=$$(gofmt -l .)
	if [[ -n $$unformatted ]]; then printf 'not formatted, run make fmt:\n%s\n' "$$unformatted" >&2; exit 1; fi

vet:
	go vet -tags surroundings ./...

# The race detector needs a C compiler and its headers.
race:
	@if ! $$(go env CC) -include stdlib.h -fsyntax-only -xc /dev/null 2>/dev/null; then scripts/install gcc libc6-dev; fi

$(LINT):
	@mkdir -p $(@D)
	rm -f $(@D)/golangci-lint*
	GOBIN=$(CURDIR)/$(@D) GOFLAGS= go install github.com/golangci/golangci-lint/v2/cmd/golangci-lint@$(LINT_VERSION)
	mv $(@D)/golangci-lint $@

.ONESHELL:
