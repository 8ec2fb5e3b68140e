#!/usr/bin/env bash
# Brings what the tests need beside Go: Debian's packages; Debian's own Mandos,
# unpacked (not installed) into a cache folder, as a peer for the interop tests;
# and Go's modules. As root it installs what is missing; otherwise it says what
# to install. With CI=true anything missing is an error.
set -euo pipefail

packages=(
	# the race detector and the scripts
	gcc libc6-dev make git ca-certificates shellcheck
	# peers of the interop tests
	gnutls-bin gnupg openssl python3
	# what Debian's mandos and mandos-client need to run
	dbus python3-dbus python3-gi python3-urwid
	libavahi-core7 libgpgme11 libnl-3-200 libnl-route-3-200 libglib2.0-0 libglib2.0-bin
	fping
	# system tests on booted hosts, and network namespaces
	systemd-container mmdebstrap iproute2 bridge-utils iputils-ping avahi-daemon e2fsprogs
	# what looks into the packages
	rpm zstd lintian
	# the commands' screens, completions and manual pages
	tmux zsh fish mandoc procps
)

cache=${XDG_CACHE_HOME:-${HOME:?}/.cache}/mandos-go/debian
ci=${CI:-}
say() { printf 'deps: %s\n' "$*"; }

# give_up says what is missing: an error in CI, else a hint, as the tests
# that need it skip.
give_up() {
	say "$*" >&2
	if [ "$ci" = true ]; then exit 1; fi
	exit 0
}

# retry is for what comes over the network: one request that fails must not
# fail the tests.
retry() {
	local try
	for try in 1 2 3 4; do
		if "$@"; then return; fi
		say "try $try of 4 failed: $*" >&2
		sleep $((try * 5))
	done
	return 1
}

apt() {
	env DEBIAN_FRONTEND=noninteractive apt-get -q -o DPkg::Lock::Timeout=300 -o APT::Sandbox::User=root \
		-o Acquire::Retries=3 -o Acquire::http::Timeout=30 -o Acquire::https::Timeout=30 "$@"
}

# update gets all lists of packages, or else those that can be had: without
# --error-on, a list that doesn't come is no error, and the old one stays.
update() { apt update --error-on=any || apt update; }

command -v apt-get >/dev/null ||
	give_up "this is no Debian; install the likes of: ${packages[*]}"

installed() { [ "$(dpkg-query -W -f '${db:Status-Status}' "$1" 2>/dev/null)" = installed ]; }

missing=()
for p in "${packages[@]}"; do
	installed "$p" || missing+=("$p")
done
if [ ${#missing[@]} -gt 0 ]; then
	[ "$(id -u)" = 0 ] ||
		give_up "to run every test, install: sudo apt-get install ${missing[*]}"
	say "installing ${missing[*]}"
	bring() { update && apt install -y --no-install-recommends "${missing[@]}"; }
	retry bring
fi

# systemd-nspawn makes a host's MAC address of it; a fresh image has none yet.
if [ "$(id -u)" = 0 ] && ! systemd-id128 machine-id >/dev/null 2>&1; then
	say "making /etc/machine-id"
	systemd-machine-id-setup
fi

# Servers of the tests listen on ::1.
has_ipv6() { grep -q '^0*1 .* lo$' /proc/net/if_inet6 2>/dev/null; }
if ! has_ipv6 && [ "$ci" = true ]; then
	say "switching IPv6 on for the loopback interface"
	sysctl -q -w net.ipv6.conf.lo.disable_ipv6=0 || true
fi
has_ipv6 || give_up "the loopback interface has no IPv6 address: sudo sysctl net.ipv6.conf.lo.disable_ipv6=0"

# The bus policy of Debian's server is by this user's group.
if [ "$(id -u)" = 0 ] && ! getent passwd _mandos >/dev/null; then
	say "adding the user _mandos"
	useradd --system --user-group --home-dir /nonexistent --no-create-home --shell /usr/sbin/nologin _mandos
fi

candidate() { LC_ALL=C apt-cache policy mandos-client | sed -n 's/^ *Candidate: \([0-9].*\)/\1/p'; }
version=$(candidate)
if [ -z "$version" ] && [ "$(id -u)" = 0 ]; then
	retry update
	version=$(candidate)
fi
[ -n "$version" ] || give_up "apt knows no package mandos-client; run: sudo apt-get update"

dir=$cache/mandos-$version
if [ ! -d "$dir" ]; then
	say "unpacking Debian's mandos $version into $dir"
	mkdir -p "$cache"
	tmp=$(mktemp -d "$cache/tmp.XXXXXX")
	trap 'rm -rf "$tmp"' EXIT
	mkdir "$tmp/root"
	# Where that fails, the mirror may have a newer version than the lists.
	download() {
		rm -f "$tmp"/*.deb
		if (cd "$tmp" && apt download "mandos=$version" "mandos-client=$version"); then return; fi
		if [ "$(id -u)" = 0 ]; then update; fi
		version=$(candidate)
		dir=$cache/mandos-$version
		return 1
	}
	retry download || give_up "couldn't download Debian's mandos $version"
	for deb in "$tmp"/*.deb; do
		dpkg -x "$deb" "$tmp/root"
	done
	# Tests run the plugins as whoever they are: no set-uid, no closed folders.
	chmod -R u-s,go+rX "$tmp/root"
	chmod 755 "$tmp/root"
	mv -T "$tmp/root" "$dir" 2>/dev/null || [ -d "$dir" ]
fi
ln -sfn "mandos-$version" "$cache/current"

# What the builds need of Go's modules, which go itself tries to get only once.
modules() { timeout 600 go list -deps -test "$@" >/dev/null; }
cd "$(dirname "$0")/.."
{ retry modules ./... && retry modules -modfile=tools/go.mod tool; } ||
	give_up "couldn't download Go's modules"
say "ready; Debian's mandos is $dir"
