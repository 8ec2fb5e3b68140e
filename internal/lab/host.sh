# Keeps one host: boots it for each line "boot" on standard input, after a line
# "cut" without what it had not synced, and removes all of it at the end of
# standard input, which comes at the latest when the test's process is gone.
# Arguments: name, machine, root file system, address for IPv4 or "", "disks"
# or "", options for systemd-nspawn.
set -eu
name=$1 machine=$2 rootfs=$3 ipv4=$4 disks=$5
shift 5
mount --make-rprivate /
umount -R /sys/fs/cgroup 2>/dev/null || true
mount -t cgroup2 cgroup2 /sys/fs/cgroup
cgroup=/sys/fs/cgroup/$machine

# A file system of our own, as a container's can't be the upper layer of an overlay.
mount -t tmpfs tmpfs /mnt
mkdir /mnt/disk /mnt/state /mnt/root
attach() {
	if test -n "$disks"; then
		mount -o loop /mnt/disk.image /mnt/disk
		mount -o loop /mnt/state.image /mnt/state
	fi
	mkdir -p /mnt/disk/upper /mnt/disk/work
	mount -t overlay overlay -o lowerdir="$rootfs",upperdir=/mnt/disk/upper,workdir=/mnt/disk/work /mnt/root
}
# What a disk has when its power is cut: all that was written to it, without
# what the file system still kept in memory.
cut() {
	cp --sparse=always /mnt/state.image /mnt/state.cut
	cp --sparse=always /mnt/disk.image /mnt/disk.cut
	umount -l /mnt/root /mnt/disk /mnt/state
	mv /mnt/disk.cut /mnt/disk.image
	mv /mnt/state.cut /mnt/state.image
	attach
}
if test -n "$disks"; then
	truncate -s 2G /mnt/disk.image
	truncate -s 16M /mnt/state.image
	mkfs.ext4 -q /mnt/disk.image
	mkfs.ext4 -q -m 0 /mnt/state.image
	set -- --bind=/mnt/state:/var/lib/mandos "$@"
fi
attach
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
while read -r what; do
	test -z "$nspawn" || wait "$nspawn" || true
	nspawn=
	if test "$what" = cut; then
		cut
		continue
	fi
	mkdir -p "$cgroup"
	(
		echo "$BASHPID" >"$cgroup/cgroup.procs"
		exec systemd-nspawn --register=no --keep-unit --machine="$machine" --hostname="$name" \
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
