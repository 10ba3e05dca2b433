# shellcheck shell=bash
# Private prefixes: programs of another Debian release, unpacked in the cache with all the libraries
# they need down to the C library, so that nothing of the host changes and nothing of it is used.
#
#   $STASIS_CACHE/<name>/bin   the programs, patched to that prefix's own loader and libraries
#   $STASIS_CACHE/<name>/lib   the libraries, flat
#   $STASIS_CACHE/<name>/share data that a program is told to look for there
#   $STASIS_CACHE/<name>/key   what it was made from; a prefix without it, or with another, is made anew
#
# apt does the downloading, with a state of its own for each release, and thus checks every signature
# and hash as it does for the host. Needs common.sh.

PREFIX_FORMAT=2

# Where this machine gets Debian from: never a fixed name, a mirror or a proxy may be all it reaches.
debian_mirror() {
  local mirror
  if [ -n "${STASIS_DEBIAN_MIRROR:-}" ]; then echo "$STASIS_DEBIAN_MIRROR"; return; fi
  mirror=$(list_mirrors)
  if [ -z "$mirror" ]; then
    host_apt_update
    mirror=$(list_mirrors)
  fi
  [ -n "$mirror" ] || die "apt knows no Debian mirror: add one to /etc/apt/sources.list or name it in STASIS_DEBIAN_MIRROR"
  echo "$mirror"
}

list_mirrors() {
  # shellcheck disable=SC2016
  apt-get indextargets --format '$(LABEL)|$(COMPONENT)|$(REPO_URI)' 'Created-By: Packages' 2>/dev/null |
    awk -F'|' '$1 == "Debian" && $2 == "main" { print $3; exit }'
}

# At most once a run: the lists may be missing altogether in a fresh or slimmed system.
host_apt_update() {
  [ -z "${HOST_APT_UPDATED:-}" ] || return 0
  HOST_APT_UPDATED=1
  say "apt-get update"
  run_logged "apt-get update" apt-get -qq update
}

debian_keyring() {
  local file
  for file in /usr/share/keyrings/debian-archive-keyring.{gpg,pgp}; do
    if [ -s "$file" ]; then echo "$file"; return; fi
  done
  die "the keys that Debian signs its archive with are missing: apt-get install debian-archive-keyring"
}

# Sets APT, the options that give apt a state of its own for SUITE (and for the processor PREFIX_ARCH, if not this
# machine's). On the command line they win over
# everything in /etc/apt/apt.conf.d (which stays in force otherwise: it may hold a proxy).
private_apt() { # SUITE
  local dir=$STASIS_CACHE/apt/$1 arch=${PREFIX_ARCH:-$(machine_arch)}
  [ "$arch" = "$(machine_arch)" ] || dir=$dir-$arch
  mkdir -p "$dir/lists/partial" "$dir/archives/partial"
  : >>"$dir/status"
  APT=(
    -o "Dir::State=$dir" -o "Dir::State::lists=$dir/lists" -o "Dir::State::status=$dir/status"
    -o "Dir::Cache=$dir" -o "Dir::Cache::archives=$dir/archives"
    -o "Dir::Cache::pkgcache=$dir/pkgcache.bin" -o "Dir::Cache::srcpkgcache=$dir/srcpkgcache.bin"
    -o "Dir::Etc::sourcelist=$dir/sources.list" -o "Dir::Etc::sourceparts=/dev/null"
    -o "Dir::Etc::preferences=/dev/null" -o "Dir::Etc::preferencesparts=/dev/null"
    -o "APT::Architecture=$arch" -o "APT::Architectures=$arch"
    -o "APT::Default-Release=" -o "Acquire::Languages=none" -o "APT::Get::List-Cleanup=1"
  )
  [ -z "${PRIVATE_APT_FRESH[$1-$arch]:-}" ] || return 0
  local mirror keyring
  mirror=$(debian_mirror)
  keyring=$(debian_keyring)
  echo "deb [target=Packages signed-by=$keyring] $mirror $1 main" >"$dir/sources.list"
  say "package lists of Debian $1"
  private_update "$1" "$mirror"
  PRIVATE_APT_FRESH[$1-$arch]=1
}
declare -A PRIVATE_APT_FRESH=()

# A mirror that stands still (a site's own, a snapshot of the archive) serves lists past their date, which is a week for a
# release under way, and apt refuses them for that alone. They are as signed as ever, and what comes from them stays in our
# cache, so they are taken, with a warning; the host's own apt is not asked to trust them.
private_update() { # SUITE MIRROR
  local what="the package lists of Debian $1 from $2" said
  said=$(LC_ALL=C apt-get "${APT[@]}" -qq update 2>&1 </dev/null) && return 0
  if [[ $said == *"is expired (invalid since"* ]]; then
    warn "$2 has had nothing new of Debian $1 for long: its lists are signed, but past their date; going on with them"
    APT+=(-o "Acquire::Check-Valid-Until=false")
    run_logged "$what" apt-get "${APT[@]}" -qq update
  else
    die "could not get $what: $(last_complaint <<<"$said")"
  fi
}

# Runs a command with its output in a file; its last complaint becomes our one sentence if it fails.
run_logged() { # WHAT COMMAND...
  local what=$1 log
  shift
  log=$(mktemp)
  if ! "$@" >"$log" 2>&1 </dev/null; then
    local why
    why=$(last_complaint <"$log")
    rm -f "$log"
    die "could not get $what: $why"
  fi
  rm -f "$log"
}

# The sentence in a program's output that says why it failed.
last_complaint() {
  local said why
  said=$(cat)
  why=$({ grep -E '^(E:|Err|npm (error|ERR!))|rror:' <<<"$said" || echo "$said"; } |
    grep -vE 'complete log|_logs/|^npm (error|ERR!) *$' | tail -n 3 | tr '\n' ' ')
  echo "${why:-no reason given}"
}

# The packages, and every library package they need, down to the C library.
with_libraries() { # PACKAGE...
  apt-cache "${APT[@]}" depends --recurse --important "$@" | awk -v roots="$*" '
    /^[a-z0-9]/ { at = $1; next }
    /Depends: / { sub(/:any$/, "", $2); if ($2 ~ /^(lib|zlib)/) next_of[at] = next_of[at] " " $2 }
    function walk(name,   list, n, i) {
      if (name in seen) return
      seen[name] = 1; print name
      n = split(next_of[name], list, " ")
      for (i = 1; i <= n; i++) walk(list[i])
    }
    END { n = split(roots, list, " "); for (i = 1; i <= n; i++) walk(list[i]) }'
}

prefix_key() { # SUITE PACKAGES PROGRAMS [DATA]
  echo "$PREFIX_FORMAT $STASIS_CACHE $HOSTTYPE $*"
}

# True if the prefix is there and was made from the same things: no process is started.
prefix_ready() { # NAME SUITE PACKAGES PROGRAMS [DATA]
  local key
  [ -r "$STASIS_CACHE/$1/key" ] || return 1
  read -r key <"$STASIS_CACHE/$1/key"
  [ "$key" = "$(prefix_key "${@:2}")" ]
}

# Makes the prefix NAME from PACKAGES of SUITE, with those PROGRAMS (paths within the packages) in bin/,
# and the files DATA in share/.
make_prefix() { # NAME SUITE PACKAGES PROGRAMS [DATA]
  local name=$1 suite=$2 part=$STASIS_CACHE/$1.part
  local packages programs data deb program target interpreter
  read -ra packages <<<"$3"
  read -ra programs <<<"$4"
  read -ra data <<<"${5:-}"
  private_apt "$suite"
  rm -rf "$part"
  mkdir -p "$part/debs" "$part/root" "$part/bin" "$part/lib"
  # apt downloads as its own user.
  if getent passwd _apt >/dev/null; then chown _apt "$part/debs"; fi
  mapfile -t packages < <(with_libraries "${packages[@]}")
  say "$name: ${#packages[@]} packages of Debian $suite"
  (cd "$part/debs" && run_logged "$name (Debian $suite)" apt-get "${APT[@]}" -qq download "${packages[@]}")
  for deb in "$part"/debs/*.deb; do dpkg-deb -x "$deb" "$part/root"; done
  # Both layouts: libraries in /lib before Debian 13, in /usr/lib since.
  find "$part/root/lib" "$part/root/usr/lib" -maxdepth 2 -name '*.so*' -not -type d -path '*-linux-gnu/*' \
    -exec cp -a -t "$part/lib" {} + 2>/dev/null || true
  target=$STASIS_CACHE/$name
  for program in "${programs[@]}"; do
    [ -e "$part/root/$program" ] || die "Debian $suite has no $program in ${3// /, } any more: report this as a bug"
    cp -L "$part/root/$program" "$part/bin/"
    program=$part/bin/${program##*/}
    interpreter=$(patchelf --print-interpreter "$program" 2>/dev/null) || continue # static
    # patchelf 0.18 breaks some large Go programs. Those that need the C library alone, and are content
    # with the host's, stay as they are.
    if ! patchelf --print-needed "$program" | grep -qvE '^(libc|libdl|libpthread|libresolv|librt)\.so|^ld-linux' &&
      runs "$program"; then continue; fi
    # --force-rpath: a run path is not inherited by the libraries' own needs, an rpath is.
    patchelf --set-interpreter "$target/lib/${interpreter##*/}" --force-rpath --set-rpath "$target/lib" "$program"
  done
  for program in ${data[@]+"${data[@]}"}; do
    install -D -m 644 -t "$part/share" "$part/root/$program" || die "Debian $suite has no $program in ${3// /, } any more: report this as a bug"
  done
  (cd "$part/debs" && printf '%s\n' *.deb) >"$part/packages"
  rm -rf "$part/debs" "$part/root"
  prefix_key "${@:2}" >"$part/key"
  rm -rf "$target"
  mv "$part" "$target"
  for program in "$target"/bin/*; do
    runs "$program" || { rm -f "$target/key"; die "$program does not run on this machine ($(patchelf --version)): report this as a bug"; }
  done
}

# Does it start at all? What it thinks of the option does not matter.
runs() { # PROGRAM
  local status=0
  "$1" --version >/dev/null 2>&1 </dev/null || status=$?
  [ "$status" -lt 126 ]
}
