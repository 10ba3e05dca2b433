# shellcheck shell=bash
# What the stacks of one machine share, for as long as one of them is up: CRIU's cached kernel probe
# and, where crun needs it, cgroup mounts. Needs common.sh.
#
#   /run/stasis-dev/stacks/<id>   one file a stack, with its state directory
#   /run/stasis-dev/<mark>        what was changed on the machine, for the last `down` to undo
#
# It is a tmpfs, whatever /run is: nothing in it outlives a reboot.

MACHINE=/run/stasis-dev
CRIU_CACHE=/run/criu.kdat # compiled into CRIU

# Held while the records here change, never while anything is waited for: a stack that hangs must not
# hold up another. Released at the end of the subshell that took it.
machine_lock() {
  exec 7</run
  flock -w 60 7 || die "another scripts/dev has been at work on $MACHINE for a minute: wait for it, or end it"
}

machine_enter() ( # ID STATE
  machine_lock
  if [ ! -d "$MACHINE/stacks" ]; then
    mkdir -p "$MACHINE"
    is_tmpfs "$MACHINE" || mount -t tmpfs -o mode=700,size=16m,nosuid,nodev,noexec stasis-dev "$MACHINE"
    mkdir -p "$MACHINE/stacks"
  fi
  printf '%s\n' "$2" >"$MACHINE/stacks/$1"
  for dir in /run/containerd /run/containerd/{fifo,s,runc}; do
    [ -e "$dir" ] || printf '%s\n' "$dir" >>"$MACHINE/directories"
  done
  split_hybrid_cgroups
  share_criu_cache
)

# The state directories of the stacks that are up; forgets those that somebody deleted.
machine_stacks() {
  local file state
  for file in "$MACHINE"/stacks/*; do
    [ -r "$file" ] || continue
    read -r state <"$file"
    if [ -d "$state" ]; then echo "$state"; else rm -f "$file"; fi
  done
}

machine_leave() ( # ID
  machine_lock
  rm -f "$MACHINE/stacks/$1"
  [ -d "$MACHINE/stacks" ] && [ -z "$(machine_stacks)" ] || exit 0
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
  ! mountpoint -q "$MACHINE" || umount -l "$MACHINE"
  rm -rf "$MACHINE"
)

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
# version 1 takes them away from version 2. It also restores into the root cgroup where a hierarchy of
# version 1 lives on, with cgroups in it, and is mounted nowhere.
split_hybrid_cgroups() {
  local unified=/sys/fs/cgroup/unified controller dir controllers=()
  [ -r "$unified/cgroup.controllers" ] || return 0
  read -ra controllers <"$unified/cgroup.controllers" || true
  while read -r controller; do
    grep -qE " - cgroup [^ ]+ ([^ ]*,)?$controller(,|\$)" /proc/self/mountinfo || controllers+=("$controller")
  done < <(awk '$2 > 0 && $4 == 1 { print $1 }' /proc/cgroups | grep -vxF -f <(printf '%s\n' "${controllers[@]-}"))
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

is_zombie() { # PID
  local stat
  { read -r stat </proc/"$1"/stat; } 2>/dev/null || return 0
  stat=${stat##*) }
  [ "${stat%% *}" = Z ]
}

# Waits until the processes are gone or dead; fails if they are not by then.
wait_gone() { # SECONDS PID...
  local pid left end=$((${EPOCHREALTIME//[.,]/} + $(milliseconds "$1") * 1000))
  shift
  while :; do
    left=0
    for pid in "$@"; do is_zombie "$pid" || left=1; done
    [ "$left" = 1 ] || return 0
    [ "${EPOCHREALTIME//[.,]/}" -lt "$end" ] || return 1
    sleep 0.01
  done
}

milliseconds() { # SECONDS
  case $1 in
    *.*) local fraction=${1#*.}000; echo $((${1%.*} * 1000 + 10#${fraction:0:3})) ;;
    *) echo $(($1 * 1000)) ;;
  esac
}
