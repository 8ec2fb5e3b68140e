# Our server beside Debian's.
.PHONY: bench-compare readme-figures

# What else goes on disturbs less what has priority: both servers and the load.
bench-compare: deps ## measure our server beside Debian's under one load (ten minutes, as root)
	CGO_ENABLED=0 nice -n -10 $(GO) test -count=1 -timeout 30m -run 'TestCompare$$' -v ./internal/bench -args -compare testdata/results.json

readme-figures: ## put what bench-compare measured into the README
	$(GO) test -count=1 -run 'TestFigures$$' ./internal/bench -args -update
