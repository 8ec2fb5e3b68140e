# The registry's long tests.
CHECK += model

.PHONY: model model-nightly mutants crash bench-registry

model: ## check 200,000 random steps, and all short sequences, against a naive model of what may be served
	$(GO) test -run 'TestPromise|TestAllSequences' -timeout 20m ./internal/registry -v -args -steps 200000 -length 4

model-nightly: ## `make model` with 10 million steps and longer sequences (hours)
	$(GO) test -run 'TestPromise|TestAllSequences' -timeout 12h ./internal/registry -v -args -steps 10000000 -length 5

mutants: ## break each rule in turn, and check that a test notices (minutes)
	tools/mutants.py >internal/registry/testdata/mutants.txt

crash: ## kill -9 at 500 random moments and at every write (minutes)
	$(GO) test -run TestCrash -timeout 30m ./internal/store -v -args -kills 500 -thorough
