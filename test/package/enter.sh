#!/bin/bash
# Runs a command as root of a Debian tree, as if it were a host of its own: mounts, processes, /run and /tmp are private,
# the kernel, its cgroups and devices are this machine's. What is written goes to FOLDER, and the tree stays as it is.
#
#   enter.sh TREE FOLDER COMMAND...
set -euo pipefail
tree=$1 folder=$2
shift 2
mkdir -p "$folder"/{upper,work,root}
exec unshare --mount --pid --fork --kill-child --uts --ipc bash -euc '
  tree=$1 folder=$2
  shift 2
  root=$folder/root
  mount --make-rprivate /
  mount -t overlay -o "lowerdir=$tree,upperdir=$folder/upper,workdir=$folder/work" overlay "$root"
  mount -t proc proc "$root/proc"
  mount --rbind /sys "$root/sys"
  mount --rbind /dev "$root/dev"
  mount -t tmpfs -o mode=755 tmpfs "$root/run"
  mount -t tmpfs -o mode=1777 tmpfs "$root/tmp"
  mkdir -p "$root/mnt/packages" "$root/mnt/old" "$root/run/lock"
  [ -z "${PACKAGES:-}" ] || mount --bind "$PACKAGES" "$root/mnt/packages"
  hostname stasis-test
  cd "$root"
  # runc makes containers only where the root is a mount of its own.
  pivot_root . mnt/old
  umount -l /mnt/old
  exec env -i PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LC_ALL=C.UTF-8 \
    DEBIAN_FRONTEND=noninteractive "$@"
' - "$tree" "$folder" "$@"
