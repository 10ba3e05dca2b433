#!/bin/sh
# containerd-shim-stasis-v2. containerd runs this for every container's `start` and `delete`, so it is the smallest thing
# that can answer them: while a shim serves the namespace, both are answered here, without starting a program. All else
# is for Node. It works from any place, copied alone, and under any name.
node='@NODE@'
main='@SHIM@'

# Go's flag syntax, as in arguments.ts; what is not known here is left to Node.
namespace='' address='' id='' bundle='' action='' want=''
for word in "$@"; do
  if [ -n "$want" ]; then
    case $want in
      namespace) namespace=$word ;;
      address) address=$word ;;
      id) id=$word ;;
      bundle) bundle=$word ;;
    esac
    want=''
    continue
  fi
  flag=${word#-}
  flag=${flag#-}
  case $word in
    -namespace | --namespace | -address | --address | -id | --id | -bundle | --bundle) want=$flag ;;
    -publish-binary | --publish-binary | -socket | --socket) want=other ;;
    -namespace=* | --namespace=*) namespace=${word#*=} ;;
    -address=* | --address=*) address=${word#*=} ;;
    -id=* | --id=*) id=${word#*=} ;;
    -bundle=* | --bundle=*) bundle=${word#*=} ;;
    -publish-binary=* | --publish-binary=* | -debug | --debug | -debug=* | --debug=*) ;;
    start | delete) action=$word; break ;;
    *) exec "$node" "$main" "$@" ;;
  esac
done

# Of the configuration two keys matter here. Any other way to write them than `key = "value"` ends up with Node.
run_dir=/run/stasis
sharing=namespace
config=${STASIS_CONFIG-/etc/stasis/config.toml}
if [ -r "$config" ]; then
  while read -r key equals value; do
    case $key$equals in
      run_dir= | sharing=)
        value=${value#[\"\']}
        value=${value%%[\"\']*}
        if [ "$key" = run_dir ]; then run_dir=$value; else sharing=$value; fi
        ;;
      run_dir* | sharing* | *.run_dir* | *.sharing*) exec "$node" "$main" "$@" ;;
    esac
  done <"$config"
fi
case $namespace$id in
  '' | *[!A-Za-z0-9._-]* | .*) exec "$node" "$main" "$@" ;;
esac

# Prints what is in a file of the task's folder, if it is there, and ends.
tell() {
  read -r answer 2>/dev/null <"$task/$1" || return 1
  [ ! -s "$task/warnings" ] || cat "$task/warnings" >&2
  # shellcheck disable=SC2059 # it is made to be a format
  printf "$answer"
}

# Nobody asks a second time for what was told of a task that was cleared away.
clear_told() {
  tell deleted && rm -rf "$task"
}

lock() {
  { command exec 9>>"$run_dir/locks/clear-$namespace"; } 2>/dev/null
}

# Whether anything is mounted in the bundle, or that cannot be told: mountinfo has other names for such paths.
mounted() {
  case ${bundle:=$PWD} in *[!A-Za-z0-9._/-]*) return 0 ;; esac
  while read -r _ _ _ _ target _; do
    case $target in "$bundle"/*) return 0 ;; esac
  done </proc/self/mountinfo
  return 1
}

# A DeleteResponse: the exit status of SIGKILL, and the time, in seconds.
killed_now() {
  printf '\020\211\001'
  seconds=$(date +%s) || return 0
  octal=''
  for more in 128 128 128 128 0; do
    octal=$octal$(printf '\\%03o' $((seconds & 127 | more)))
    seconds=$((seconds >> 7))
  done
  # shellcheck disable=SC2059
  printf "\032\006\010$octal"
}

case $action in
  delete)
    task=$run_dir/tasks/$namespace/$id
    # The shim has taken the task away and left the answer.
    tell deleted && exit 0
    # It died, and containerd starts one of us for each of its tasks, all at once, and kills us five seconds later. One has
    # Node clear all of them away, in the background, so that it comes to an end, and the others wait for that. When
    # the time is nearly over, what Node leaves first of all has to do. Not in the bundle: what works there is ended.
    if [ -e "$task/state.json" ] && command -v flock >/dev/null && cd / && lock; then
      wait=3
      if flock -n 9 || { flock -w 3 9 && wait=1; }; then
        clear_told && exit 0
        STASIS_CLEARING=9 "$node" "$main" "$@" </dev/null >/dev/null 2>&1 &
        exec 9>&-
        lock && flock -w "$wait" 9
      fi
      last=''
      read -r last 2>/dev/null <"$task/dead"
      # From now on Node takes the folder away itself.
      true 2>/dev/null >"$task/told"
      clear_told && exit 0
      [ -n "$last" ] || exit 1
      # shellcheck disable=SC2059
      printf "$last"
      exit 0
    fi
    [ ! -e "$task" ] || exec "$node" "$main" "$@"
    # No shim has heard of it: its Create was refused, and there is nothing but what containerd has made itself. It is told so
    # also where our program does not start, as it would keep the bundle otherwise, and make no task of that name any more.
    "$node" "$main" "$@" && exit 0
    status=$?
    mounted && exit "$status"
    killed_now
    exit 0
    ;;
esac

start_time() {
  # One that was killed and not reaped yet serves nobody.
  case $1 in Z | X) start_time='' ;; *) start_time=${20} ;; esac
}

# Lives the namespace's shim? Its start time tells it from another process that got its pid.
serves() {
  read -r pid started socket 2>/dev/null <"$resident" && read -r stat 2>/dev/null <"/proc/$pid/stat" || return 1
  # shellcheck disable=SC2086 # the fields of proc(5) after the name, which may hold blanks itself
  start_time ${stat##*) }
  [ "$start_time" = "$started" ]
}

answer() {
  # A container is about to come, for which the shim can make ready: shim/lifecycle/shim.ts. Whoever does not know this signal ignores it.
  kill -URG "$pid" 2>/dev/null
  printf 'unix://%s' "$socket" >"${bundle:-.}/address"
  printf 'unix://%s' "$socket"
  exit 0
}

# With SCHED_CORE each pod gets a shim of its own.
if [ "$sharing" = namespace ] && [ -z "${SCHED_CORE-}" ]; then
  resident=$run_dir/resident/${address#/}/$namespace/shim
  serves && answer
  # Of many first starts one boots Node, and the others wait here until it has a shim, or has failed. A system without
  # flock(1) boots one for each, and all but one of these find out and leave.
  folder=${resident%/*}
  [ -d "$folder" ] || (umask 066 && mkdir -p "$folder") 2>/dev/null
  if { command exec 9>>"$folder/starting"; } 2>/dev/null; then
    flock -w 10 9 2>/dev/null && serves && answer
  fi
fi

# Nobody serves: Node becomes the shim, and lets go of standard output once it listens. Standard input, which holds
# containerd's parameters, has to be handed to a background process explicitly.
[ "$action" = start ] || exec "$node" "$main" "$@"
exec 3<&0
# Node raises this limit at its start, and its containers are not to inherit that.
# dash and busybox know -S, though POSIX does not ask for it.
# shellcheck disable=SC3045
STASIS_OPEN_FILES=$(ulimit -Sn)
export STASIS_OPEN_FILES
started=$("$node" "$main" "$@" <&3 3<&- 9>&- &)
[ -n "$started" ] || exit 1
printf '%s' "$started"
