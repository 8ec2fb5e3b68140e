# The registry's long tests.
CHECK += model

.PHONY: model model-nightly crash bench-registry

model: ## 200,000 random steps against the naive statement of what may be served
	$(GO) test -run TestPromise -timeout 20m ./internal/registry -v -args -steps 200000

model-nightly: ## 10 million of them (hours)
	$(GO) test -run TestPromise -timeout 12h ./internal/registry -v -args -steps 10000000

crash: ## kill -9 at 500 random moments, and at every write (minutes)
	$(GO) test -run TestCrash -timeout 30m ./internal/store -v -args -kills 500 -thorough
