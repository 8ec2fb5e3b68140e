CHECK += memory

.PHONY: memory

memory: ## check, with Go's runtimesecret experiment, that no session key is left in memory
	GOEXPERIMENT=runtimesecret $(GO) test -count=1 -run 'TestNoKeysLeft|TestRFC8448' ./internal/keytls/...
