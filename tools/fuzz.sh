#!/usr/bin/env bash
# Runs each fuzz function of each package for $FUZZTIME (default 10s), one at
# a time. The list is go test's own: a new fuzzer is found without a word here.
set -euo pipefail

time=${FUZZTIME:-10s}
# go test -list prints a package's names, then its "ok" line.
targets=$(go test -list '^Fuzz' ./... | awk '/^Fuzz/ {names[n++] = $1} /^ok/ {for (i = 0; i < n; i++) print $2, names[i]; n = 0}')
while read -r package name; do
	[ -n "$name" ] || continue
	printf -- '-- %s %s for %s\n' "$package" "$name" "$time"
	# By default it makes each find smaller for up to a minute, and does
	# nothing else meanwhile.
	go test -run '^$' -fuzz "^$name\$" -fuzztime "$time" -fuzzminimizetime 1s -parallel "${FUZZPARALLEL:-2}" "$package"
done <<<"$targets"
