# shellcheck shell=bash
# What is built once and kept, by a hash of what goes into it. Needs common.sh, chroot.sh, kernel.sh and image.sh.

# What a build is remembered by: the names and contents of its recipes, and words.
recipe_key() { # FILE... -- WORD...
  local files=()
  while [ "$1" != -- ]; do files+=("$1"); shift; done
  shift
  { (cd "$STASIS_SRC/scripts/lib/vm" && tail -n +1 -- "${files[@]}"); printf '%s\n' "$HOSTTYPE" "$VM_SUITE" "$@"; } |
    sha256sum | cut -c 1-16
}

# Two checkouts with other recipes do not take each other's builds away, but what nobody has used for long goes.
keep_latest() { # DIRECTORY PATTERN
  touch "$1"
  find "${1%/*}" -mindepth 1 -maxdepth 1 -name "$2" -not -path "$1" -mtime +7 -exec rm -rf {} +
}

# Sets VM_KERNEL and VM_IMAGE, and makes what is not there yet.
build() {
  [ "$(machine_arch)" = amd64 ] || die "the machine is built on and for amd64 only"
  "$STASIS_SRC/scripts/install-deps" --quiet --no-npm --containerd 1.7 --vm || exit 1
  mkdir -p "$STASIS_CACHE/virtual-machine"
  exec 6<"$STASIS_CACHE/virtual-machine"
  flock 6
  VM_KERNEL=$STASIS_CACHE/virtual-machine/kernel-$(kernel_key)
  VM_IMAGE=$STASIS_CACHE/virtual-machine/image-$(image_key)
  if [ ! -d "$VM_KERNEL" ] || [ ! -d "$VM_IMAGE" ]; then
    rm -rf --one-file-system "$VM_WORK"
    mkdir -p "$VM_WORK"
    [ -d "$VM_KERNEL" ] || build_kernel
    [ -d "$VM_IMAGE" ] || build_image
    rm -rf --one-file-system "$VM_WORK"
    say "built: $VM_IMAGE ($(du -sh "$VM_IMAGE" | cut -f1)), $VM_KERNEL ($(du -sh "$VM_KERNEL" | cut -f1))"
  fi
  keep_latest "$VM_KERNEL" 'kernel-*'
  keep_latest "$VM_IMAGE" 'image-*'
  exec 6<&-
}
