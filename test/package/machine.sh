# shellcheck shell=bash
# The life of the packages on a Debian 13 host with systemd, containerd as Debian has it, and OpenZFS's kernel module: run
# in the virtual machine by machine.test.ts, in two parts with a reboot between them.
#
#   machine.sh before|after PACKAGES     PACKAGES: the folder with first/, second/ and the image
set -euo pipefail
part=$1 packages=$2
# shellcheck source=test/package/host.sh
. "$packages/host.sh"
export LC_ALL=C.UTF-8 DEBIAN_FRONTEND=noninteractive SYSTEMD_PAGER=
# On the machine's disk: /tmp is gone after the reboot.
kept=/root/kept
image=docker.io/stasis/test:latest

main_pid() { systemctl show --property MainPID --value "$1"; }
# How far a container has counted. The file is not there for an instant when it was deleted.
number() {
  local found _
  for _ in $(seq 60); do
    found=$(ctr tasks exec --exec-id "n$RANDOM" "$1" tail -n 1 /count 2>/dev/null) || true
    case $found in
      '' | *[!0-9]*) sleep 0.2 ;;
      *) echo "$found"; return ;;
    esac
  done
  fail "$1 has written no number"
}
# A task's process.
task() { ctr tasks ls | sed -n "s/^$1  *\([0-9]*\) .*/\1/p"; }
until_counts() { # CONTAINER NUMBER: waits until the container has counted further than that
  local now _
  for _ in $(seq 60); do
    now=$(number "$1")
    [ "$now" -le "$2" ] || return 0
    sleep 1
  done
  fail "$1 does not count on from $2"
}
active() {
  local service
  for service in "$@"; do [ "$(systemctl is-active "$service")" = active ] || fail "$service is $(systemctl is-active "$service")"; done
}
# As an administrator installs a file: apt looks for what the package depends on, and finds it on this host.
apt_install() { apt-get install -y --no-install-recommends --allow-downgrades -o Dpkg::Use-Pty=0 "$@"; }
mode() { stat -c %a "$1"; }
# What stasisd has said at a priority or above it. --sync, as the journal is written a little later.
said() { # PRIORITY
  journalctl --sync
  journalctl --unit stasisd.service --priority "$1" --output cat --no-pager
}
failed_units() { systemctl list-units --failed --plain --no-legend | awk '{ print $1 }'; }

# Sums of what is configured; of the programs size and time, since an emulated processor takes minutes to read them.
files() {
  local settings=(/etc /opt /var/lib/stasis) programs=(/usr /var/cache/stasis)
  {
    # ZFS writes its list of pools anew when it imports one.
    find "${settings[@]}" -xdev -type f -not -path /etc/ld.so.cache -not -path /etc/zfs/zpool.cache -print0 | xargs -0 md5sum
    find "${settings[@]}" "${programs[@]}" -xdev -type l -printf '%p -> %l\n' -o -type d -printf '%p %m\n'
    find "${programs[@]}" -xdev -type f -not -path '*/compile-cache/*' -printf '%p %m %s %T@\n'
  } 2>/dev/null | sort || true
}

# What has to be as it was before when all is purged: files, units, datasets, and what containerd has in force.
look() { # FOLDER
  mkdir -p "$1"
  files >"$1/files"
  # The units themselves, and what is enabled, are files. `systemctl list-unit-files` takes longer here than it waits for.
  systemctl show --property LoadState,UnitFileState,ActiveState containerd.service stasisd.service >"$1/units"
  failed_units >"$1/failed-units"
  zfs list -H -o name -t all | grep -v '^tank/stasis\(/\|$\)' >"$1/datasets"
  containerd config dump >"$1/containerd"
}

before() {
  step before
  mkdir -p "$kept"
  systemctl enable --now containerd.service
  until_ok ctr version
  zpool create -m none tank /dev/vdb
  look "$kept/before"

  step install
  apt_install "$packages"/first/*.deb
  stasis version
  containerd config dump | diff "$kept/before/containerd" - || fail 'installing changed containerd'
  ! systemctl is-active --quiet stasisd.service || fail 'installing started stasisd'
  ! systemctl is-enabled --quiet stasisd.service || fail 'installing enabled stasisd'

  step setup
  stasis setup | tee /tmp/plan
  [ ! -e /etc/containerd/conf.d ] || fail 'setup without --yes changed something'
  stasis setup --yes --restart-containerd | tee /tmp/setup
  grep -q 'memory and disk' /tmp/setup || fail 'the check did not dump memory'
  active stasisd containerd
  systemctl is-enabled stasisd.service
  [ "$(systemctl show --property Type --value stasisd.service)" = notify ] || fail 'it is not of the type notify'
  stasis setup --yes | tee /tmp/second
  grep -q 'Nothing to do' /tmp/second || fail 'a second setup had something to do'

  step 'the main job through plain ctr'
  ctr images import --snapshotter stasis "$packages/image.tar"
  # shellcheck disable=SC2016  # for the container's shell
  ctr run -d --runtime io.containerd.stasis.v2 --snapshotter stasis "$image" web \
    sh -c 'n=0; while :; do n=$((n + 1)); echo $n >>/count; sleep 0.5; done'
  until_counts web 1
  stasis checkpoint web --name good --require-memory
  at=$(number web)
  ctr tasks exec --exec-id delete web rm /count
  until_counts web "$((at + 60))"
  stasis restore web --snapshot good --require-memory
  now=$(number web)
  [ "$now" -lt "$((at + 60))" ] || fail "the number did not go back: $now, and it was $at at the checkpoint"
  stasis clone web --from good
  ctr tasks ls | tee /tmp/tasks
  [ "$(grep -c RUNNING /tmp/tasks)" = 2 ] || fail 'no clone'
  ctr tasks pause web
  ctr tasks ls >/tmp/tasks
  grep -q '^web .*PAUSED' /tmp/tasks || fail 'it is not paused'
  ctr tasks resume web
  ctr tasks metrics web

  step 'containerd without stasisd'
  systemctl stop stasisd.service
  active containerd
  at=$(number web)
  until_counts web "$at"
  if ctr run --rm --runtime io.containerd.stasis.v2 --snapshotter stasis "$image" none true >/tmp/none 2>&1; then
    fail 'a container was made without a snapshotter'
  fi
  cat /tmp/none
  grep -qi 'unavailable\|stasisd.sock' /tmp/none || fail 'the error does not say that the snapshotter is unavailable'
  systemctl start stasisd.service
  until_ok ctr run --rm --runtime io.containerd.stasis.v2 --snapshotter stasis "$image" again true

  step 'who may speak to stasisd'
  [ "$(mode /run/stasis)" = 711 ] || fail "/run/stasis has the mode $(mode /run/stasis)"
  [ "$(mode /run/stasis/stasisd.sock)" = 600 ] || fail "stasisd.sock has the mode $(mode /run/stasis/stasisd.sock)"
  [ -z "$(find /run/stasis -type s -not -perm 600)" ] || fail "sockets for others: $(find /run/stasis -type s -not -perm 600)"
  [ -z "$(find /etc/stasis /var/lib/stasis /usr/lib/stasis -not -type l -perm /022)" ] || fail 'others may write files of ours'
  if setpriv --reuid nobody --clear-groups stasis ls >/tmp/nobody 2>&1; then fail 'nobody may list checkpoints'; fi
  cat /tmp/nobody

  step 'stasisd ends by force'
  pid=$(main_pid stasisd.service)
  systemctl kill --signal KILL stasisd.service
  until_ok new_stasisd "$pid"

  step 'stasisd hangs: the watchdog ends it'
  [ "$(systemctl show --property WatchdogUSec --value stasisd.service)" = 1min ] || fail 'there is no watchdog'
  pid=$(main_pid stasisd.service)
  systemctl kill --kill-whom main --signal STOP stasisd.service
  for _ in $(seq 90); do
    [ "$(main_pid stasisd.service)" = "$pid" ] || break
    sleep 1
  done
  until_ok new_stasisd "$pid"
  now=$(number web)
  until_counts web "$now"

  step 'stasisd is told to read its configuration'
  pid=$(main_pid stasisd.service)
  cp -p /etc/stasis/config.toml "$kept/config.toml"
  sed -i '1i log_levell = "debug"' /etc/stasis/config.toml
  if systemctl reload stasisd.service; then fail 'a configuration with a mistake was taken'; fi
  journalctl --sync
  journalctl --unit stasisd.service --output cat --no-pager | grep -q 'log_levell' || fail 'the journal does not name the mistake'
  # Past the check of the unit, stasisd itself refuses it too, aloud.
  systemctl kill --kill-whom main --signal HUP stasisd.service
  until_ok said_of log_levell err
  ! said err | grep -q '^ready\|msg=ready' || fail 'all is said with the priority of an error'
  cp -p "$kept/config.toml" /etc/stasis/config.toml
  systemctl reload stasisd.service
  active stasisd
  [ "$(main_pid stasisd.service)" = "$pid" ] || fail 'a reload started another stasisd'
  stasis info
  journalctl --unit stasisd.service --no-pager --lines 15

  step 'before the reboot'
  number web >"$kept/number"
  stasis checkpoint web --name kept --require-memory
  zfs list -H -o name -t all | sort >"$kept/all-datasets"
  cat /proc/sys/kernel/random/boot_id >"$kept/boot"
  # The shells that are the containers' first processes pay no heed to SIGTERM, and at its end systemd waits for them as
  # long as for a service: here five minutes.
  mkdir -p /run/systemd/system.conf.d
  printf '[Manager]\nDefaultTimeoutStopSec=60s\n' >/run/systemd/system.conf.d/zz-reboot.conf
  systemctl daemon-reload
  echo 'before: ok'
}

# Another stasisd than that process, which answers.
new_stasisd() {
  local now
  now=$(main_pid stasisd.service)
  [ "$now" != 0 ] && [ "$now" != "$1" ] && stasis info
}

said_of() { said "$2" | grep -q "$1"; } # WORD PRIORITY

# Installs the other build over this one, with the container `web` running.
replace() { # FOLDER WORD
  local pid daemon now
  pid=$(task web)
  daemon=$(main_pid stasisd.service)
  apt_install "$packages/$1"/*.deb
  dpkg-query -W -f '${Package} ${Version} ${Status}\n' stasis
  active stasisd containerd
  [ "$(main_pid stasisd.service)" != "$daemon" ] || fail "the $2 did not restart stasisd"
  [ "$(task web)" = "$pid" ] || fail 'the container was not left alone'
  now=$(number web)
  until_counts web "$now"
}

after() {
  step 'after the reboot'
  [ "$(cat /proc/sys/kernel/random/boot_id)" != "$(cat "$kept/boot")" ] || fail 'there was no reboot'
  systemctl is-system-running --wait || true
  failed_units | diff "$kept/before/failed-units" - || fail 'units have failed'
  active stasisd containerd
  # In the order that the unit asks for.
  [ "$(systemctl show --property ActiveEnterTimestampMonotonic --value stasisd.service)" -le \
    "$(systemctl show --property ExecMainStartTimestampMonotonic --value containerd.service)" ] || fail 'containerd was started first'
  zfs list -H -o name -t all | sort | diff "$kept/all-datasets" - || fail 'datasets differ from before the reboot'
  [ -z "$(ctr tasks ls -q)" ] || fail 'there are tasks after the reboot'
  stasis ls
  stasis restore web --snapshot kept --require-memory
  now=$(number web)
  [ "$now" -ge "$(cat "$kept/number")" ] || fail "it does not go on from its checkpoint, but from $now"
  until_counts web "$now"
  stasis restore web --snapshot good --require-memory
  ctr tasks ls

  step 'upgrade with a container running'
  replace second upgrade
  stasis checkpoint web --name upgraded --require-memory
  stasis restore web --snapshot good --require-memory
  stasis restore web --snapshot upgraded --require-memory
  stasis ls

  step 'downgrade with a container running'
  replace first downgrade
  stasis checkpoint web --name downgraded --require-memory
  stasis restore web --snapshot upgraded --require-memory

  step 'remove with a container running'
  ctr containers rm web-1
  pid=$(task web)
  now=$(number web)
  if apt-get remove -y stasis >/tmp/refused 2>&1; then fail 'removed from under a container that runs'; fi
  cat /tmp/refused
  grep -q 'default/web' /tmp/refused || fail 'the refusal does not name the container'
  active stasisd containerd
  [ -e /etc/containerd/conf.d/stasis.toml ] || fail 'a refused removal took our file from containerd'
  dpkg-query -W -f '${Status}\n' stasis | grep -q ' ok installed' || fail 'a refused removal left half a package'
  [ "$(task web)" = "$pid" ] || fail 'the container is gone'
  until_counts web "$now"

  step remove
  ctr tasks rm -f web
  ctr containers rm web
  apt-get remove -y stasis stasis-criu
  [ -e /etc/stasis/config.toml ] || fail 'remove took the configuration'
  [ ! -e /etc/containerd/conf.d ] || fail 'remove left our file to containerd'
  ! systemctl is-active --quiet stasisd.service || fail 'stasisd still runs'
  zfs list -H -o name -r tank/stasis >/dev/null || fail 'remove took the data'
  systemctl restart containerd.service
  until_ok ctr version
  ctr snapshots --snapshotter overlayfs ls >/dev/null
  ctr plugins ls >/tmp/plugins
  ! grep stasis /tmp/plugins || fail 'containerd still has our plugin'

  step purge
  apt-get purge -y stasis stasis-criu | tee /tmp/purge
  grep -q 'the dataset tank/stasis remains' /tmp/purge || fail 'purge does not say what remains'
  zfs list -H -o name tank/stasis >/dev/null
  look "$kept/after"
  diff -r "$kept/before" "$kept/after" || fail 'the host differs from before'
  echo 'after: ok'
}

case $part in before) before ;; after) after ;; esac
