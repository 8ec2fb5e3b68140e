#!/usr/bin/env bash
# Runs each fuzz function of each package for $FUZZTIME (default 10s), one at
# a time. They are found by their names in the sources: to ask go test for
# them would build the tests of all packages.
set -euo pipefail

time=${FUZZTIME:-10s}
targets=$(grep -rE --include='*_test.go' '^func Fuzz' cmd internal |
	sed -nE 's,^(.*)/[^/]*:func (Fuzz[A-Za-z0-9_]*)\(.*,\1 \2,p' | sort)
while read -r package name; do
	printf -- '-- %s %s for %s\n' "$package" "$name" "$time"
	# By default it makes each find smaller for up to a minute, and does
	# nothing else meanwhile.
	go test -vet=off -run '^$' -fuzz "^$name\$" -fuzztime "$time" -fuzzminimizetime 1s -parallel "${FUZZPARALLEL:-2}" "./$package"
done <<<"$targets"
