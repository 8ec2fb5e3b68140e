# Keeps one host: boots it for each line on standard input, and removes all of
# it at the end of standard input, which comes at the latest when the test's
# process is gone. Arguments: name, machine, root file system, address for
# IPv4 or "", options for systemd-nspawn.
set -eu
name=$1 machine=$2 rootfs=$3 ipv4=$4
shift 4
mount --make-rprivate /
umount -R /sys/fs/cgroup 2>/dev/null || true
mount -t cgroup2 cgroup2 /sys/fs/cgroup
cgroup=/sys/fs/cgroup/$machine

# A file system of our own, as a container's can't be the upper layer of an overlay.
mount -t tmpfs tmpfs /mnt
mkdir /mnt/upper /mnt/work /mnt/root
mount -t overlay overlay -o lowerdir="$rootfs",upperdir=/mnt/upper,workdir=/mnt/work /mnt/root
root=/mnt/root
systemd-id128 new >$root/etc/machine-id
echo "$name" >$root/etc/hostname
cat >$root/etc/systemd/system/lab-link.service <<UNIT
[Unit]
Before=network-pre.target
Wants=network-pre.target
[Service]
Type=oneshot
RemainAfterExit=yes
# No wait for duplicate address detection: the address is usable at once.
ExecStart=sh -c 'echo 0 >/proc/sys/net/ipv6/conf/host0/accept_dad'
ExecStart=ip link set host0 up
$(test -z "$ipv4" || echo "ExecStart=ip addr add $ipv4 brd + dev host0")
UNIT
mkdir -p $root/etc/systemd/system/sysinit.target.wants
ln -s ../lab-link.service $root/etc/systemd/system/sysinit.target.wants/

nspawn=
while read -r _; do
	test -z "$nspawn" || wait "$nspawn" || true
	mkdir -p "$cgroup"
	(
		echo "$BASHPID" >"$cgroup/cgroup.procs"
		exec systemd-nspawn -q --register=no --keep-unit --machine="$machine" --hostname="$name" \
			-D $root --boot --console=pipe --network-bridge=br0 --resolv-conf=off --timezone=off \
			--link-journal=no --notify-ready=yes "$@" </dev/null
	) &
	nspawn=$!
done
if test -n "$nspawn"; then
	for leader in $(cat "/proc/$nspawn/task/$nspawn/children" 2>/dev/null); do kill -KILL "$leader" || true; done
	wait "$nspawn" || true
fi
find "$cgroup" -depth -type d -exec rmdir {} + 2>/dev/null || true
