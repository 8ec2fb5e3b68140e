# Our server beside Debian's.
.PHONY: bench-compare readme-figures

bench-compare: deps ## measure our server beside Debian's under one load (ten minutes, as root)
	CGO_ENABLED=0 $(GO) test -count=1 -timeout 30m -run 'TestCompare$$' -v ./internal/bench -args -compare testdata/results.json

readme-figures: ## put what bench-compare measured into the README
	$(GO) test -count=1 -run 'TestFigures$$' ./internal/bench -args -update
