#!/bin/bash
# First process of the packed machine: a mount namespace whose root is the unpacked Debian. Usage: init.sh ROOT SCRIPTS
set -euo pipefail
root=$1 scripts=$2
mount --make-rprivate /
# containerd, runc and unshare want / to be a mount point: a chroot would not do.
mount --bind "$root" "$root"
mkdir -p "$root"/{proc,sys,dev,old,scripts}
mount --rbind /proc "$root/proc"
if [ -n "${ALONE-}" ]; then
  # A network namespace has a /sys of its own.
  mount -t sysfs sysfs "$root/sys"
  mount --rbind /sys/fs/cgroup "$root/sys/fs/cgroup"
  ip link set lo up
else
  mount --rbind /sys "$root/sys"
fi
mount -o remount,rw "$root/sys/fs/cgroup" 2>/dev/null || true
mount --rbind /dev "$root/dev"
mount --bind "$scripts" "$root/scripts"
echo 'nameserver 192.0.2.53' > "$root/etc/resolv.conf"
echo '127.0.0.1 localhost' > "$root/etc/hosts"
cd "$root"
pivot_root . old
umount -l /old
cd /
echo $$ > /scripts/machine.pid
exec sleep infinity </dev/null >/dev/null 2>&1
