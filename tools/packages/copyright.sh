#!/usr/bin/env bash
# Prints the licences of all that is linked into the commands.
set -euo pipefail
cd "$(dirname "$0")/../.."
cat <<-TEXT
	This is Mandos-in-Go: a server for Mandos, with its commands, and their
	manual pages. Its programs contain Go's standard library and these modules,
	each under the licence that follows its name.
TEXT
show() { # NAME FOLDER
	local text found=
	printf '\n\n======== %s\n' "$1"
	for text in "$2"/LICEN[CS]E* "$2"/COPYING* "$2"/NOTICE*; do
		if [ -f "$text" ]; then
			found=1
			printf '\n'
			cat "$text"
		fi
	done
	if [ -z "$found" ]; then
		echo "$0: $1 has no licence in $2" >&2
		exit 1
	fi
}
show "Go $(go env GOVERSION)" "$(go env GOROOT)"
go list -deps -f '{{with .Module}}{{if not .Main}}{{.Path}} {{.Version}}{{"\t"}}{{.Dir}}{{end}}{{end}}' ./cmd/... | sort -u |
	while IFS=$'\t' read -r name folder; do show "$name" "$folder"; done
