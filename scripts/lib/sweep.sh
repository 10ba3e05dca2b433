# shellcheck shell=bash
# Finds and removes what a stack has on the machine. Nothing here asks a daemon: it must work after
# `kill -9` of every one of them. Needs common.sh, machine.sh, and from scripts/dev: STATE, ID, POOL, ZFS.

# Daemons, shims and what they started: all have inherited STASIS_STACK.
daemon_pids() {
  local file pid
  for file in $(grep -lzx "STASIS_STACK=$STATE" /proc/[0-9]*/environ 2>/dev/null); do
    pid=${file#/proc/}; pid=${pid%/environ}
    if [ "/proc/$pid/root" -ef / ]; then echo "$pid"; fi
  done
}

# Processes of containers: those whose root directory is on a file system that is mounted below STATE
# (an overlay, a dataset), on a dataset of ours, or a directory below STATE. Devices and paths within
# them are compared, not names: a stack in a chroot can have the same STATE.
container_pids() {
  # grep reads the files: awk gives up at the first process that is gone before its turn.
  { grep -sE '^[0-9]+ [0-9]+ [^ ]+ [^ ]+ / ' /proc/[0-9]*/mountinfo || true; } |
    awk -v state="$STATE" -v dataset="$(dataset_prefix)" '
      function below(path, parent) { return index(path, parent == "/" ? parent : parent "/") == 1 }
      NR == FNR {
        for (i = 6; $i != "-"; i++);
        if (below($5, state)) { if ($(i + 1) ~ /^(overlay|fuse\.zfs|zfs|tmpfs)$/) ours[$3] = 1 }
        else if ((below(state, $5) || state == $5) && length($5) >= length(point)) {
          # the file system that STATE is on, and where in it
          point = $5; device = $3; place = ($4 == "/" ? "" : $4) substr(state, point == "/" ? 1 : length(point) + 1)
        }
        next
      }
      {
        for (i = 6; $i != "-"; i++);
        if (($3 == device ? below($4, place) : $3 in ours) || (dataset && index($(i + 2), dataset) == 1)) {
          split($1, part, "/"); print part[3]
        }
      }' /proc/self/mountinfo -
}

# What a mount of ours names as its source.
dataset_prefix() {
  if [ -z "${POOL:-}" ]; then return 0; fi
  if [ "$POOL_OWNED" = 1 ]; then echo "$POOL/"; else echo "$ROOT/"; fi
}

# namespace, id and bundle of every container that containerd knew.
bundles() {
  local dir id
  for dir in "$STATE"/containerd/state/io.containerd.runtime.v2.task/*/*; do
    [ -d "$dir" ] || continue
    id=${dir##*/}
    dir=${dir%/*}
    printf '%s %s\n' "${dir##*/}" "$id"
  done
}

# Relative paths of the cgroups in which our containers are or were, without the root.
container_cgroups() { # PID...
  local pid namespace id dir
  for pid in "$@"; do
    # A container is not in a cgroup of its own for every controller: ours and init's are nobody's to remove.
    sed -n 's|^[^:]*:[^:]*:/||p' "/proc/$pid/cgroup" 2>/dev/null |
      grep -vxF -f <(sed -n 's|^[^:]*:[^:]*:/||p' /proc/self/cgroup /proc/1/cgroup) || true
  done
  while read -r namespace id; do
    dir=$STATE/containerd/state/io.containerd.runtime.v2.task/$namespace/$id
    sed -n 's|.*"cgroupsPath": *"/*\([^"]*\)".*|\1|p' "$dir/config.json" 2>/dev/null || true
  done < <(bundles)
}

# Is that the id of a container in this containerd's database?
containerd_knew() { # ID
  grep -qaF "$1" "$STATE/data/containerd/io.containerd.metadata.v1.bolt/meta.db" 2>/dev/null
}

# Or one of whose task it has said that it lost the shim, as it does of every task that goes, deleted or killed?
containerd_saw() { # ID
  grep -qsF " id=$1 " "$STATE"/log/containerd.log*
}

cgroup_mounts() { awk '$3 ~ /^cgroup2?$/ { print $2 }' /proc/self/mounts; }

# Cgroups of containers, below ours or gone by now, and then the empty folders above them.
remove_cgroups() { # RELATIVE PATH...
  local mount path namespace
  while read -r mount; do
    for path in "$@"; do
      [ -d "$mount/$path" ] || continue
      find "$mount/$path" -depth -type d -exec rmdir {} + 2>/dev/null || true
      path=${path%/*}
      while [ "$path" != "${path%/*}" ]; do
        rmdir "$mount/$path" 2>/dev/null || break
        path=${path%/*}
      done
    done
    # A namespace has a cgroup too, and nobody removes it; nor those in it whose bundle is gone already.
    for namespace in "$STATE"/containerd/state/io.containerd.runtime.v2.task/* default; do
      namespace=${namespace##*/}
      for path in "$mount/$namespace"/*/; do
        path=${path%/}
        [ ! -d "$path" ] || ! containerd_knew "${path##*/}" || rmdir "$path" 2>/dev/null || true
      done
      if ! grep -qxF "$namespace" "$STATE/cgroups-before" 2>/dev/null; then
        rmdir "$mount/$namespace" 2>/dev/null || true
      fi
    done
  done < <(cgroup_mounts)
}

# A frozen process dies only when it thaws (version 1), and one that a killed CRIU held is let go by the kernel.
thaw() { # RELATIVE PATH...
  local mount path
  while read -r mount; do
    for path in "$@"; do
      { echo THAWED >"$mount/$path/freezer.state"; } 2>/dev/null || true
      { echo 0 >"$mount/$path/cgroup.freeze"; } 2>/dev/null || true
    done
  done < <(cgroup_mounts)
}

# containerd first, so that nothing is started or restarted; then the containers, while their shims can
# still reap them (an exec'ed process that is left to a slow init keeps its whole pid namespace); then the rest.
kill_everything() {
  local round pid pids daemons cgroups=()
  for pid in $(service_pid containerd) $(service_pid stasisd); do kill -KILL "$pid" 2>/dev/null || true; done
  for ((round = 0; round < 20; round++)); do
    mapfile -t daemons < <(daemon_pids)
    mapfile -t pids < <(container_pids)
    [ $((${#daemons[@]} + ${#pids[@]})) -gt 0 ] || break
    remember_sockets_and_fifos ${daemons[@]+"${daemons[@]}"}
    mapfile -t -O ${#cgroups[@]} cgroups < <(container_cgroups ${pids[@]+"${pids[@]}"} | sort -u)
    if [ ${#pids[@]} -gt 0 ]; then
      kill -KILL "${pids[@]}" 2>/dev/null || true
      thaw ${cgroups[@]+"${cgroups[@]}"}
      wait_gone 0.5 "${pids[@]}" || true
    fi
    [ ${#daemons[@]} = 0 ] || kill -KILL "${daemons[@]}" 2>/dev/null || true
    wait_gone 5 ${daemons[@]+"${daemons[@]}"} ${pids[@]+"${pids[@]}"} || true
  done
  if [ "$round" = 20 ]; then die "processes of this stack do not end: ${daemons[*]} ${pids[*]}"; fi
  mapfile -t -O ${#cgroups[@]} cgroups < <(container_cgroups | sort -u)
  remove_cgroups ${cgroups[@]+"${cgroups[@]}"}
}

# Shims' sockets and clients' FIFOs lie outside the state directory (/run/containerd/{s,fifo} is fixed in
# containerd's shim and in ctr). Who has them open tells whose they are, as long as somebody lives.
LEFT_BEHIND=()
remember_sockets_and_fifos() { # PID...
  [ $# -gt 0 ] || return 0
  mapfile -t -O ${#LEFT_BEHIND[@]} LEFT_BEHIND < <(
    find "${@/#//proc/}" -maxdepth 2 -path '*/fd/*' -printf '%l\n' 2>/dev/null | sort -u |
      awk '/^\/run\/containerd\/fifo\// { print }
           /^socket:/ { inode[substr($0, 9, length($0) - 9)] = 1 }
           END { while ((getline <"/proc/net/unix") > 0) if ($7 in inode && $8 ~ "^/run/containerd/s/") print $8 }'
  )
}

# After a kill -9 the bundles still tell: their address files, and the ids in the FIFOs' names, which
# are those of containers and of processes (a bundle has a pid file for each).
# Is no containerd left on this machine that somebody's FIFOs could be for?
no_containerd() {
  local file name
  for file in /proc/[0-9]*/comm; do
    { read -r name <"$file"; } 2>/dev/null || continue
    case $name in containerd* | dockerd) return 1 ;; esac
  done
}

sweep_run_containerd() {
  local file id dir in_use alone=0
  for file in "$STATE"/containerd/state/io.containerd.runtime.v2.task/*/*/{address,bootstrap.json}; do
    [ -r "$file" ] || continue
    mapfile -t -O ${#LEFT_BEHIND[@]} LEFT_BEHIND < <(grep -o '/run/containerd/s/[0-9a-zA-Z]*' "$file")
  done
  # The bundle of a shim that was killed may be gone, and its address with it. Nobody can use a socket
  # file without a socket, whoever made it.
  for file in /run/containerd/s/*; do
    if [ -S "$file" ] && [ "$file" -nt "$STATE/config.toml" ] && ! grep -q " $file\$" /proc/net/unix; then LEFT_BEHIND+=("$file"); fi
  done
  # Everything of ours is dead by now: what is open is another stack's, which may have the same ids.
  in_use=$(find /proc/[0-9]*/fd -lname '/run/containerd/fifo/*' -printf '%l\n' 2>/dev/null) || true
  # Of a container or an exec that was removed, containerd knows nothing any more, and ctr has left its FIFOs all the same.
  if no_containerd; then alone=1; fi
  for dir in /run/containerd/fifo/*/; do
    for file in "$dir"*-std{in,out,err}; do
      if [ -p "$file" ] && [ "$file" -nt "$STATE/config.toml" ] && [[ $in_use != *"$dir"* ]]; then
        id=${file##*/}; id=${id%-std*}
        if [ "$alone" = 1 ] || containerd_knew "$id" || containerd_saw "$id" || compgen -G "$STATE/containerd/state/io.containerd.runtime.v2.task/*/*/$id.pid" >/dev/null; then
          LEFT_BEHIND+=("$file")
        fi
        break
      fi
    done
  done
  # A FIFO goes with its directory, which ctr makes for one process.
  [ ${#LEFT_BEHIND[@]} = 0 ] || printf '%s\0' "${LEFT_BEHIND[@]}" | sed -z 's|^\(/run/containerd/fifo/[^/]*\)/.*|\1|' | xargs -0 rm -rf --
  # runc's and crun's records of containers: both name the bundle. One that is half deleted names nothing.
  for dir in /run/containerd/runc/*/*/; do
    dir=${dir%/}
    [ -d "$dir" ] || continue
    if [ ! -e "$dir/state.json" ] && [ ! -e "$dir/status" ]; then
      containerd_knew "${dir##*/}" || continue
    else
      # json-c writes a slash as \/
      { cat "$dir/state.json" "$dir/status" 2>/dev/null || true; } | sed 's|\\/|/|g' | grep -qF "$STATE/containerd/state/" || continue
    fi
    rm -rf "$dir"
    rmdir "${dir%/*}" 2>/dev/null || true
  done
}

unmount_datasets() {
  local point
  awk -v dataset="$(dataset_prefix)" '{
    for (i = 6; $i != "-"; i++);
    if (index($(i + 2), dataset) == 1) print $5
  }' /proc/self/mountinfo | tac | while read -r point; do umount -l "$(printf '%b' "$point")" 2>/dev/null || true; done
}

# Every mount below STATE and every mount of a dataset of ours, the latest first.
unmount_everything() {
  local round i point points
  for ((round = 0; round < 20; round++)); do
    mapfile -t points < <(awk -v state="$STATE/" -v dataset="$(dataset_prefix)" '{
      for (i = 6; $i != "-"; i++);
      if (index($5, state) == 1 || (dataset && index($(i + 2), dataset) == 1)) print $5
    }' /proc/self/mountinfo)
    [ ${#points[@]} -gt 0 ] || return 0
    [ "$round" = 0 ] || sleep 0.1
    for ((i = ${#points[@]} - 1; i >= 0; i--)); do
      printf -v point '%b' "${points[i]}" # the kernel writes a blank as \040
      umount "$point" 2>/dev/null || { [ "$round" -gt 10 ] && umount -l "$point" 2>/dev/null; } || true
    done
  done
  die "cannot unmount ${points[*]}: see who uses it with fuser -vm"
}
