# shellcheck shell=bash
# A running machine: QEMU, with its files in STATE, and SSH through a port on the loopback address. Needs common.sh,
# image.sh, and from scripts/vm: STATE, REST and the options.
#
#   $STATE/{pid,port,accel,ssh-key,console,disk.img,control}   control: the socket of an SSH connection that is kept

VM_QEMU=$STASIS_CACHE/qemu
# Where a KVM that is there but boots nothing is remembered, until this machine's own next boot.
VM_NO_KVM=/run/stasis-vm-no-kvm
# Emulated, and on a busy host, with systemd: minutes.
KVM_BOOT_SECONDS=20
# With --own-clock an instruction takes 2^2 ns: about what an emulated processor does when nobody else wants the host's.
CLOCK_SHIFT=2
TCG_BOOT_SECONDS=600

vm_pid() {
  local pid
  { read -r pid <"$STATE/pid"; } 2>/dev/null || return 1
  [ -n "$pid" ] && grep -qzxF "guest=stasis-vm:$STATE" "/proc/$pid/cmdline" 2>/dev/null && echo "$pid"
}

need_vm() { vm_pid >/dev/null || die "no machine runs in $STATE: boot one with scripts/vm up"; }

# Sets SSH, a command that reaches the machine: over the connection that `up` opened, or by one of its own.
ssh_command() {
  SSH=(
    ssh -F none -p "$(cat "$STATE/port")" -i "$STATE/ssh-key" -o IdentitiesOnly=yes -o BatchMode=yes -o LogLevel=ERROR
    -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null -o ControlPath="$STATE/control" "$@" root@127.0.0.1
  )
}

cmd_up() {
  local accel
  # A socket's path has 107 bytes at most, and ssh adds some to that of a connection that it keeps.
  [ ${#STATE} -le 70 ] || die "the state directory $STATE has a path of ${#STATE} bytes: 70 is the most that leaves room for a socket"
  if vm_pid >/dev/null; then say "up already: $STATE"; return; fi
  if [ -d "$STATE" ] && [ -n "$(ls -A "$STATE")" ] && [ ! -e "$STATE/console" ]; then
    die "$STATE is not empty and not a machine's: give another --state, or empty it"
  fi
  for accel in $(accelerators); do
    rm -rf "$STATE"
    mkdir -p "$STATE"
    chmod 700 "$STATE"
    : >"$STATE/console" # by which `down` knows it, also when what follows fails
    [ "${TREE:-0}" = 0 ] || make_tree_disk
    start_qemu "$accel"
    if wait_boot "$accel"; then
      [ "${TREE:-0}" = 0 ] || mount_tree_disk
      say "up in $SECONDS s ($accel): $STATE"
      return
    fi
    stop_qemu
    if [ "$accel" = kvm ] && [ -z "${ACCEL:-}" ]; then
      say "KVM does not boot the machine here: software emulation from now on"
      : >"$VM_NO_KVM"
    fi
  done
  warn "the last lines of $STATE/console:"
  tail -n 25 "$STATE/console" >&2 || true
  die "the machine did not come up: see its console above"
}

accelerators() {
  if [ -n "${ACCEL:-}" ]; then echo "$ACCEL"; return; fi
  [ ! -w /dev/kvm ] || [ -e "$VM_NO_KVM" ] || echo kvm
  echo tcg
}

start_qemu() { # ACCELERATOR
  local tries port cpu=max tree=() accel=(-accel "$1")
  [ "$1" = tcg ] || cpu=host
  [ "${OWN_CLOCK:-0}" = 0 ] || [ "$1" != tcg ] || accel=(-accel "tcg,thread=single" -icount "shift=$CLOCK_SHIFT" -rtc clock=vm)
  install -m 600 "$VM_IMAGE/ssh-key" "$STATE/ssh-key"
  truncate -s 8G "$STATE/disk.img"
  [ ! -e "$STATE/tree.img" ] || tree=(-drive "file=$STATE/tree.img,format=raw,if=virtio,cache=unsafe")
  echo "$1" >"$STATE/accel"
  for ((tries = 0; tries < 20; tries++)); do
    port=$((20000 + RANDOM % 12000))
    echo "$port" >"$STATE/port"
    : >"$STATE/console"
    # The root disk's changes go to a file without a name in TMPDIR.
    if TMPDIR=$STATE "$VM_QEMU/bin/qemu-system-x86_64" -L "$VM_QEMU/share" \
      -name "guest=stasis-vm:$STATE" -daemonize -pidfile "$STATE/pid" \
      -M pc "${accel[@]}" -cpu "$cpu" -smp "$CPUS" -m "$MEMORY" -nodefaults -no-user-config -display none \
      -kernel "$VM_IMAGE/vmlinuz" -initrd "$VM_IMAGE/initrd" \
      -append "console=ttyS0 loglevel=5 panic=5 net.ifnames=0 mitigations=off init_on_alloc=0 tsc=reliable no_timer_check${SYSTEMD:+ vm.init=/sbin/init}" \
      -chardev "file,id=console,path=$STATE/console,append=on" -serial chardev:console \
      -drive "file=$VM_IMAGE/root.img,format=raw,if=virtio,snapshot=on,cache=unsafe" \
      -drive "file=$STATE/disk.img,format=raw,if=virtio,cache=unsafe,discard=unmap" \
      ${tree[@]+"${tree[@]}"} \
      -netdev "user,id=net,restrict=on,hostfwd=tcp:127.0.0.1:$port-:22" -device virtio-net-pci,netdev=net,romfile= \
      -device virtio-rng-pci >"$STATE/qemu.log" 2>&1 </dev/null 6>&-; then return 0; fi
    grep -q 'host forwarding rule' "$STATE/qemu.log" || break
  done
  [ "$1" = kvm ] || die "QEMU does not start: $(tr '\n' ' ' <"$STATE/qemu.log")"
}

wait_boot() { # ACCELERATOR
  local end=$((SECONDS + TCG_BOOT_SECONDS))
  [ "$1" = tcg ] || end=$((SECONDS + KVM_BOOT_SECONDS))
  while [ $SECONDS -lt $end ]; do
    vm_pid >/dev/null || return 1
    # The connection stays, and what comes later goes over it: a new one costs a second.
    ssh_command -o ConnectTimeout=$((end - SECONDS > 0 ? end - SECONDS : 1)) -o ControlMaster=yes -o ControlPersist=yes -fN
    if "${SSH[@]}" >/dev/null 2>&1 </dev/null 6>&-; then return 0; fi
    sleep 0.3
  done
  return 1
}

# Nothing is sent to the machine until its kernel says that it restarts: a connection to the old boot's sshd stays open
# at this end when that is gone, and waits for an answer.
cmd_reboot() {
  local before seen end=$((SECONDS + TCG_BOOT_SECONDS))
  need_vm
  ssh_command
  before=$("${SSH[@]}" cat /proc/sys/kernel/random/boot_id)
  seen=$(stat -c %s "$STATE/console")
  # Without systemd there is nobody whom `reboot` could ask, and nobody who closes this connection: it is left before.
  "${SSH[@]}" 'sync; if [ -d /run/systemd/system ]; then reboot; else (sleep 1; reboot -f) >/dev/null 2>&1 </dev/null & fi' || true
  close_connection
  until tail -c "+$((seen + 1))" "$STATE/console" | grep 'reboot: Restarting system' >/dev/null; do
    [ $SECONDS -lt $end ] && vm_pid >/dev/null || die "the machine does not go down: see scripts/vm console"
    sleep 0.3
  done
  wait_boot "$(cat "$STATE/accel")" || die "the machine did not come up again: see scripts/vm console"
  ssh_command
  [ "$("${SSH[@]}" cat /proc/sys/kernel/random/boot_id)" != "$before" ] || die "the machine was not rebooted"
  [ ! -e "$STATE/tree.img" ] || mount_tree_disk
  say "rebooted in $SECONDS s: $STATE"
}

close_connection() {
  [ -S "$STATE/control" ] || return 0
  ssh_command -O exit
  "${SSH[@]}" >/dev/null 2>&1 || true
  rm -f "$STATE/control"
}

stop_qemu() {
  local pid tries
  close_connection
  pid=$(vm_pid) || return 0
  kill -TERM "$pid" 2>/dev/null || true
  for ((tries = 0; tries < 100; tries++)); do
    [ -d "/proc/$pid" ] || return 0
    [ "$tries" != 50 ] || kill -KILL "$pid" 2>/dev/null || true
    sleep 0.1
  done
}

cmd_run() {
  [ ${#REST[@]} -gt 0 ] || die "name the command to run: scripts/vm run COMMAND [ARGUMENT]…"
  need_vm
  ssh_command
  exec "${SSH[@]}" "STASIS_CACHE=$STASIS_CACHE $(printf '%q ' "${REST[@]}")"
}

cmd_copy() {
  local directory
  need_vm
  ssh_command
  [ ${#REST[@]} -ge 2 ] || die "name what to copy, and the directory in the machine: scripts/vm copy PATH… DIRECTORY"
  directory=${REST[-1]}
  unset 'REST[-1]'
  for path in "${REST[@]}"; do printf '%s\0' -C "$(realpath -s -- "$(dirname -- "$path")")" "$(basename -- "$path")"; done |
    xargs -0 tar -cf - | "${SSH[@]}" "mkdir -p $(printf %q "$directory") && tar -C $(printf %q "$directory") -xf -"
}

# As a disk: over the connection it would take a minute.
make_tree_disk() {
  local dir=$STATE/tree
  mkdir -p "$dir"
  tree_files | tar -C "$STASIS_SRC" --no-recursion --null -T - -cf - | tar -C "$dir" -xf -
  run_logged "a disk with the project" mke2fs -qF -t ext4 -O ^has_journal,^metadata_csum -E lazy_itable_init=1 -m 0 \
    -d "$dir" "$STATE/tree.img" 2G
  rm -rf "$dir"
}

mount_tree_disk() {
  ssh_command
  "${SSH[@]}" "mkdir -p $(printf %q "$STASIS_SRC") && mount -t ext4 -o noatime /dev/vdc $(printf %q "$STASIS_SRC")" ||
    die "the project's disk cannot be mounted in the machine"
}

# The project's files, what was built and generated, and of the npm packages those that a host needs.
tree_files() {
  local package
  cd "$STASIS_SRC" || exit
  [ -e dist/stasisd ] || die "dist/ is missing: run npm run build"
  {
    git ls-files -z --cached --others --exclude-standard
    find dist src/proto/gen node_modules/.stasis-lock -path dist/lib/compile-cache -prune -o -print0 2>/dev/null
    scripts/node -e '
      const { packages } = JSON.parse(require("fs").readFileSync("package-lock.json", "utf8"));
      for (const [path, { dev }] of Object.entries(packages)) if (path && !dev) console.log(path);
    ' | while read -r package; do
      case $package in
        node_modules/node-linux-*) find "$package/bin" "$package/package.json" -print0 2>/dev/null || true ;;
        *) [ ! -d "$package" ] || find "$package" -print0 ;;
      esac
    done
  } | LC_ALL=C sort -zu
}

cmd_status() {
  local pid
  if pid=$(vm_pid); then
    if [ "${JSON:-0}" = 1 ]; then
      printf '{"state":"%s","up":true,"pid":%s,"port":%s,"accel":"%s"}\n' "$STATE" "$pid" "$(cat "$STATE/port")" "$(cat "$STATE/accel")"
    else
      echo "up: $STATE (process $pid, SSH on 127.0.0.1:$(cat "$STATE/port"), $(cat "$STATE/accel"))"
    fi
    return
  fi
  if [ "${JSON:-0}" = 1 ]; then printf '{"state":"%s","up":false}\n' "$STATE"; else echo "no machine runs in $STATE"; fi
  exit 3
}

cmd_console() {
  [ -r "$STATE/console" ] || die "no machine runs in $STATE: boot one with scripts/vm up"
  exec tail -n 200 ${FOLLOW:+-F} -- "$STATE/console"
}

cmd_down() {
  if [ ! -e "$STATE" ]; then say "down: there is no machine in $STATE"; return; fi
  [ -e "$STATE/console" ] || die "$STATE is not a machine's: nothing was touched"
  stop_qemu
  rm -rf "$STATE"
  say "down: nothing is left of $STATE"
}
