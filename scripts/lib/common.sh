# shellcheck shell=bash
# What every script shares: where things are, how to speak, how to fail.
# shellcheck disable=SC2034  # used by those who source it
# Source it after `set -euo pipefail`; it defines functions and read-only paths, and does nothing.

STASIS_SRC=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd -P)
# Downloaded and unpacked packages. Anything in it can be deleted: the next install makes it again.
STASIS_CACHE=${STASIS_CACHE:-/var/cache/stasis}
PROGRAM=${0##*/}
# A login shell of an unprivileged user, `su` without a dash and cron leave the sbin folders out.
PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin

say() { [ "${QUIET:-0}" = 1 ] || printf '%s\n' "$*" >&2; }
warn() { printf '%s: %s\n' "$PROGRAM" "$*" >&2; }
# One sentence: what is missing or wrong, and the next step.
die() { warn "$*"; exit 1; }

have() { command -v "$1" >/dev/null 2>&1; }

need_root() {
  [ "$(id -u)" = 0 ] || die "it must run as root (mounts, cgroups and containers need it): use sudo $0"
}

# Debian's name of the processor, without starting dpkg (install-deps has to be fast when all is there).
machine_arch() {
  case $HOSTTYPE in
    x86_64) echo amd64 ;;
    aarch64) echo arm64 ;;
    *) die "no packages for a $HOSTTYPE processor: only x86_64 and aarch64 are supported" ;;
  esac
}

# The containerd that the host's Debian release ships: what `scripts/dev up` runs unless told otherwise.
release_containerd() {
  local codename
  # shellcheck disable=SC1091
  codename=$(. /etc/os-release 2>/dev/null && echo "${VERSION_CODENAME:-}")
  case $codename in
    bookworm) echo 1.6 ;;
    trixie) echo 1.7 ;;
    *) echo 2.1 ;;
  esac
}

# Is the kernel's OpenZFS there, with its tools? Else zfs-fuse is used.
kernel_zfs() {
  [ -c /dev/zfs ] && grep -qw zfs /proc/filesystems && have zpool && have zfs
}

is_tmpfs() { [ "$(stat -f -c %T "$1" 2>/dev/null)" = tmpfs ]; }
