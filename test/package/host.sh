# shellcheck shell=bash
# What the scripts that run in the Debian tree share. Sourced by them.
set -euo pipefail
exec 2>&1
step() { printf '\n== %s\n' "$*"; }
fail() { echo "FAILED: $*"; exit 1; }
until_ok() { for _ in $(seq 100); do ! "$@" >/dev/null 2>&1 || return 0; sleep 0.2; done; fail "$* does not succeed"; }

# Files that packages and setup could have a part in, without dpkg's own records, logs and caches.
files() {
  local folders=(/etc /usr /opt /var/lib/stasis /var/cache/stasis)
  {
    find "${folders[@]}" -xdev -type f -not -path '*/ld.so.cache' -not -path '*/compile-cache/*' -print0 2>/dev/null | xargs -0 md5sum
    find "${folders[@]}" -xdev -type l -printf '%p -> %l\n' -o -type d -printf '%p %m\n' 2>/dev/null
  } | sort || true
}

# A pool in a file, on zfs-fuse.
make_pool() {
  zfs-fuse --no-daemon --enable-xattr >/dev/null 2>&1 &
  until_ok zpool list
  truncate -s 1G /var/pool.img
  zpool create -f -m none tank /var/pool.img
}

# systemd cannot run here. Of it the packages and setup use `systemctl` alone: this one starts and stops the two services.
stand_in_for_systemd() {
  mkdir -p /run/systemd/system /run/stand-in
  install -m 755 /dev/stdin /usr/local/bin/systemctl <<'SYSTEMCTL'
#!/bin/bash
state=/run/stand-in now=0 words=()
echo "systemctl $*" >>/run/stand-in/calls
for word; do
  case $word in --now) now=1 ;; -*) ;; *) words+=("$word") ;; esac
done
verb=${words[0]:-} service=${words[1]:-}
service=${service%.service}
running() { kill -0 "$(cat "$state/$service.pid")" 2>/dev/null; } 2>/dev/null
answers() {
  case $service in containerd) timeout 1 ctr version ;; stasisd) stasis info ;; esac >/dev/null 2>&1
}
start() {
  ! running || return 0
  # shellcheck disable=SC2016  # for the shell that becomes the service
  setsid -f bash -c 'echo $$ >"$1"; exec "$2"' - "$state/$service.pid" "$service" </dev/null >>"/var/log/$service.log" 2>&1
  for _ in $(seq 30); do
    sleep 0.1
    ! answers || return 0
    running || { echo "Job for $service.service failed." >&2; return 1; }
  done
  echo "Job for $service.service failed because a timeout was exceeded." >&2
  return 1
}
stop() {
  running || return 0
  kill "$(cat "$state/$service.pid")"
  while running; do sleep 0.1; done
}
case $verb in
  show)
    # What systemd looks for, and what was enabled or started.
    [ -e "/usr/lib/systemd/system/$service.service" ] || [ "$service" = containerd ] || { echo LoadState=not-found; exit 0; }
    echo LoadState=loaded
    [ -e "$state/$service.enabled" ] && echo UnitFileState=enabled || echo UnitFileState=disabled
    running && echo ActiveState=active || echo ActiveState=inactive
    ;;
  is-enabled) [ -e "$state/$service.enabled" ] && echo enabled ;;
  is-active) running && echo active ;;
  enable)
    touch "$state/$service.enabled"
    [ ! -e /run/stand-in/kill-caller ] || { rm /run/stand-in/kill-caller; kill -9 "$PPID"; exit 1; }
    [ "$now" = 0 ] || start
    ;;
  disable) rm -f "$state/$service.enabled" ;;
  start) start ;;
  stop) stop ;;
  restart) stop && start ;;
  try-restart) ! running || { stop && start; } ;;
  daemon-reload) ;;
  *) echo "the stand-in for systemctl does not know: $*" >&2; exit 64 ;;
esac
SYSTEMCTL
}
