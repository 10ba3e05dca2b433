# shellcheck shell=bash
# What the stacks of one machine share, for as long as one of them is up: the zfs-fuse daemon (there
# can be only one), CRIU's cached kernel probe and, where crun needs it, cgroup mounts. Needs common.sh.
#
#   /run/stasis-dev/stacks/<id>   one file a stack, with its state directory
#   /run/stasis-dev/<mark>        what was changed on the machine, for the last `down` to undo
#
# It is a tmpfs, whatever /run is: nothing in it outlives a reboot.

MACHINE=/run/stasis-dev
CRIU_CACHE=/run/criu.kdat # compiled into CRIU

# Held for the whole of every command that changes something; released when the process ends.
# Whatever is started in the background must close descriptor 9, or it holds the lock for ever.
machine_lock() {
  exec 9</run
  flock -w 120 9 || die "another scripts/dev has been at work for two minutes: wait for it, or end it"
}

machine_enter() { # ID STATE
  if [ ! -d "$MACHINE/stacks" ]; then
    mkdir -p "$MACHINE"
    is_tmpfs "$MACHINE" || mount -t tmpfs -o mode=700,size=16m,nosuid,nodev,noexec stasis-dev "$MACHINE"
    mkdir -p "$MACHINE/stacks"
  fi
  printf '%s\n' "$2" >"$MACHINE/stacks/$1"
  local dir
  for dir in /run/containerd /run/containerd/{fifo,s,runc}; do
    [ -e "$dir" ] || printf '%s\n' "$dir" >>"$MACHINE/directories"
  done
  split_hybrid_cgroups
  share_criu_cache
}

# The state directories of the stacks that are up; forgets those that somebody deleted.
machine_stacks() {
  local file state
  for file in "$MACHINE"/stacks/*; do
    [ -r "$file" ] || continue
    read -r state <"$file"
    if [ -d "$state" ]; then echo "$state"; else rm -f "$file"; fi
  done
}

machine_leave() { # ID
  rm -f "$MACHINE/stacks/$1"
  [ -d "$MACHINE/stacks" ] || return 0
  [ -z "$(machine_stacks)" ] || return 0
  stop_zfs_fuse
  unshare_criu_cache
  rejoin_hybrid_cgroups
  if [ -r "$MACHINE/directories" ]; then
    # A folder that somebody else began to use is not empty, and stays.
    sort -r "$MACHINE/directories" | while read -r dir; do
      # crun keeps an empty folder in each of its roots.
      [ "$dir" != /run/containerd/runc ] || rmdir "$dir"/*/.empty-directory "$dir"/* 2>/dev/null || true
      rmdir "$dir" 2>/dev/null || true
    done
  fi
  if grep -q " $MACHINE tmpfs " /proc/self/mounts; then umount -l "$MACHINE"; fi
  rm -rf "$MACHINE"
}

# CRIU probes the kernel in every call (40 ms) unless it finds the result of an earlier call in
# /run/criu.kdat, which it writes only where /run is a tmpfs and so gone at the next boot. Where it
# is not, the probe is made once with a tmpfs there, in a mount namespace, and kept in our tmpfs; what
# lies in /run is a symbolic link, which leads nowhere after a reboot. Nothing then can be stale.
share_criu_cache() {
  local criu=$STASIS_CACHE/criu/bin/criu
  if is_tmpfs /run || [ -e "$CRIU_CACHE" ] || [ ! -x "$criu" ]; then return 0; fi
  # shellcheck disable=SC2016  # expanded by the inner shell
  unshare --mount sh -c '
    mkdir -p "$2" && mount --bind "$2" /mnt && mount -t tmpfs none /run &&
    { "$1" check; cat /run/criu.kdat >/mnt/criu.kdat; }' - "$criu" "$MACHINE" >/dev/null 2>&1 || true
  if [ -s "$MACHINE/criu.kdat" ]; then
    ln -sfn "$MACHINE/criu.kdat" "$CRIU_CACHE"
  else
    rm -f "$MACHINE/criu.kdat"
  fi
}

unshare_criu_cache() {
  [ "$(readlink "$CRIU_CACHE" 2>/dev/null)" != "$MACHINE/criu.kdat" ] || rm -f "$CRIU_CACHE" "$CRIU_CACHE.tmp"
}

# crun refuses a machine with cgroup v1 controllers that has some of version 2 too. Mounting those as
# version 1 takes them away from version 2.
split_hybrid_cgroups() {
  local unified=/sys/fs/cgroup/unified controller dir controllers=()
  [ -r "$unified/cgroup.controllers" ] || return 0
  read -ra controllers <"$unified/cgroup.controllers" || true
  for controller in ${controllers[@]+"${controllers[@]}"}; do
    dir=/sys/fs/cgroup/$controller
    [ -e "$dir" ] || mkdir "$dir" || continue
    if mount -t cgroup -o "$controller" cgroup "$dir" 2>/dev/null; then
      printf '%s\n' "$dir" >>"$MACHINE/cgroups"
    else
      rmdir "$dir" 2>/dev/null || true
      warn "cannot mount the cgroup controller $controller as version 1: crun will refuse to run here, runc will not"
    fi
  done
}

rejoin_hybrid_cgroups() {
  local dir
  [ -r "$MACHINE/cgroups" ] || return 0
  while read -r dir; do
    # With a cgroup left in it the hierarchy would live on, mounted nowhere, and the next shim would
    # find no metrics.
    find "$dir" -mindepth 1 -depth -type d -exec rmdir {} + 2>/dev/null || true
    umount "$dir" 2>/dev/null || umount -l "$dir"
    rmdir "$dir" 2>/dev/null || true
  done <"$MACHINE/cgroups"
}

# The process id of the machine's zfs-fuse, if there is one in our file system.
zfs_fuse_pid() {
  local comm pid
  for comm in $(grep -lx zfs-fuse /proc/[0-9]*/comm 2>/dev/null); do
    pid=${comm#/proc/}; pid=${pid%/comm}
    if [ "/proc/$pid/root" -ef / ] && ! is_zombie "$pid"; then echo "$pid"; return; fi
  done
}

is_zombie() { # PID
  local stat
  { read -r stat </proc/"$1"/stat; } 2>/dev/null || return 0
  stat=${stat##*) }
  [ "${stat%% *}" = Z ]
}

# Where `zfs` and `zpool` for zfs-fuse are: beside the daemon that runs, else in the cache.
zfs_fuse_bin() {
  local pid exe
  pid=$(zfs_fuse_pid)
  if [ -n "$pid" ]; then
    exe=$(readlink "/proc/$pid/exe" || true)
    exe=${exe% (deleted)}
    if [ -x "${exe%/*}/zpool" ]; then echo "${exe%/*}"; return; fi
  fi
  echo "$STASIS_CACHE/zfs-fuse/bin"
}

# Attributes and names may be cached for long: every dataset is mounted once, and only through it.
# Extended attributes are off by default; images use them (file capabilities).
start_zfs_fuse() {
  [ -z "$(zfs_fuse_pid)" ] || return 0
  local bin=$STASIS_CACHE/zfs-fuse/bin log=$MACHINE/zfs-fuse.log tries
  [ -x "$bin/zfs-fuse" ] || die "zfs-fuse is missing: run scripts/install-deps"
  [ -c /dev/fuse ] || die "/dev/fuse is missing, and zfs-fuse needs it: load the kernel's fuse module (modprobe fuse)"
  [ -e /run/zfs ] || printf '%s\n' /run/zfs >>"$MACHINE/directories"
  [ -e /run/lock/zfs ] || printf '%s\n' /run/lock/zfs >>"$MACHINE/directories"
  # Without a daemon a socket is a left-over of one that was killed.
  rm -f /run/zfs/zfs_socket
  (cd / && exec setsid "$bin/zfs-fuse" --no-daemon --no-kstat-mount --enable-xattr \
    --fuse-attr-timeout 3600 --fuse-entry-timeout 3600 --fuse-mount-options default_permissions \
    --max-arc-size 512 >"$log" 2>&1 </dev/null 9>&-) &
  printf '%s\n' $! >"$MACHINE/zfs-fuse.pid"
  for ((tries = 0; tries < 500; tries++)); do
    ! "$bin/zpool" list >/dev/null 2>&1 || return 0
    sleep 0.02
  done
  die "zfs-fuse does not answer: $(tail -n 3 "$log" 2>/dev/null | tr '\n' ' ')"
}

# Only the daemon that a stack has started, and only when no pool is left in it.
stop_zfs_fuse() {
  local pid
  [ -r "$MACHINE/zfs-fuse.pid" ] || return 0
  read -r pid <"$MACHINE/zfs-fuse.pid"
  if [ "$(zfs_fuse_pid)" = "$pid" ]; then
    if [ -n "$("$(zfs_fuse_bin)/zpool" list -H -o name 2>/dev/null)" ]; then
      warn "zfs-fuse (process $pid) goes on: it holds pools that are not ours"
      return 0
    fi
    # It has nothing to write, and its own orderly way out can take ten seconds.
    kill -KILL "$pid" 2>/dev/null || true
    wait_gone "$pid" || true
  fi
  rm -f /run/zfs/zfs_socket /run/lock/zfs/zfs_lock "$MACHINE/zfs-fuse.pid"
}

# Waits until the processes are gone or dead, 5 seconds at most.
wait_gone() { # PID...
  local tries pid left
  for ((tries = 0; tries < 250; tries++)); do
    left=0
    for pid in "$@"; do is_zombie "$pid" || left=1; done
    [ "$left" = 1 ] || return 0
    sleep 0.02
  done
  return 1
}
