#!/usr/bin/env bash
# Draws the README's pictures, man/images/*.svg, from real screens: a server
# with made-up clients on a private bus, on a terminal of tmux.
# Usage: tools/pictures.sh BUILD, the folder with the commands.
set -euo pipefail
cd "$(dirname "$0")/.."
build=$(realpath "${1:-build}")
top=$PWD
dir=$(mktemp -d)
chmod 755 "$dir"
pids=()
finish() {
	for s in "$dir"/*.tmux; do tmux -S "$s" kill-server 2>/dev/null; done || true
	for pid in "${pids[@]}"; do kill "$pid" 2>/dev/null || true; done
	rm -rf "$dir"
}
trap finish EXIT

cat >"$dir/bus.conf" <<END
<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN"
 "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig><type>system</type><listen>unix:path=$dir/bus</listen><auth>EXTERNAL</auth>
<policy context="default"><allow user="*"/><allow own="*"/><allow send_destination="*"/><allow receive_sender="*"/></policy>
</busconfig>
END
coproc BUS { exec dbus-daemon --config-file="$dir/bus.conf" --nofork --nopidfile --print-address=1 2>/dev/null; }
pids+=("$BUS_PID")
read -r DBUS_SYSTEM_BUS_ADDRESS <&"${BUS[0]}"
export DBUS_SYSTEM_BUS_ADDRESS LC_ALL=C.UTF-8 TZ=UTC

mkdir -m 755 "$dir/etc"
mkdir -m 777 "$dir/state"
client() { # NAME CHECKER [KEY = VALUE]
	printf '[%s]\nhost = %s.example\nkey_id = %s\nsecret = aGVsbG8=\nchecker = %s\n%s\n' \
		"$1" "$1" "$(printf %s "$1" | sha256sum | cut -c1-64)" "$2" "${3-}"
}
{
	printf '[DEFAULT]\ninterval = PT4S\ntimeout = PT30S\n\n'
	for name in backup db1 db2 mail web1 web2; do client $name true; done
	client kiosk false
	client stolen true 'enabled = no'
	"$build/mandos-keygen" --dir "$dir/vault" --name vault --length 2048 --sublength 2048 >/dev/null
	printf %s 'correct horse battery staple' >"$dir/password"
	"$build/mandos-keygen" --dir "$dir/vault" --name vault --passfile "$dir/password" --no-ssh
	printf 'checker = true\napproval_delay = PT2M\napproved_by_default = no\n'
} >"$dir/etc/clients.conf"
chmod 600 "$dir/etc/clients.conf"
"$build/mandos" --no-zeroconf --address ::1 --port "${PORT:-46639}" --configdir "$dir/etc" --statedir "$dir/state" 2>"$dir/log" &
pids+=($!)
# It waits for an operator all the time.
"$build/mandos-client" --connect="[::1]:${PORT:-46639}" --interface=none --retry=1 \
	--pubkey="$dir/vault/pubkey.txt" --seckey="$dir/vault/seckey.txt" \
	--tls-pubkey="$dir/vault/tls-pubkey.pem" --tls-privkey="$dir/vault/tls-privkey.pem" >/dev/null 2>&1 &
pids+=($!)

screen() { # NAME HEIGHT COMMAND: what it shows after 12 s, when the first checks are over
	tmux -f /dev/null -S "$dir/$1.tmux" new-session -d -x 80 -y "$2" "$3"
	sleep 12
	tmux -S "$dir/$1.tmux" capture-pane -e -p -N | (cd "$top/tools" && go run ./svg) >"$top/man/images/$1.svg"
	tmux -S "$dir/$1.tmux" kill-server
}
screen monitor 20 "$build/mandos-monitor"
screen why 8 "printf '$ mandos-ctl --why kiosk\n'; $build/mandos-ctl --why kiosk; sleep 60"
