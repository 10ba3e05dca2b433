#!/bin/sh
# stasis. Has a command that only asks stasisd be run by the process that stasisd keeps ready for that (src/cli/ready/), which
# is there at once; without one, and for all else, Node is started. It starts no program itself, and uses what dash
# and bash have. src/cli/ready/slot.ts tells what goes to and fro.

node() {
  exec '@NODE@' @OPTIONS@ '@STASIS@' "$@"
}

case ${1-} in
  @COMMANDS@) ;;
  *) node "$@" ;;
esac
# Of shells, dash and bash are known to read on after a signal. busybox turns in a circle then; like others, it has `let`.
if [ -z "${BASH_VERSION-}" ] && command -v let >/dev/null; then node "$@"; fi

# Whose process it is does not matter: it reads the configuration that we would read. So the first that is found will do.
if [ -n "${STASIS_ADDRESS-}" ]; then
  run_dir=${STASIS_ADDRESS#unix:}
  run_dir=${run_dir#//}
  run_dir=${run_dir%/*}
elif [ -z "${STASIS_CONFIG-}" ] && [ -e /run/stasis/ready ]; then
  run_dir=/run/stasis
else
  # As shim/launcher.sh: written in another way than `key = "value"` it is not found.
  run_dir=/run/stasis
  config=${STASIS_CONFIG-/etc/stasis/config.toml}
  if [ -r "$config" ]; then
    while read -r key equals value; do
      case $key$equals in
        run_dir=)
          value=${value#[\"\']}
          run_dir=${value%%[\"\']*}
          ;;
      esac
    done <"$config"
  fi
fi
# Ours alone: nobody else may answer for stasisd.
# shellcheck disable=SC3067 # dash and busybox know -O, though POSIX does not ask for it
[ -O "$run_dir/ready" ] || node "$@"
# What is closed cannot be handed on.
if [ ! -e "/proc/$$/fd/1" ] || [ ! -e "/proc/$$/fd/2" ]; then node "$@"; fi

# Lives the process? Its start time tells it from another that got its pid.
serves() {
  # One that was killed and not reaped yet, or stopped, serves nobody.
  case $1 in Z | X | T | t) return 1 ;; esac
  [ "${20}" = "$started" ]
}

# Becomes the only one that calls at this place, if the process is there.
call() {
  name=${slot#"$run_dir/ready/@BUILD@."}
  pid=${name%%.*}
  started=${name#*.}
  started=${started%%.*}
  read -r stat 2>/dev/null <"/proc/$pid/stat" || return 1
  # shellcheck disable=SC2086 # the fields of proc(5) after the name, which may hold blanks itself
  serves ${stat##*) } || return 1
  # Opened for both it is open at once. Opened again, with the process's end for the only other one, it ends when that does.
  { command exec 7<>"$slot/answer"; } 2>/dev/null || return 1
  { command exec 8<"$slot/answer"; } 2>/dev/null || { exec 7>&- && return 1; }
  exec 7>&-
  # Standard output and error for the process, which must not meet those that `echo` has below for the moment.
  exec 5>&1 6>&2
  trap 'pass INT' INT
  trap 'pass TERM' TERM
  trap 'pass HUP' HUP
  set -C
  if echo "$$ $#" 2>/dev/null >"$slot/call"; then
    set +C
    return 0
  fi
  set +C
  hang_up
  return 1
}

hang_up() {
  trap - INT TERM HUP
  exec 5>&- 6>&- 8<&-
}

signal=''
pass() {
  signal=$1
  news=1
  echo "$1" 2>/dev/null >>"$slot/call"
}

begun='' news=''
for slot in "$run_dir/ready/@BUILD@."*; do
  if [ -e "$slot/call" ] || [ ! -e "$slot/answer" ] || ! call "$@"; then continue; fi
  while :; do
    if read -r word status <&8; then
      case $word in
        begun) begun=1 ;;
        exit) exit "$status" ;;
        *) break ;;
      esac
    elif [ -n "$news" ]; then
      # Not the end: a signal has come in between.
      news=''
    else
      break
    fi
  done
  hang_up
  if [ -n "$begun" ]; then
    echo 'stasis: the process that ran this command was ended, as with stasisd' >&2
    # shellcheck disable=SC2016 # for the reader
    echo '  next: see whether stasisd runs and what its log says, then look at the state with `stasis ls`' >&2
    exit 7
  fi
  [ -z "$signal" ] || kill -s "$signal" $$
  break
done
node "$@"
