# shellcheck shell=bash
# The machine's root disk and what boots it. Needs chroot.sh and kernel.sh.
#
#   $STASIS_CACHE/virtual-machine/image-<key>/{root.img,initrd,vmlinuz,ssh-key}

VM_DISK_SIZE=12G # sparse
VM_PACKAGES=(
  systemd-sysv udev dbus openssh-server iproute2 iptables kmod procps
  zfsutils-linux containerd runc criu
)
# The cache's programs for scripts/dev: in the machine they lie where they do here.
VM_PREFIXES=(busybox criu crun runc containerd-1.7)
# What only takes time at boot.
VM_MASKED=(
  getty@.service serial-getty@.service apt-daily.timer apt-daily-upgrade.timer dpkg-db-backup.timer fstrim.timer
  e2scrub_all.timer e2scrub_reap.service systemd-update-utmp.service systemd-pcrphase.service
  systemd-networkd-wait-online.service systemd-resolved.service
)

image_key() {
  local name files
  mapfile -t files < <(cd "$STASIS_SRC/scripts/lib/vm" && find guest -type f | LC_ALL=C sort)
  recipe_key chroot.sh image.sh "${files[@]}" -- "${VM_KERNEL##*/}" \
    "$STASIS_CACHE" "$(for name in "${VM_PREFIXES[@]}"; do cat "$STASIS_CACHE/$name/packages"; done)"
}

build_image() {
  local tree=$VM_WORK/root part=$VM_WORK/image.part version zfs name
  version=$(cat "$VM_KERNEL/version")
  zfs=$(cat "$VM_KERNEL/zfs-version")
  make_tree "$tree"
  say "the machine's packages"
  tree_packages "$tree" "${VM_PACKAGES[@]}"
  # The tools speak to the module of their own release.
  case $(in_tree "$tree" dpkg-query -W -f '${Version}' zfsutils-linux) in
    "${zfs%.*}".*) ;;
    *) rm -rf "$VM_KERNEL"; die "Debian's zfsutils-linux is no longer of the release $zfs that the kernel module was built from: run scripts/vm build again" ;;
  esac
  tar -C "$tree" -xf "$VM_KERNEL/modules.tar"
  in_tree "$tree" depmod "$version"
  mkdir -p "$part"
  cp "$VM_KERNEL/vmlinuz" "$part/"
  make_initrd "$tree" "$version" "$part/initrd"
  furnish "$tree" "$part/ssh-key"
  say "the machine's disk"
  # Without a journal: nothing outlives the machine. mke2fs fills it with no mount and no loop device.
  run_logged "the root disk" mke2fs -qF -t ext4 -O ^has_journal,^metadata_csum -E lazy_itable_init=1 -m 0 \
    -d "$tree" "$part/root.img" "$VM_DISK_SIZE"
  rm -rf "$tree"
  mv "$part" "$VM_IMAGE"
}

# Debian's own initrd takes an emulated processor longer than all the rest of the boot.
make_initrd() { # TREE VERSION FILE
  local tree=$1 dir=$1/initrd-files module count=0
  mkdir -p "$dir"/{bin,modules,dev,proc,root}
  cp "$STASIS_CACHE/busybox/bin/busybox" "$dir/bin/"
  install -m 755 "$STASIS_SRC/scripts/lib/vm/guest/initrd" "$dir/init"
  in_tree "$tree" modprobe -S "$2" -a --show-depends virtio_pci virtio_blk virtio_net ext4 | awk '$1 == "insmod" && !seen[$2]++ { print $2 }' |
    while read -r module; do
      count=$((count + 1))
      cp "$tree/$module" "$dir/modules/$(printf %02d "$count")-${module##*/}"
    done
  (cd "$dir" && find . | "$STASIS_CACHE/busybox/bin/busybox" cpio -o -H newc 2>/dev/null) >"$3"
  rm -rf "$dir"
}

# The settings of a machine that is there for tests alone.
furnish() { # TREE KEY-FILE
  local tree=$1 name
  rm -f "$tree/usr/sbin/policy-rc.d"
  rm -rf "$tree"/var/cache/apt/* "$tree"/var/lib/apt/lists/* "$tree"/usr/share/{doc,man,locale}/*
  # The checkout may belong to anybody.
  tar -C "$STASIS_SRC/scripts/lib/vm/guest" --owner=0 --group=0 -cf - etc usr | tar -C "$tree" --no-same-permissions -xf -
  printf '127.0.0.1 localhost stasis-vm\n::1 localhost\n' >"$tree/etc/hosts"
  echo stasis-vm >"$tree/etc/hostname"
  printf '/dev/vda / ext4 noatime 0 0\ntmp /tmp tmpfs mode=1777,nosuid,nodev 0 0\n' >"$tree/etc/fstab"
  : >"$tree/etc/resolv.conf"
  # An id of its own, or systemd takes each boot for the first.
  tr -d - </proc/sys/kernel/random/uuid >"$tree/etc/machine-id"
  for name in "${VM_MASKED[@]}"; do ln -sfn /dev/null "$tree/etc/systemd/system/$name"; done
  in_tree "$tree" systemctl -q enable vm-network.service ssh.service
  # Tests run a containerd of their own; who wants Debian's starts it.
  in_tree "$tree" systemctl -q disable containerd.service ssh.socket
  ssh-keygen -q -t ed25519 -N '' -C stasis-vm -f "$2"
  install -d -m 700 "$tree/root/.ssh"
  install -m 600 "$2.pub" "$tree/root/.ssh/authorized_keys"
  install -m 755 "$STASIS_CACHE/busybox/bin/busybox" "$tree/usr/bin/busybox"
  mkdir -p "$tree$STASIS_CACHE"
  for name in "${VM_PREFIXES[@]}"; do
    cp -a "$STASIS_CACHE/$name" "$tree$STASIS_CACHE/"
  done
}
