# shellcheck shell=bash
# The two daemons of a stack: how their configuration is written, how they start, what belongs to them.
# Needs common.sh, and from scripts/dev: STATE and the settings.

STASISD_SOCKET() { echo "$STATE/run/stasisd.sock"; }
CONTAINERD_SOCKET() { echo "$STATE/containerd/containerd.sock"; }

containerd_folder() {
  case $CONTAINERD in /*) echo "$CONTAINERD" ;; *) echo "$STASIS_CACHE/containerd-$CONTAINERD/bin" ;; esac
}

# What the daemons, and whoever works with the stack, find programs by: ours, then this containerd's,
# then CRIU, crun and zfs from the cache, then the host's.
stack_path() {
  local path
  path=$STASIS_SRC/dist:$(containerd_folder):$STASIS_CACHE/criu/bin:$STASIS_CACHE/crun/bin
  [ "$ZFS" != fuse ] || path=$path:$STATE/zfs
  echo "$path:$HOST_PATH"
}

write_stasis_config() {
  cat >"$STATE/config.toml" <<TOML
[zfs]
root = "$ROOT"

[daemon]
run_dir = "$STATE/run"

[containerd]
address = "$(CONTAINERD_SOCKET)"

[runtime]
oci = "$OCI"
criu = "$STASIS_CACHE/criu/bin/criu"
TOML
}

# Of what nobody asked for, everything that costs time at the start or looks outside is left out.
disabled_plugins() {
  local plugins=(
    snapshotter.v1.zfs snapshotter.v1.btrfs snapshotter.v1.devmapper snapshotter.v1.aufs
    snapshotter.v1.blockfile snapshotter.v1.erofs differ.v1.erofs
    internal.v1.tracing tracing.processor.v1.otlp
  )
  if [ "$CRI" = 0 ]; then
    plugins+=(grpc.v1.cri cri.v1.images cri.v1.runtime podsandbox.controller.v1.podsandbox grpc.v1.sandbox-controllers)
  fi
  printf '"io.containerd.%s", ' "${plugins[@]}"
}

# As src/zfs/abilities.ts has it.
maps_ids() { kernel_zfs && is_from "$(cat /sys/module/zfs/version)" 2.2 && is_from "$(uname -r)" 5.12; }

is_from() { [ "$(printf '%s\n' "$2" "$1" | sort -V | head -n 1)" = "$2" ]; }

# Version 2 of the format, with both addresses written out, keeps every containerd from 1.6 to 2.4
# inside the state directory (in a version 4 file the ttrpc address would be the host's).
write_containerd_config() {
  local sections=''
  if [ "$DAEMON" = 1 ]; then
    local newer=()
    [ "$CONTAINERD" != 1.6 ] || newer=(-e '/^# --- from containerd 1.7 on/,/^# --- end of that part/d')
    sections=$(sed ${newer[@]+"${newer[@]}"} -e '/^#/d' -e '/^version = /d' -e "s|/run/stasis/stasisd.sock|$(STASISD_SOCKET)|g" "$STASIS_SRC/containerd-config.toml")
    ! maps_ids || sections=${sections/'type = "snapshot"'/'type = "snapshot"'$'\n''  capabilities = ["remap-ids"]'}
  fi
  cat >"$STATE/containerd.toml" <<TOML
version = 2
root = "$STATE/data/containerd"
state = "$STATE/containerd/state"
temp = "$STATE/data/tmp"
disabled_plugins = [$(disabled_plugins)]

[grpc]
  address = "$(CONTAINERD_SOCKET)"

[ttrpc]
  address = "$(CONTAINERD_SOCKET).ttrpc"

[debug]
  address = "$STATE/containerd/debug.sock"
  level = "$LOG_LEVEL"

[plugins."io.containerd.internal.v1.opt"]
  path = "$STATE/data/opt"

[plugins."io.containerd.nri.v1.nri"]
  disable = true
TOML
  # The directory for shim sockets can be chosen from 2.3 on. Older ones use /run/containerd/s.
  if [ "$CRI" = 1 ]; then
    cat >>"$STATE/containerd.toml" <<TOML

[plugins."io.containerd.grpc.v1.cri"]
  disable_tcp_service = true
  stream_server_address = "127.0.0.1"
  stream_server_port = "0"
  restrict_oom_score_adj = true
  netns_mounts_under_state_dir = true
  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "$SNAPSHOTTER"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.stasis]
      runtime_type = "io.containerd.stasis.v2"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"
      [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
        Root = "$STATE/containerd/runc"
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/opt/cni/bin"
    conf_dir = "$STATE/data/cni"
TOML
  fi
  printf '\n%s\n' "$sections" >>"$STATE/containerd.toml"
  if [ "$DAEMON" = 1 ]; then
    cat >>"$STATE/containerd.toml" <<'TOML'

[[plugins."io.containerd.transfer.v1.local".unpack_config]]
  platform = "linux"
  snapshotter = "native"
  differ = "walking"
TOML
  fi
}

# Starts a daemon whose descendants can be told from all other processes: STASIS_STACK is passed on to
# the shims, and `scripts/dev env` does not set it. The folder `drop-in` is a test's to make.
start_service() { # NAME COMMAND...
  local name=$1
  shift
  (
    ulimit -n "$(ulimit -Hn)" 2>/dev/null || true
    cd /
    exec env -u XDG_DATA_HOME STASIS_STACK="$STATE" STASIS_CONFIG="$STATE/config.toml" PATH="$STATE/drop-in:$(stack_path)" \
      TMPDIR="$STATE/data/tmp" XDG_RUNTIME_DIR="$STATE/data/tmp" \
      setsid "$@" >>"$STATE/log/$name.log" 2>&1 </dev/null 9<&-
  ) &
  SERVICE_PID=$!
  disown # bash need not tell when it ends
  printf '%s\n' "$SERVICE_PID" >"$STATE/$name.pid"
}

# Waits until somebody listens on the socket; the reason why nobody does is in the log.
wait_listening() { # NAME SOCKET
  local tries
  for ((tries = 0; tries < 6000; tries++)); do
    ! listening "$2" || return 0
    if ! kill -0 "$SERVICE_PID" 2>/dev/null; then fail_service "$1" "ended while it started"; fi
    sleep 0.005
  done
  fail_service "$1" "did not listen on $2 within 30 seconds"
}

fail_service() { # NAME WHAT
  warn "the last lines of $STATE/log/$1.log:"
  tail -n 15 "$STATE/log/$1.log" >&2 || true
  die "$1 $2: see its log above"
}

# 00010000 is the kernel's mark of a listening socket. Its file is looked at too: the table also lists
# those of other file systems (chroots).
listening() { # SOCKET
  [ -S "$1" ] && grep -q "^[^ ]* [^ ]* [^ ]* 00010000 .* $1\$" /proc/net/unix
}

start_stasisd() {
  [ "$DAEMON" = 1 ] || return 0
  ! listening "$(STASISD_SOCKET)" || return 0
  local program=${STASISD:-$STASIS_SRC/dist/stasisd}
  [ -e "$program" ] || die "$program is missing: run npm run build (or give --no-daemon for containerd alone)"
  if [ -x "$program" ]; then
    start_service stasisd "$program"
  else
    start_service stasisd "$STASIS_SRC/scripts/node" "$program"
  fi
  wait_listening stasisd "$(STASISD_SOCKET)"
}

start_containerd() {
  ! listening "$(CONTAINERD_SOCKET)" || return 0
  start_service containerd "$(containerd_folder)/containerd" --config "$STATE/containerd.toml"
  wait_listening containerd "$(CONTAINERD_SOCKET)"
}

# The process that serves, or nothing: its pid file may be older than a crash.
service_pid() { # NAME
  local pid
  [ -r "$STATE/$1.pid" ] || return 0
  read -r pid <"$STATE/$1.pid"
  if [ -n "$pid" ] && ! is_zombie "$pid" && is_stack_process "$pid"; then echo "$pid"; fi
}

is_stack_process() { # PID
  [ "/proc/$1/root" -ef / ] && grep -qzx "STASIS_STACK=$STATE" "/proc/$1/environ" 2>/dev/null
}

stop_service() { # NAME
  local pid
  pid=$(service_pid "$1")
  if [ -n "$pid" ]; then
    kill -TERM "$pid" 2>/dev/null || true
    wait_gone 5 "$pid" || { kill -KILL "$pid" 2>/dev/null || true; wait_gone 5 "$pid" || true; }
  fi
  rm -f "$STATE/$1.pid"
}
