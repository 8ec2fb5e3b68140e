# Mandos-in-Go. `make help` lists the targets.

VERSION  ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo unknown)
FUZZTIME ?= 10s
PREFIX   ?= /usr/local
DESTDIR  ?=

GO       := go
COMMANDS := $(notdir $(wildcard cmd/*))
UNIT      = $(shell $(GO) list ./... | grep -v /internal/interop)
LDFLAGS  := -s -w -X main.version=$(VERSION)

# What `make check` runs, in this order. Fragments in tools/*.mk add theirs.
CHECK := deps lint race fuzz-short demo interop

.DEFAULT_GOAL := build
.DELETE_ON_ERROR:
.PHONY: help all build demo check test race fuzz fuzz-short lint interop bench deps clean install uninstall

help: ## list the targets
	@grep -hE '^[a-z -]+:.*##' $(MAKEFILE_LIST) | sort | sed -E 's/^([a-z -]+):.*## */\1\t/' | expand -t 16

all build: ## build each command, static, into build/
	@mkdir -p build
	CGO_ENABLED=0 $(GO) build -trimpath -buildvcs=false -ldflags '$(LDFLAGS)' -o build/ ./cmd/...

demo: build ## see it work: a server, a client, a password, and a stranger who gets nothing
	@tools/demo.sh build

check: ## all that CI runs, with the duration of each stage
	@MAKE='$(MAKE)' tools/stages.sh $(CHECK)

test: ## the unit tests
	$(GO) test $(UNIT)

race: ## the unit tests with the race detector
	CGO_ENABLED=1 $(GO) test -race $(UNIT)

fuzz: ## run every fuzz function for FUZZTIME (10s)
	@FUZZTIME=$(FUZZTIME) tools/fuzz.sh

fuzz-short:
	@FUZZTIME=3s tools/fuzz.sh

lint: ## gofmt, go vet, staticcheck
	@test -z "$$(gofmt -l .)" || { echo 'gofmt would change:'; gofmt -l .; exit 1; }
	$(GO) vet ./...
	$(GO) tool -modfile=tools/go.mod staticcheck ./...

interop: ## our programs against Debian's, in every pairing
	$(GO) test -count=1 ./internal/interop/...

bench: ## run the benchmarks
	$(GO) test -run '^$$' -bench . -benchmem $(UNIT)

deps: ## install what the tests need (as root), or say what to install
	@tools/deps.sh

clean: ## remove what was built
	rm -rf build

install: build ## install the commands into PREFIX (/usr/local), below DESTDIR
	install -d $(DESTDIR)$(PREFIX)/sbin
	install -m 755 $(COMMANDS:%=build/%) $(DESTDIR)$(PREFIX)/sbin

uninstall: ## remove what install put there
	rm -f $(COMMANDS:%=$(DESTDIR)$(PREFIX)/sbin/%)

-include tools/*.mk
