# Attacks on the server, and a whole site that boots at once.
.PHONY: attack
attack: ## attack a server with crowds for two minutes, and print how its clients fare
	ATTACK=1 $(GO) test -count=1 -timeout 10m -v ./internal/attack
