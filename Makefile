# Mandos-in-Go. `make help` lists the targets.

VERSION  ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo unknown)
FUZZTIME ?= 10s
TORTURE  ?= 30m
TORTURE_SEED ?= random
PREFIX   ?= /usr/local
DESTDIR  ?=

GO       := go
COMMANDS := $(notdir $(wildcard cmd/*))
UNIT      = $(shell $(GO) list ./... | grep -v /internal/interop)
BUBBLES   = $(shell $(GO) list -f '{{.ImportPath}} {{.TestImports}} {{.XTestImports}}' ./... | grep testing/synctest | cut -d' ' -f1)
LDFLAGS  := -s -w -X main.version=$(VERSION)

# What `make check` runs, in this order. The fragments in tools/*.mk append to it.
CHECK := deps lint race fuzz-short demo interop check-system

.DEFAULT_GOAL := build
.DELETE_ON_ERROR:
.PHONY: help all build demo check check-system check-examples test race fuzz fuzz-short fuzz-coverage lint interop interop-old torture bench bogo deps html clean no-old-server install activate uninstall

help: ## list the targets
	@grep -hE '^[a-z -]+:.*##' $(MAKEFILE_LIST) | sort | sed -E 's/^([a-z -]+):.*## */\1\t/' | expand -t 16

all build: ## build the commands, as static binaries, in build/
	@mkdir -p build
	CGO_ENABLED=0 $(GO) build -trimpath -buildvcs=false -ldflags '$(LDFLAGS)' -o build/ ./cmd/...

demo: build ## see it work: a server, a client, a password, and a stranger who gets nothing
	@tools/demo.sh build

check: ## everything that CI runs, with the duration of each stage
	@MAKE='$(MAKE)' tools/stages.sh $(CHECK)

test: ## run the unit tests
	$(GO) test $(UNIT)

# A program built with the race detector sleeps for a second when it exits, and
# these tests start some hundred programs. lint runs go vet. Tests that use
# testing/synctest run on one processor: on several, timers of one bubble that
# are due at the same moment occasionally crash the detector itself
# (go.dev/issue/78156). It finds races on one processor as well.
race: export GORACE := atexit_sleep_ms=10 $(GORACE)
race: export CGO_ENABLED := 1
race: ## run the unit tests with the race detector
	failed=0; \
	$(GO) test -race -vet=off -timeout 30m $(filter-out $(BUBBLES),$(UNIT)) || failed=1; \
	$(GO) test -race -vet=off -timeout 30m -cpu 1 $(BUBBLES) || failed=1; \
	exit $$failed

fuzz: ## run every fuzz function for FUZZTIME (10s)
	@FUZZTIME=$(FUZZTIME) tools/fuzz.sh

fuzz-coverage: ## update the list of fuzzers in SECURITY.md, with their coverage (minutes)
	tools/fuzz-coverage.py

# By count, not by time: when its time is up, go test -fuzz sometimes fails with
# "context deadline exceeded" although it has found nothing.
fuzz-short:
	@FUZZTIME=1000x tools/fuzz.sh

lint: ## run gofmt, go vet, staticcheck, mandoc and shellcheck; check that the mutants fit the code
	@test -z "$$(gofmt -l .)" || { echo 'gofmt would change:'; gofmt -l .; exit 1; }
	$(GO) vet ./...
	$(GO) tool -modfile=tools/go.mod staticcheck ./...
	mandoc -T lint -W warning man/*.[1-8]
	tools/mutants.py --dry-run
	if [ "$$CI" = true ] || command -v shellcheck >/dev/null; then shellcheck tools/*.sh tools/packages/*.sh tools/packages/deb/p* tools/packages/rpm/* .ci/run; fi

interop: ## test our programs against Debian's, in every pairing
	$(GO) test -count=1 -timeout 20m ./internal/interop/...

check-system: packages ## boot hosts with systemd 252 and 257, install, and test from outside (as root)
	MANDOS_LAB=1 CGO_ENABLED=0 $(GO) test -count=1 -timeout 40m ./internal/lab

check-examples: packages ## run the examples in the README and the manual pages on booted hosts (as root)
	MANDOS_LAB=1 CGO_ENABLED=0 $(GO) test -count=1 -timeout 20m -run 'TestExamples$$' ./internal/lab

torture: build ## inject faults of all kinds on booted hosts (as root): TORTURE=30m TORTURE_SEED=random
	MANDOS_LAB=1 TORTURE=$(TORTURE) TORTURE_SEED=$(TORTURE_SEED) CGO_ENABLED=0 $(GO) test -count=1 -timeout 0 -v -run 'TestTorture$$' ./internal/lab

bench: ## run the benchmarks
	$(GO) test -run '^$$' -bench . -benchmem $(UNIT)

bogo: ## run BoringSSL's TLS tests: BOGO_DIR is its ssl/test/runner, with runner.test built
	@test -x "$(BOGO_DIR)/runner.test" || { echo 'set BOGO_DIR=…/ssl/test/runner, with the runner built there as runner.test (go test -c)'; exit 1; }
	BOGO_RUNNER="$(abspath $(BOGO_DIR))/runner.test" $(GO) test -count=1 -run 'TestBogo$$' -v ./internal/keytls

interop-old: ## test our server against GnuTLS 3.3 to 3.5, installed in the prefix OLD_GNUTLS
	@test -n "$(OLD_GNUTLS)" || { echo 'set OLD_GNUTLS=…, the prefix where GnuTLS 3.3 to 3.5 is installed'; exit 1; }
	OLD_GNUTLS="$(abspath $(OLD_GNUTLS))" $(GO) test -count=1 -run 'TestOldGnuTLS$$' -v ./internal/interop

deps: ## install what the tests need (as root), or say what to install
	@tools/deps.sh

html: ## render the manual pages in build/html
	@mkdir -p build/html
	cd man && for p in $(PAGES); do \
	  mandoc -T html -O man='%N.%S.html;https://manpages.debian.org/%N.%S' $$p >../build/html/$$p.html || exit; done

clean: ## remove build/
	rm -rf build

# Where things go. systemd, sysusers and tmpfiles also look below /usr/local/lib,
# but dbus-daemon has no such second place. With PREFIX=/usr, ask systemd.
ifeq ($(PREFIX),/usr)
sddir = $(or $(shell pkg-config --variable=$(1) systemd 2>/dev/null),$(2))
UNITDIR     ?= $(call sddir,systemd_system_unit_dir,/usr/lib/systemd/system)
SYSUSERSDIR ?= $(call sddir,sysusers_dir,/usr/lib/sysusers.d)
TMPFILESDIR ?= $(call sddir,tmpfiles_dir,/usr/lib/tmpfiles.d)
CATALOGDIR  ?= $(call sddir,systemd_util_dir,/usr/lib/systemd)/catalog
GENDIR      ?= $(call sddir,systemd_system_generator_dir,/usr/lib/systemd/system-generators)
DBUSDIR     ?= /usr/share/dbus-1/system.d
else
UNITDIR     ?= $(PREFIX)/lib/systemd/system
SYSUSERSDIR ?= $(PREFIX)/lib/sysusers.d
TMPFILESDIR ?= $(PREFIX)/lib/tmpfiles.d
CATALOGDIR  ?= $(PREFIX)/lib/systemd/catalog
GENDIR      ?= $(PREFIX)/lib/systemd/system-generators
DBUSDIR     ?= /etc/dbus-1/system.d
endif
SBINDIR     ?= $(PREFIX)/sbin
MANDIR      ?= $(PREFIX)/share/man
DOCDIR      ?= $(PREFIX)/share/doc/mandos
BASHDIR     ?= $(PREFIX)/share/bash-completion/completions
ZSHDIR      ?= $(PREFIX)/share/zsh/site-functions
FISHDIR     ?= $(PREFIX)/share/fish/vendor_completions.d

GEN   = mandos-socket-generator
SBIN  = $(filter-out $(GEN),$(COMMANDS))
UNITS = $(notdir $(wildcard systemd/*.socket systemd/*.service systemd/*.slice))
PAGES = $(notdir $(wildcard man/*.[1-8]))
COMPLETIONS = $(BASHDIR)/mandos-ctl $(ZSHDIR)/_mandos-ctl $(FISHDIR)/mandos-ctl.fish

# Debian's server is a script. It saves who is disabled only when it is stopped
# the way its own unit says, and our unit would hide that one.
OLDSERVER ?= /usr/sbin/mandos
no-old-server:
	@test -n '$(DESTDIR)' || ! head -c 2 $(OLDSERVER) 2>/dev/null | grep -q '#!' || { \
	  echo "$(OLDSERVER) is Debian's: install a package over it (make packages), or remove it first (apt remove mandos); its state stays"; exit 1; }

# Builds nothing, so that it can be run as root and without Go.
install: no-old-server ## after `make`: install into PREFIX (/usr/local), below DESTDIR
	@for c in $(COMMANDS); do test -x build/$$c || { echo "build/$$c is missing: run make first"; exit 1; }; done
	install -d $(addprefix $(DESTDIR),$(SBINDIR) $(UNITDIR) $(GENDIR) $(SYSUSERSDIR) $(TMPFILESDIR) $(CATALOGDIR) $(DBUSDIR) $(DOCDIR) $(BASHDIR) $(ZSHDIR) $(FISHDIR))
	install -m 755 $(SBIN:%=build/%) $(DESTDIR)$(SBINDIR)
	install -m 755 build/$(GEN) $(DESTDIR)$(GENDIR)
	for u in $(UNITS); do \
	  sed -e 's,/usr/sbin/mandos,$(SBINDIR)/mandos,' systemd/$$u >$(DESTDIR)$(UNITDIR)/$$u && \
	  chmod 644 $(DESTDIR)$(UNITDIR)/$$u || exit; done
	install -m 644 sysusers.d/mandos.conf $(DESTDIR)$(SYSUSERSDIR)
	install -m 644 tmpfiles.d/mandos.conf $(DESTDIR)$(TMPFILESDIR)
	install -m 644 systemd/mandos.catalog $(DESTDIR)$(CATALOGDIR)
	install -m 644 dbus-1/mandos.conf $(DESTDIR)$(DBUSDIR)
	install -m 644 systemd/examples/* man/examples/* $(DESTDIR)$(DOCDIR)
	build/mandos-ctl --completion=bash >$(DESTDIR)$(BASHDIR)/mandos-ctl
	build/mandos-ctl --completion=zsh >$(DESTDIR)$(ZSHDIR)/_mandos-ctl
	build/mandos-ctl --completion=fish >$(DESTDIR)$(FISHDIR)/mandos-ctl.fish
	chmod 644 $(COMPLETIONS:%=$(DESTDIR)%)
	for p in $(PAGES); do install -D -m 644 man/$$p $(DESTDIR)$(MANDIR)/man$${p##*.}/$$p || exit; done
	@$(if $(DESTDIR),,$(MAKE) --no-print-directory activate)

# What a package's script would do, except enabling, which is left to the operator.
activate:
	systemd-sysusers $(SYSUSERSDIR)/mandos.conf
	systemd-tmpfiles --create $(TMPFILESDIR)/mandos.conf
	journalctl --update-catalog
	if test -d /run/systemd/system; then systemctl daemon-reload; systemctl reload dbus.service; fi

uninstall: ## remove what install installed; keep /etc/mandos and the state
	@$(if $(DESTDIR),,if test -d /run/systemd/system; then systemctl disable --now $(filter-out %.slice,$(UNITS)); fi)
	rm -f $(SBIN:%=$(DESTDIR)$(SBINDIR)/%) $(DESTDIR)$(GENDIR)/$(GEN)
	rm -f $(UNITS:%=$(DESTDIR)$(UNITDIR)/%)
	rm -f $(addprefix $(DESTDIR),$(SYSUSERSDIR)/mandos.conf $(TMPFILESDIR)/mandos.conf $(CATALOGDIR)/mandos.catalog $(DBUSDIR)/mandos.conf)
	for p in $(PAGES); do rm -f $(DESTDIR)$(MANDIR)/man$${p##*.}/$$p; done
	rm -f $(COMPLETIONS:%=$(DESTDIR)%)
	rm -rf $(DESTDIR)$(DOCDIR)
	@$(if $(DESTDIR),,if test -d /run/systemd/system; then systemctl daemon-reload; journalctl --update-catalog; fi)

-include tools/*.mk
