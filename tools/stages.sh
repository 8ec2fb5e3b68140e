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
[ ${#failed[@]} -gt 0 ] || exit 0

# why prints what a log says of failures: the tests, and what they said, or what
# the compiler or a linter did; without the journals and stacks that follow it.
# If there is none of that, it prints the log's end.
why() {
	local found
	grep -E '^ *--- FAIL|^FAIL[[:blank:]]' "$1" | head -n 20 || true
	found=$(grep -A3 -E '^ +([a-z0-9_]+_test|testscript)\.go:[0-9]+: |^ +FAIL: |^[A-Za-z0-9_./-]+:[0-9]+:[0-9]+: |^(WARNING: DATA RACE|panic:|fatal error:|SIG[A-Z]+: )' "$1" | head -n 40 || true)
	if [ -n "$found" ]; then printf '%s\n' "$found"; else tail -n 15 "$1"; fi
}
for stage in "${failed[@]}"; do
	printf '== why make %s failed\n' "$stage"
	why "build/check/$stage.log" | cut -c1-300
done
printf '== FAILED: make %s\n' "${failed[@]}"
exit 1
