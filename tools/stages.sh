#!/usr/bin/env bash
# Runs make targets one after the other, with a line that says how long each
# took. One that fails doesn't hide the others. Ends with the lines of go test,
# so that one sees which tests ran.
set -euo pipefail

mkdir -p build/check
rm -f build/check/*.log
durations=()
failed=()
for stage in "$@"; do
	printf '== %s\n' "$stage"
	began=$SECONDS
	"${MAKE:-make}" --no-print-directory "$stage" 2>&1 | tee "build/check/$stage.log" || failed+=("$stage")
	durations+=("$(printf '%-14s %4d s' "$stage" $((SECONDS - began)))")
done

printf '== duration of each stage\n'
printf '%s\n' "${durations[@]}"
printf '%-14s %4d s\n' total "$SECONDS"
for stage in "$@"; do
	[ -f "build/check/$stage.log" ] || continue
	lines=$(grep -E '^(ok  |FAIL|--- FAIL|panic:)' "build/check/$stage.log" || true)
	[ -z "$lines" ] || printf '== %s\n%s\n' "$stage" "$lines"
done
if [ ${#failed[@]} -gt 0 ]; then
	for stage in "${failed[@]}"; do # what tests said, without the journals that follow it
		grep -A3 -E '^ +[a-z0-9_]+_test\.go:[0-9]+: ' "build/check/$stage.log" | cut -c1-500 | tail -n 40 || true
	done
	printf '== FAILED: make %s\n' "${failed[@]}"
	exit 1
fi
