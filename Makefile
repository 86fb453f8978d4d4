# Every target is what CI and you both type. What needs more than three lines is Go code.
GO ?= go
STATICCHECK = $(GO) run honnef.co/go/tools/cmd/staticcheck@2026.2.2

.PHONY: build
build: ## bin/proxyd and bin/hactl
	$(GO) build -trimpath -o bin/ ./cmd/proxyd ./cmd/hactl

.PHONY: test
test: check unit ## everything CI runs

.PHONY: check
check:
	@test -z "$$(gofmt -l cmd internal)" || { gofmt -l cmd internal; exit 1; }
	$(GO) vet ./...
	$(STATICCHECK) ./...

.PHONY: unit
unit:
	$(GO) test -race ./...
