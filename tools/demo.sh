#!/bin/sh
# Shows Mandos at work on this machine: a client's keys, a server, the
# password that comes out, and a stranger who gets nothing. Needs no root, no
# network but the loopback, nothing installed. Leaves nothing behind.
set -eu

bin=$(cd "${1:-build}" && pwd)
password='correct horse battery staple'
dir=$(mktemp -d "${TMPDIR:-/tmp}/mandos-demo.XXXXXX")
server=
stranger=
cleanup() {
	for pid in $stranger $server; do
		kill "$pid" 2>/dev/null || true
		wait "$pid" 2>/dev/null || true
	done
	rm -rf "$dir"
}
trap cleanup EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

step() { printf '\n\033[1m%s\033[0m\n' "$1"; }
[ -t 1 ] || step() { printf '\n%s\n' "$1"; }
shown() { printf '  $ %s\n' "$*"; }
fail() {
	printf 'demo: %s\nThe server said:\n' "$1" >&2
	cat "$dir/server.log" >&2
	exit 1
}
# await waits for a line of the server's log.
await() {
	tries=0
	until grep -q "$1" "$dir/server.log"; do
		kill -0 "$server" 2>/dev/null || fail "the server ended"
		tries=$((tries + 1))
		[ $tries -lt 1200 ] || fail "no line with '$1' after 2 minutes"
		sleep 0.1
	done
}
ask() { # ask KEYS: a client asks the server; to be called in a subshell, which it becomes
	exec "$bin/mandos-client" --connect="[::1]:$port" --interface=none --retry=1 \
		--pubkey="$dir/$1/pubkey.txt" --seckey="$dir/$1/seckey.txt" \
		--tls-pubkey="$dir/$1/tls-pubkey.pem" --tls-privkey="$dir/$1/tls-privkey.pem"
}

chmod 755 "$dir" # the server, if root starts it, becomes an ordinary user
mkdir "$dir/etc" "$dir/state"

step "1. A host with an encrypted disk makes its keys."
shown "mandos-keygen --dir host --name web1"
"$bin/mandos-keygen" --dir "$dir/host" --name web1 --length 2048 --sublength 2048
for f in "$dir/host"/*; do printf '  %s\n' "host/${f##*/}"; done

step "2. It encrypts the disk's password to itself. The server can't read it."
shown "mandos-keygen --dir host --name web1 --passfile password >> etc/clients.conf"
printf %s "$password" >"$dir/password"
(umask 077 && "$bin/mandos-keygen" --dir "$dir/host" --name web1 --passfile "$dir/password" --no-ssh >"$dir/etc/clients.conf")
sed -n -e '/^\[/p' -e '/^key_id/p' -e '/^secret/{p;n;p;n;s/[^ ].*/…/p;q;}' "$dir/etc/clients.conf" | sed 's/^/  /'

step "3. The server starts."
# A port is wanted that nobody uses: try until the server can bind one.
try=0
until [ -n "${port:-}" ]; do
	port=$((20000 + ($$ + try * 7919) % 12000))
	: >"$dir/server.log"
	"$bin/mandos" --configdir "$dir/etc" --statedir "$dir/state" --address ::1 --port "$port" \
		--no-dbus --no-zeroconf --foreground </dev/null 2>"$dir/server.log" &
	server=$!
	until grep -q 'listening for clients' "$dir/server.log"; do
		kill -0 "$server" 2>/dev/null || break
		sleep 0.1
	done
	if ! kill -0 "$server" 2>/dev/null; then
		wait "$server" || true
		server=
		port=
		try=$((try + 1))
		grep -q 'address already in use' "$dir/server.log" || fail "the server ended"
		[ $try -lt 5 ] || fail "no unused port found"
	fi
done
shown "mandos --configdir etc --statedir state --address ::1 --port $port --no-dbus --no-zeroconf"
printf '  It listens on [::1]:%s.\n' "$port"

step "4. The host boots and asks for its password."
shown "mandos-client --connect [::1]:$port"
got=$(ask host 2>"$dir/client.log") || { cat "$dir/client.log" >&2; fail "the client got no password"; }
[ "$got" = "$password" ] || fail "the client got another password: $got"
printf '  Password: %s\n' "$got"

step "5. A stranger with keys of its own asks, too."
"$bin/mandos-keygen" --dir "$dir/stranger" --name stranger --length 2048 --sublength 2048
shown "mandos-client --connect [::1]:$port"
ask stranger >"$dir/stranger.out" 2>/dev/null &
stranger=$!
await 'unknown key'
kill "$stranger"
wait "$stranger" 2>/dev/null || true
stranger=
[ ! -s "$dir/stranger.out" ] || fail "the stranger got something"
printf '  Password: (nothing, and the server says why)\n'

step "What the server logged:"
sed 's/^/  /' "$dir/server.log"
printf '\nThe demo has passed.\n'
