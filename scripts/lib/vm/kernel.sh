# shellcheck shell=bash
# The machine's kernel: Debian's stock one, with OpenZFS's module built by dkms in a tree of its own. Needs chroot.sh.
#
#   $STASIS_CACHE/virtual-machine/kernel-<key>/{vmlinuz,modules.tar,version,zfs-version}

kernel_key() { recipe_key chroot.sh kernel.sh --; }

build_kernel() {
  local tree=$VM_WORK/kernel part=$VM_WORK/kernel.part version zfs modules
  make_tree "$tree"
  say "kernel, compiler and the source of OpenZFS"
  tree_packages "$tree" linux-image-amd64 linux-headers-amd64 dkms zfs-dkms
  version=$(basename "$tree"/usr/lib/modules/*)
  zfs=$(basename "$tree"/usr/src/zfs-*)
  zfs=${zfs#zfs-}
  say "building OpenZFS $zfs for Linux $version: some minutes"
  run_logged "OpenZFS $zfs for Linux $version" in_tree "$tree" dkms install -m zfs -v "$zfs" -k "$version"
  modules=$tree/usr/lib/modules/$version
  thin_modules "$modules"
  mkdir -p "$part"
  cp "$tree/boot/vmlinuz-$version" "$part/vmlinuz"
  tar -C "$tree" --sort=name --owner=0 --group=0 -cf "$part/modules.tar" "usr/lib/modules/$version"
  echo "$version" >"$part/version"
  echo "$zfs" >"$part/zfs-version"
  rm -rf "$tree"
  mv "$part" "$VM_KERNEL"
}

# What no virtual machine has is left out; the rest is unpacked, since an emulated processor takes seconds for that.
thin_modules() { # DIRECTORY
  local dir=$1 entry
  rm -rf "$dir"/{build,source} "$dir"/kernel/sound
  for entry in "$dir"/kernel/drivers/*; do
    case ${entry##*/} in
      block | char | firmware | md | net | vhost | virtio) ;;
      *) rm -rf "$entry" ;;
    esac
  done
  for entry in "$dir"/kernel/drivers/net/*/; do rm -rf "$entry"; done
  find "$dir" -name '*.ko.xz' -print0 | xargs -0 -r -n 64 xz -d
  rm -f "$dir"/modules.{alias,dep,symbols,softdep,weakdep,devname}* "$dir"/modules.builtin.*.bin
}
