# shellcheck shell=bash
# Ends dpkg and its maintainer script before each command of the script, as a power failure would, and looks whether the same
# command, given again, comes to the same end as one that nobody disturbed: run by interrupted.test.ts.
# shellcheck source=test/package/host.sh
. /mnt/packages/host.sh

# Sourced by the maintainer scripts of these packages.
mkdir -p /usr/local/lib
cat >/usr/local/lib/cut <<'CUT'
cut_count=0
if [ -e /run/cut ]; then
  read -r cut_script cut_verb cut_at </run/cut
  cut_name=${0##*/}
  if [ "${cut_name##*.} ${1:-}" = "$cut_script $cut_verb" ]; then
    set -T
    trap 'cut_count=$((cut_count + 1)); if [ "$cut_count" = "$cut_at" ]; then echo "$BASH_COMMAND" >/run/was-cut; kill -9 "$PPID" $$; fi' DEBUG
  fi
fi
CUT
# What is in neither package, so that unpacking them takes no time.
mv /mnt/packages/node /usr/local/lib/node
stand_in_for_systemd
first=/mnt/packages/first.deb second=/mnt/packages/second.deb
install_first() { dpkg --force-unsafe-io -i "$first"; }
install_second() { dpkg --force-unsafe-io -i "$second"; }
remove() { dpkg -r stasis; }
purge() { dpkg -P stasis; }
quietly() { "$@" >/tmp/said 2>&1 || { cat /tmp/said; fail "$*"; }; }

# All that an operation leaves: files, dpkg's view, the services, the data.
state() {
  dpkg-query -W -f 'package ${Status} ${Version}\n' stasis 2>/dev/null || echo 'package none'
  dpkg --audit
  echo "stasisd $(systemctl is-enabled stasisd || true) $(systemctl is-active stasisd || true)"
  echo "containerd $(systemctl is-active containerd)"
  zfs list -H -o name
  # Programs by name and size, as there are many; what is written on the host itself by its content.
  find /usr /opt /var/cache/stasis -xdev -not -path '*/compile-cache/*' -printf '%p %m %s %l\n' 2>/dev/null | sort || true
  { find /etc /var/lib/stasis -xdev -type f -not -name ld.so.cache -exec md5sum {} + 2>/dev/null || true; } | sort -k 2
}

# Each interruption begins with what PREPARE makes.
interrupt() { # SCRIPT VERB PREPARE OPERATION
  local script=$1 verb=$2 prepare=$3 operation=$4 at count=0
  step "$operation, cut off in $script $verb"
  rm -f /run/cut
  quietly "$prepare"
  quietly "$operation"
  state >/tmp/wanted
  for at in $(seq 60); do
    quietly "$prepare"
    rm -f /run/was-cut
    echo "$script $verb $at" >/run/cut
    "$operation" >/tmp/said 2>&1 || true
    rm /run/cut
    [ -e /run/was-cut ] || break
    count=$((count + 1))
    # dpkg itself refuses to configure what it had not unpacked to the end.
    dpkg --configure -a >/tmp/said 2>&1 || [ "$script" != postinst ] || { cat /tmp/said; fail 'dpkg --configure -a'; }
    quietly "$operation"
    state >/tmp/found
    diff /tmp/wanted /tmp/found || fail "cut off before '$(cat /run/was-cut)', and not the same afterwards"
  done
  [ "$count" -gt 0 ] || fail "$script $verb was never cut off"
  echo "$count interruptions"
}

nothing() { purge; }
installed() { nothing; install_first; }
set_up() { installed; stasis setup --yes --no-check; }
removed() { set_up; remove; }

make_pool
systemctl start containerd
# A purge keeps the dataset: made beforehand, so that each setup finds the same host.
quietly set_up
quietly purge

interrupt postinst configure nothing install_first
interrupt prerm upgrade set_up install_second
interrupt postrm upgrade set_up install_second
interrupt postinst configure set_up install_second
interrupt prerm upgrade set_up install_first # an older or the same version again
interrupt prerm remove set_up remove
interrupt postrm remove set_up remove
interrupt postrm purge removed purge
echo 'all: ok'
