# shellcheck shell=bash
# The life of the packages on a Debian 12 host without systemd, on zfs-fuse: run by chroot.test.ts.
# shellcheck source=test/package/host.sh
. /mnt/packages/host.sh
start_stasisd() { stasisd >>/var/log/stasisd.log 2>&1 & echo $! >/run/stasisd.pid; until_ok test -S /run/stasis/stasisd.sock; until_ok stasis info; }
start_containerd() { containerd >>/var/log/containerd.log 2>&1 & echo $! >/run/containerd.pid; until_ok ctr version; }
stop() { kill "$(cat "/run/$1.pid")"; while kill -0 "$(cat "/run/$1.pid")" 2>/dev/null; do sleep 0.1; done; }
number() { ctr tasks exec --exec-id "n$RANDOM" "$1" /bin/tail -n 1 /count; }

step before
make_pool
start_containerd
files >/tmp/before
md5sum </etc/containerd/config.toml >/tmp/config-before
zfs list -H -o name >/tmp/datasets-before

step install
dpkg -i /mnt/packages/first/*_amd64.deb
stasis version
stasis config check
[ "$(stasis config show --origin | grep -c default)" -gt 10 ]
[ "$(md5sum </etc/containerd/config.toml)" = "$(cat /tmp/config-before)" ] || fail 'installing changed containerd'

step setup
stasis setup >/tmp/plan
[ ! -e /etc/containerd/conf.d/stasis.toml ] || fail 'setup without --yes changed something'
stasis setup --yes
start_stasisd
stop containerd
start_containerd
stasis setup --yes | tee /tmp/second
grep -q 'Nothing to do' /tmp/second || fail 'a second setup had something to do'
grep -q 'memory and disk' /tmp/second || fail 'the check did not dump memory'

step 'the main job'
mkdir -p /tmp/web/rootfs/{bin,proc,dev,sys,tmp}
# shellcheck disable=SC2046  # one word a file
cp --parents $(ldd /bin/sh /bin/tail /bin/sleep | grep -o '/\S*\.so\S*' | sort -u) /tmp/web/rootfs/
cp /bin/sh /bin/tail /bin/sleep /tmp/web/rootfs/bin/
stasis spec --bundle /tmp/web -- /bin/sh -c 'n=0; while :; do n=$((n + 1)); echo $n >>/count; sleep 0.1; done'
stasis run --bundle /tmp/web epk-web
sleep 2
stasis checkpoint epk-web --name good --require-memory
at=$(number epk-web)
sleep 3
[ "$(number epk-web)" -gt "$((at + 5))" ] || fail 'the container does not count on'
stasis restore epk-web --snapshot good --require-memory
[ "$(number epk-web)" -lt "$((at + 8))" ] || fail 'the number did not go back'
stasis clone epk-web --from good
ctr tasks ls | tee /tmp/tasks
[ "$(grep -c RUNNING /tmp/tasks)" = 2 ] || fail 'no clone'

step 'upgrade with containers running'
pid=$(ctr tasks ls | sed -n 's/^epk-web  *\([0-9]*\).*/\1/p')
dpkg -i /mnt/packages/second/*_amd64.deb
dpkg-query -W -f '${Package} ${Version} ${Status}\n' stasis
stop stasisd # what the maintainer script does where systemd runs
start_stasisd
[ "$(ctr tasks ls | sed -n 's/^epk-web  *\([0-9]*\).*/\1/p')" = "$pid" ] || fail 'the container was not left alone'
stasis checkpoint epk-web --name after --require-memory
stasis restore epk-web --snapshot good --require-memory
stasis ls

step 'downgrade'
dpkg -i /mnt/packages/first/*_amd64.deb
stop stasisd
start_stasisd
stasis ls | grep -q after || fail 'the checkpoint is not there after the downgrade'

step 'remove'
ctr tasks rm -f epk-web epk-web-1
ctr containers rm epk-web epk-web-1
dpkg -r stasis stasis-criu
[ -e /etc/stasis/config.toml ] || fail 'remove took the configuration'
[ ! -e /etc/containerd/conf.d ] || fail 'remove left our file to containerd'
zfs list -H -o name -r tank/stasis >/dev/null || fail 'remove took the data'
stop stasisd
stop containerd
start_containerd
ctr snapshots --snapshotter overlayfs ls >/dev/null
ctr plugins ls | grep -q 'stasis' && fail 'containerd still has our plugin'

step 'purge'
dpkg -P stasis stasis-criu | tee /tmp/purge
grep -q 'the dataset tank/stasis remains' /tmp/purge || fail 'purge does not say what remains'
zfs list -H -o name tank/stasis >/dev/null
files >/tmp/after
diff /tmp/before /tmp/after || fail 'files differ from before'
echo 'all: ok'
