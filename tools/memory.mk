CHECK += memory

.PHONY: memory

memory: ## with Go's experiment that erases what secrets leave in memory: no key of a session is found after it
	GOEXPERIMENT=runtimesecret $(GO) test -count=1 -run 'TestNoKeysLeft|TestRFC8448' ./internal/keytls/...
