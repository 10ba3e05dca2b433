# shellcheck shell=bash
# The stack's place in ZFS. Needs common.sh, machine.sh, and from scripts/dev: STATE, and the settings
# ZFS (kernel or fuse), POOL, POOL_OWNED (1: the pool is ours, in a file) and ROOT (the root dataset).
#
# A pool of ours carries the property stasis:dev with the state directory: a pool without it is never
# destroyed, nor is any file but ours.

POOL_SIZE=${STASIS_POOL_SIZE:-8G}

pool_file() { echo "$STATE/data/pool.img"; }

pool_imported() { [ "$(zpool list -H -o name "$POOL" 2>/dev/null)" = "$POOL" ]; }

pool_is_ours() { [ "$(zfs get -H -o value stasis:dev "$POOL" 2>/dev/null)" = "$STATE" ]; }

pool_up() {
  [ "$ZFS" = kernel ] || start_zfs_fuse
  if [ "$POOL_OWNED" = 0 ]; then
    pool_imported || die "there is no pool $POOL: import it first, or leave --pool out to get one in a file"
    return 0
  fi
  if pool_imported; then
    pool_is_ours || die "a pool named $POOL exists and is not this stack's: choose another name with --pool"
    return 0
  fi
  if [ -s "$(pool_file)" ]; then
    # The stack was up before zfs-fuse was killed or the machine restarted.
    zpool import -f -d "$STATE/data" -o cachefile=none "$POOL" ||
      die "the pool in $(pool_file) cannot be imported: run scripts/dev down, which deletes it, and up again"
    return 0
  fi
  truncate -s "$POOL_SIZE" "$(pool_file)"
  # In no cache file: nothing must open it at the next boot.
  zpool create -f -o cachefile=none -O "stasis:dev=$STATE" -O mountpoint=none "$POOL" "$(pool_file)" \
    >"$STATE/log/zpool" 2>&1 || die "zpool create failed: $(tr '\n' ' ' <"$STATE/log/zpool")"
}

pool_down() {
  local tries
  if [ "$ZFS" = fuse ] && [ -z "$(zfs_fuse_pid)" ]; then return 0; fi
  pool_imported || return 0
  if [ "$POOL_OWNED" = 1 ]; then
    pool_is_ours || return 0
    # A file system that was just unmounted is busy for a moment.
    for ((tries = 0; tries < 50; tries++)); do
      ! zpool destroy -f "$POOL" >"$STATE/log/zpool" 2>&1 || return 0
      pool_imported || return 0
      sleep 0.1
    done
    die "the pool $POOL cannot be destroyed: $(tr '\n' ' ' <"$STATE/log/zpool")"
  elif [ "$ROOT_OWNED" = 1 ] && zfs list -H "$ROOT" >/dev/null 2>&1; then
    for ((tries = 0; tries < 50; tries++)); do
      ! zfs destroy -f -R "$ROOT" >"$STATE/log/zpool" 2>&1 || return 0
      sleep 0.1
    done
    die "the dataset $ROOT cannot be destroyed: $(tr '\n' ' ' <"$STATE/log/zpool")"
  fi
}
