# Every target is what CI and you both type. What needs more than three lines is Go code.
GO ?= go
STATICCHECK = $(GO) run honnef.co/go/tools/cmd/staticcheck@v0.8.2
VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
BUILD = $(GO) build -trimpath -ldflags '-s -w -X main.version=$(VERSION)'
PREFIX ?= /usr/local

.PHONY: build
build: ## bin/proxyd and bin/hactl
	CGO_ENABLED=0 $(BUILD) -o bin/ ./cmd/proxyd ./cmd/hactl

.PHONY: test
test: check units alerts unit allocs worlds ## everything CI runs

.PHONY: check
check:
	@test -z "$$(gofmt -l cmd internal deploy)" || { gofmt -l cmd internal deploy; exit 1; }
	$(GO) vet ./...
	$(STATICCHECK) ./...

.PHONY: units
units: build ## the systemd unit, where systemd is there to judge it
	@mkdir -p build && sed 's,/usr/local/s*bin/,$(CURDIR)/bin/,' deploy/systemd/proxyd.service > build/proxyd.service
	@if command -v systemd-analyze >/dev/null; then systemd-analyze verify --man=no build/proxyd.service; else echo 'no systemd-analyze here: the unit is not verified'; fi

.PHONY: alerts
alerts: ## the alert rules, played by promtool, which is fetched if it is not there
	@promtool=$$(deploy/prometheus/promtool.sh) && $$promtool check rules deploy/prometheus/alerts.yml && $$promtool test rules deploy/prometheus/alerts_test.yml deploy/prometheus/alerts_day_test.yml

.PHONY: unit
unit:
	$(GO) test -race ./...

W ?= 10000
.PHONY: worlds
worlds: ## W random worlds of the election, and every order of a few events, without the race detector
	$(GO) test -run 'TestOneHolder|TestEveryOrder' ./internal/ha/election -worlds $(W) -depth 7

.PHONY: allocs
allocs: ## what a plain request allocates in all, without the race detector, which has caches lose what they hold
	$(GO) test -run 'TestWholeAllocatesNothing' ./internal/dataplane/proxy

T ?= 20s
.PHONY: fuzz
fuzz: ## every fuzz target for T
	@for p in $$($(GO) list ./...); do for f in $$($(GO) test -list '^Fuzz' $$p | grep '^Fuzz'); do $(GO) test $$p -run '^$$' -fuzz "^$$f$$" -fuzztime $(T) || exit 1; done; done

.PHONY: vuln
vuln: ## known vulnerabilities in what is called of modules and the standard library (asks for the list of them)
	$(GO) run golang.org/x/vuln/cmd/govulncheck@v1.9.0 ./...

.PHONY: sbom
sbom: build ## bin/*.cdx.json: what the programs are made of (CycloneDX)
	@for b in proxyd hactl; do $(GO) run github.com/CycloneDX/cyclonedx-gomod/cmd/cyclonedx-gomod@v1.10.0 bin -json -output bin/$$b.cdx.json bin/$$b || exit 1; done

.PHONY: reproducible
reproducible: ## the commit at hand makes the same programs wherever it lies
	@d=$$(mktemp -d) && trap 'rm -rf '$$d EXIT && for c in a b/c; do git clone -q . $$d/$$c && $(MAKE) -s -C $$d/$$c build VERSION=$(VERSION) || exit 1; done && \
	for p in proxyd hactl; do cmp $$d/a/bin/$$p $$d/b/c/bin/$$p || exit 1; done && (cd $$d/a/bin && sha256sum proxyd hactl)

.PHONY: install
install: build
	install -D -m 0755 bin/proxyd $(DESTDIR)$(PREFIX)/sbin/proxyd && install -D -m 0755 bin/hactl $(DESTDIR)$(PREFIX)/bin/hactl
	install -D -m 0644 deploy/systemd/proxyd.service $(DESTDIR)/etc/systemd/system/proxyd.service
	install -D -m 0644 deploy/systemd/proxyd.sysusers.conf $(DESTDIR)/usr/lib/sysusers.d/proxyd.conf
	@if [ -z "$(DESTDIR)" ] && command -v systemd-sysusers >/dev/null; then systemd-sysusers; systemctl daemon-reload 2>/dev/null || true; fi

.PHONY: lab
lab: build ## bin/lab, which plays demo, drill and bench, and bin/proxyd-next, which pretends to be the next release
	CGO_ENABLED=0 $(BUILD) -o bin/ ./cmd/lab
	CGO_ENABLED=0 $(GO) build -trimpath -ldflags '-s -w -X main.version=next -X main.ahead=1' -o bin/proxyd-next ./cmd/proxyd

.PHONY: demo
demo: lab ## a pair on this machine, live
	@bin/lab demo

N ?= 5
.PHONY: drill
drill: lab ## every fault N times; only=kill,cut for some, args=--json for more
	@bin/lab drill -n $(N) $(if $(only),--only $(only)) $(args)

.PHONY: soak
soak: T = 1h
soak: lab ## faults in random order for T
	@bin/lab soak --for $(T) $(args)

.PHONY: bench
bench: lab ## beside nginx, HAProxy, Caddy, Traefik and keepalived (root)
	@bin/lab bench $(args)
