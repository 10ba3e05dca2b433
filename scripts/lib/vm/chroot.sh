# shellcheck shell=bash
# Debian trees that programs are run in, as root and without a container engine: for building the machine's kernel
# modules and its root disk. Needs common.sh and prefix.sh.

VM_SUITE=trixie
VM_WORK=$STASIS_CACHE/virtual-machine/build # gone when a build ends well

# Runs a command in a tree, with a /proc of its own. Its mounts end with it.
in_tree() { # TREE COMMAND...
  local tree=$1
  shift
  unshare --mount --pid --fork --kill-child --mount-proc="$tree/proc" \
    env PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LC_ALL=C.UTF-8 DEBIAN_FRONTEND=noninteractive INITRD=No \
    chroot "$tree" "$@"
}

# A minimal tree in which no package starts a service, and dkms builds nothing unasked.
make_tree() { # TREE
  local base=$VM_WORK/base
  if [ ! -d "$base" ]; then
    say "debootstrap of Debian $VM_SUITE"
    # In a mount namespace, so that what it mounts goes with it, should it be ended.
    run_logged "a Debian $VM_SUITE tree" unshare --mount \
      debootstrap --variant=minbase --components=main,contrib \
      --keyring="$(debian_keyring)" "$VM_SUITE" "$base.part" "$(debian_mirror)"
    printf '#!/bin/sh\nexit 101\n' >"$base.part/usr/sbin/policy-rc.d"
    chmod 755 "$base.part/usr/sbin/policy-rc.d"
    mkdir -p "$base.part/etc/dkms"
    : >"$base.part/etc/dkms/no-autoinstall"
    cp /etc/apt/apt.conf.d/*proxy* "$base.part/etc/apt/apt.conf.d/" 2>/dev/null || true
    mv "$base.part" "$base"
  fi
  rm -rf "$1"
  cp -a "$base" "$1"
  cp /etc/resolv.conf "$1/etc/resolv.conf" 2>/dev/null || true
}

tree_packages() { # TREE PACKAGE...
  local tree=$1
  shift
  run_logged "$VM_SUITE's package lists" in_tree "$tree" apt-get -qq update
  run_logged "$VM_SUITE's $*" in_tree "$tree" apt-get install -qq -y --no-install-recommends \
    -o Dpkg::Options::=--force-unsafe-io "$@"
}
