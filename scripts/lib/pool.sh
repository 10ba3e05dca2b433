# shellcheck shell=bash
# The stack's place in ZFS. Needs common.sh, machine.sh, services.sh, and from scripts/dev: STATE and the settings
#   ZFS          kernel: OpenZFS; fuse: a zfs-fuse of this stack's own; none
#   POOL, ROOT   the pool, and the root dataset
#   POOL_OWNED   1: the pool is ours, in a file of ours;  ROOT_OWNED  1: the root dataset is ours
#   ZFS_RUN      where the private zfs-fuse has its socket
#
# A pool of ours carries the property stasis:dev with the state directory: a pool without it is never
# destroyed, nor is any file but ours.

POOL_SIZE=${STASIS_POOL_SIZE:-8G}

pool_file() { echo "$STATE/data/pool.img"; }

pool_imported() { [ "$(zpool list -H -o name "$POOL" 2>/dev/null)" = "$POOL" ]; }

pool_is_ours() { [ "$(zfs get -H -o value stasis:dev "$POOL" 2>/dev/null)" = "$STATE" ]; }

# zfs-fuse and its tools meet at paths that are compiled in, one daemon a machine. A daemon that is
# shared is a danger: it waits for ever, and answers no file system any more, when one is unmounted
# while a file in it is open. So each stack gets copies with paths of its own: nobody's pools are
# near ours, and a daemon that hangs can be killed. The new paths have the length of the old, and end
# alike, since the linker may let shorter strings live in their ends.
private_zfs_fuse() {
  local program from=$STASIS_CACHE/zfs-fuse/bin
  [ -x "$from/zfs-fuse" ] || die "zfs-fuse is missing: run scripts/install-deps"
  mkdir -p "$STATE/zfs" "$ZFS_RUN/zfs"
  chmod 700 "$ZFS_RUN"
  for program in zfs zpool zfs-fuse; do
    [ ! -x "$STATE/zfs/$program" ] || continue
    LC_ALL=C sed -e "s|/var/run/zfs|$ZFS_RUN/zfs|g" -e "s|/var/lib/zfs|$ZFS_RUN/zfs|g" -e "s|/var/lock/zfs|$ZFS_RUN//zfs|g" \
      "$from/$program" >"$STATE/zfs/$program.new"
    chmod 755 "$STATE/zfs/$program.new"
    mv "$STATE/zfs/$program.new" "$STATE/zfs/$program"
  done
}

# The directory that the stack's copies were made for.
private_zfs_run() {
  { grep -aom1 '/run/z[0-9][0-9]' "$STATE/zfs/zfs" 2>/dev/null || true; } | head -n 1
}

# A free /run/z??: the kernel hands each name out once.
allocate_zfs_run() {
  local i
  for ((i = 0; i < 100; i++)); do
    printf -v ZFS_RUN '/run/z%02d' "$i"
    ! mkdir -m 700 "$ZFS_RUN" 2>/dev/null || return 0
  done
  die "all of /run/z00 to /run/z99 are taken: remove those that no stack uses"
}

# Attributes and names may be cached for long: every dataset is mounted once, and changes only through it.
# Extended attributes are off by default; images use them (file capabilities).
start_zfs_fuse() {
  local tries
  ! zpool list >/dev/null 2>&1 || return 0
  [ -c /dev/fuse ] || die "/dev/fuse is missing, and zfs-fuse needs it: load the kernel's fuse module (modprobe fuse)"
  rm -f "$ZFS_RUN/zfs/zfs_socket"
  start_service zfs-fuse "$STATE/zfs/zfs-fuse" --no-daemon --no-kstat-mount --enable-xattr --max-arc-size 256 \
    --fuse-attr-timeout 3600 --fuse-entry-timeout 3600 --fuse-mount-options default_permissions
  for ((tries = 0; tries < 500; tries++)); do
    ! zpool list >/dev/null 2>&1 || return 0
    kill -0 "$SERVICE_PID" 2>/dev/null || fail_service zfs-fuse "ended while it started"
    sleep 0.02
  done
  fail_service zfs-fuse "does not answer"
}

pool_up() {
  if [ "$ZFS" = fuse ]; then
    private_zfs_fuse
    start_zfs_fuse
  fi
  if [ "$POOL_OWNED" = 0 ]; then
    pool_imported || die "there is no pool $POOL: import it first, or leave --pool out to get one in a file"
    return 0
  fi
  if pool_imported; then
    pool_is_ours || die "a pool named $POOL exists and is not this stack's: choose another name with --pool"
    return 0
  fi
  if [ -s "$(pool_file)" ]; then
    # The stack was up before zfs-fuse was killed or the machine restarted. Mounts of a dead zfs-fuse are dead.
    stop_service stasisd
    unmount_datasets
    zpool import -f -d "$STATE/data" -o cachefile=none "$POOL" >"$STATE/log/zpool" 2>&1 ||
      die "the pool in $(pool_file) cannot be imported ($(tr '\n' ' ' <"$STATE/log/zpool")): scripts/dev down deletes it"
    return 0
  fi
  truncate -s "$POOL_SIZE" "$(pool_file)"
  # In no cache file: nothing must open it at the next boot.
  zpool create -f -o cachefile=none -O "stasis:dev=$STATE" -O mountpoint=none "$POOL" "$(pool_file)" \
    >"$STATE/log/zpool" 2>&1 || die "zpool create failed: $(tr '\n' ' ' <"$STATE/log/zpool")"
}

# The private zfs-fuse was killed with all processes of the stack: its pool is but a file by now.
pool_down() {
  case $ZFS in
    kernel)
      pool_imported || return 0
      if [ "$POOL_OWNED" = 1 ]; then
        ! pool_is_ours || destroy "the pool $POOL" zpool destroy -f "$POOL"
      elif [ "$ROOT_OWNED" = 1 ] && zfs list -H "$ROOT" >/dev/null 2>&1; then
        destroy "the dataset $ROOT" zfs destroy -f -R "$ROOT"
      fi
      ;;
    fuse) [ -z "$ZFS_RUN" ] || rm -rf "$ZFS_RUN" ;;
  esac
}

# What was just unmounted is busy for a moment.
destroy() { # WHAT COMMAND...
  local tries what=$1
  shift
  for ((tries = 0; tries < 50; tries++)); do
    ! "$@" >"$STATE/log/zpool" 2>&1 || return 0
    sleep 0.1
  done
  die "$what cannot be destroyed: $(tr '\n' ' ' <"$STATE/log/zpool")"
}
