#!/usr/bin/env bash
# version.sh VERSION, of git describe: prints the version of the packages.
# Tag v1.2 is 1.2, two commits later is 1.2+2+g0123abc. Without a tag it is 0,
# the time of the commit, and its hash.
set -euo pipefail
cd "$(dirname "$0")/../.."
version=${1//-/+}
if [[ $version =~ ^v?([0-9]+\.[0-9].*)$ ]]; then
	echo "${BASH_REMATCH[1]}"
else
	echo "0.$(TZ=UTC git log -1 --date=format-local:%Y%m%d%H%M%S --format=%cd 2>/dev/null || echo 0).$version"
fi
