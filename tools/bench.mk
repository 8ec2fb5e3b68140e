# Our server compared with Debian's.
.PHONY: bench-compare readme-figures

# With priority, both servers and the load are disturbed less by what else is running.
bench-compare: deps ## measure our server and Debian's under the same load (ten minutes, as root)
	CGO_ENABLED=0 nice -n -10 $(GO) test -count=1 -timeout 30m -run 'TestCompare$$' -v ./internal/bench -args -compare testdata/results.json

readme-figures: ## update the README with what bench-compare measured
	$(GO) test -count=1 -run 'TestFigures$$' ./internal/bench -args -update
