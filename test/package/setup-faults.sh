# shellcheck shell=bash
# `stasis setup` where something is in its way: run by setup-faults.test.ts. After each failure the host has to be as it was.
# shellcheck source=test/package/host.sh
. /mnt/packages/host.sh

DROP_IN=/etc/containerd/conf.d/stasis.toml
MAIN=/etc/containerd/config.toml
stand_in_for_systemd
make_pool
systemctl start containerd
dpkg -i /mnt/packages/first/*_amd64.deb >/tmp/said 2>&1 || { cat /tmp/said; fail install; }

# What setup may have changed, and whether containerd runs.
state() {
  find /etc /var/lib/stasis -type d -printf '%p %m\n' 2>/dev/null | sort || true
  { find /etc /var/lib/stasis -type f -exec md5sum {} + 2>/dev/null || true; } | sort -k 2
  zfs list -H -o name
  echo "stasisd $(systemctl is-enabled stasisd || true) $(systemctl is-active stasisd || true)"
  echo "containerd $(systemctl is-active containerd) $(ctr plugins ls | grep -c stasis || true)"
}
state >/tmp/before
as_before() {
  state >/tmp/after
  diff /tmp/before /tmp/after || { cat /tmp/said; fail "the host is not as it was"; }
}
# Setup has to fail with these words, and to leave nothing.
refuses() { # WORDS... -- COMMAND...
  local words=()
  while [ "$1" != -- ]; do words+=("$1"); shift; done
  shift
  if "$@" >/tmp/said 2>&1 </dev/null; then cat /tmp/said; fail "$* succeeded"; fi
  for word in "${words[@]}"; do
    grep -qF -- "$word" /tmp/said || { cat /tmp/said; fail "nothing about '$word'"; }
  done
}
setup() { stasis setup --yes --restart-containerd; }
fill() { dd if=/dev/zero of="$1/fill" bs=1k >/dev/null 2>&1 || true; [ "$(df --output=avail "$1" | tail -n 1 | tr -d ' ')" = 0 ] || fail "$1 is not full"; }
# A small file system over a folder, with what is in the folder.
small() { # FOLDER SIZE
  cp -a "$1" /tmp/copy
  mount -t tmpfs -o "mode=755,size=$2" tmpfs "$1"
  cp -a /tmp/copy/. "$1/"
  rm -rf /tmp/copy
}

step 'no root'
# /usr/bin/env, since the shell's own functions do not reach another user
refuses 'only root' 'sudo stasis setup' -- setpriv --reuid=65534 --regid=65534 --clear-groups /usr/bin/env stasis setup --yes
as_before

step 'without --yes'
stasis setup >/tmp/said
grep -q 'Nothing was changed' /tmp/said
as_before

step 'a read-only /etc'
mount --bind /etc /etc
mount -o remount,bind,ro /etc
refuses 'read-only' '/etc/containerd' 'mount its file system writable' 'undoing it' -- setup
umount /etc
as_before

step 'no room for containerd'\''s files'
small /etc/containerd 64k
fill /etc/containerd
refuses 'no space left' '/etc/containerd' 'make room' 'undoing it' -- setup
rm /etc/containerd/fill
as_before
umount /etc/containerd

step 'no room for the record of what is changed'
mkdir -p /var/lib/stasis
mount -t tmpfs -o size=16k tmpfs /var/lib/stasis
fill /var/lib/stasis
refuses 'no space left' '/var/lib/stasis' 'make room' -- setup
umount /var/lib/stasis
rmdir /var/lib/stasis
as_before

# containerd as it may be after the change: started through this.
containerd_that() { # WHAT IT DOES WHERE OUR FILE IS THERE
  printf '#!/bin/sh\n[ "$1" = "" ] && [ -e %s ] && { %s; }\nexec /usr/bin/containerd "$@"\n' "$DROP_IN" "$1" >/usr/local/bin/containerd
  chmod 755 /usr/local/bin/containerd
}
come_back() {
  grep -q 'containerd runs with its old configuration' /tmp/said || { cat /tmp/said; fail 'it does not say that containerd is back'; }
  rm /usr/local/bin/containerd
  as_before
}

step 'containerd ends when it has read the change'
containerd_that 'echo "containerd: invalid plugin config" >&2; exit 1'
refuses 'systemctl restart containerd.service' 'undoing it' "restored $MAIN" "removed $DROP_IN" 'journalctl -u containerd' -- setup
come_back

step 'containerd comes back without the snapshotter'
containerd_that 'exec /usr/bin/containerd --config /dev/null'
refuses 'containerd is back without the snapshotter stasis' "restored $MAIN" -- setup
come_back

step 'containerd starts and does not answer'
containerd_that 'exec sleep 1000'
refuses 'because a timeout was exceeded' "restored $MAIN" -- setup
come_back

step 'setup is killed half way'
touch /run/stand-in/kill-caller
setup >/tmp/said 2>&1 && fail 'it was not killed'
zfs list tank/stasis >/dev/null || fail 'it was killed too early for this test'
stasis setup --undo --yes >/tmp/said 2>&1 || { cat /tmp/said; fail 'undo'; }
as_before
touch /run/stand-in/kill-caller
setup >/tmp/said 2>&1 && fail 'it was not killed'
setup >/tmp/said 2>&1 || { cat /tmp/said; fail 'a second setup'; }
grep -q '^works: ' /tmp/said || { cat /tmp/said; fail 'it did not check itself'; }
stasis setup --undo --yes --restart-containerd >/tmp/said 2>&1 || { cat /tmp/said; fail 'undo'; }
as_before

step 'our file was edited by hand'
setup >/tmp/said 2>&1 || { cat /tmp/said; fail setup; }
echo '# mine' >>"$DROP_IN"
md5sum "$DROP_IN" "$MAIN" >/tmp/sums
refuses 'was edited by hand' 'move it away' -- setup
md5sum --quiet -c /tmp/sums
stasis setup --undo --yes >/tmp/said 2>&1 || { cat /tmp/said; fail undo; }
grep -q "$DROP_IN was edited since, and stays as it is" /tmp/said || { cat /tmp/said; fail 'undo does not say it'; }
grep -q '^# mine' "$DROP_IN" || fail 'undo took the file that was edited'
rm -r /etc/containerd/conf.d
systemctl restart containerd
as_before

step 'the configuration was edited by hand, and an upgrade brings another'
echo '# mine' >>/etc/stasis/config.toml
dpkg --force-confdef --force-confold -i /mnt/packages/second/*_amd64.deb >/tmp/said 2>&1 || { cat /tmp/said; fail upgrade; }
tail -n 1 /etc/stasis/config.toml | grep -q '^# mine' || fail 'the upgrade overwrote the configuration'
grep -q '^# newer' /etc/stasis/config.toml.dpkg-dist || fail 'this test upgrades to the same configuration'
stasis config check

step 'a configuration with mistakes is said, and does not stop an upgrade'
echo '[nonsense]' >>/etc/stasis/config.toml
dpkg --force-confdef --force-confold -i /mnt/packages/first/*_amd64.deb >/tmp/said 2>&1 || { cat /tmp/said; fail downgrade; }
grep -q 'the configuration has mistakes' /tmp/said || { cat /tmp/said; fail 'nothing of the mistakes'; }
sed -i '/^\[nonsense\]/d' /etc/stasis/config.toml

step 'no room for an upgrade'
small /usr/lib/stasis 130m
dpkg --force-confold -i /mnt/packages/second/stasis_2_amd64.deb >/tmp/said 2>&1 && fail 'there was room'
grep -qi 'no space left' /tmp/said || { cat /tmp/said; fail 'another failure'; }
[ "$(dpkg-query -W -f '${Status} ${Version}' stasis)" = "install ok installed $(dpkg-deb -f /mnt/packages/first/stasis_*.deb Version)" ] || {
  cat /tmp/said; dpkg --audit; fail 'the older package is not whole'; }
stasis version >/dev/null
dpkg --verify stasis | grep -v config.toml && fail 'files of the older package differ'
umount /usr/lib/stasis
echo 'all: ok'
