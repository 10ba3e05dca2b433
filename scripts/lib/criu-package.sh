# shellcheck shell=bash
# The package stasis-criu: CRIU of a newer Debian with every library it needs, below /usr/lib/stasis-criu. Needs common.sh,
# prefix.sh, deb.sh.

CRIU_PREFIX=/usr/lib/stasis-criu
CRIU_SUITE=forky

# Fetches the packages once, into the cache; apt checks Debian's signatures.
fetch_criu() { # ARCH
  local dir=$STASIS_CACHE/criu-debs-$1 packages
  CRIU_DEBS=$dir
  [ ! -e "$dir/complete" ] || return 0
  rm -rf "$dir"
  mkdir -p "$dir"
  PREFIX_ARCH=$1 private_apt "$CRIU_SUITE"
  ! getent passwd _apt >/dev/null || chown _apt "$dir"
  mapfile -t packages < <(with_libraries criu)
  say "CRIU for $1: ${#packages[@]} packages of Debian $CRIU_SUITE"
  (cd "$dir" && run_logged "CRIU (Debian $CRIU_SUITE, $1)" apt-get "${APT[@]}" -qq download "${packages[@]}")
  : >"$dir/complete"
}

stage_criu() { # ARCH FOLDER
  local arch=$1 folder=$2 unpacked deb name program interpreter doc=$2/usr/share/doc/stasis-criu
  fetch_criu "$arch"
  unpacked=$(mktemp -d)
  install -d "$folder$CRIU_PREFIX"/{bin,lib} "$doc/licenses"
  for deb in "$CRIU_DEBS"/*.deb; do dpkg-deb -x "$deb" "$unpacked"; done
  find "$unpacked/lib" "$unpacked/usr/lib" -maxdepth 2 -name '*.so*' -not -type d -path '*-linux-gnu/*' \
    -exec cp -a -t "$folder$CRIU_PREFIX/lib" {} + 2>/dev/null || true
  program=$folder$CRIU_PREFIX/bin/criu
  cp -L "$unpacked/usr/sbin/criu" "$program"
  interpreter=$(patchelf --print-interpreter "$program")
  # --force-rpath: a run path is not inherited by the libraries' own needs, an rpath is.
  patchelf --set-interpreter "$CRIU_PREFIX/lib/${interpreter##*/}" --force-rpath --set-rpath "$CRIU_PREFIX/lib" "$program"
  prune_libraries "$folder$CRIU_PREFIX" "$program" "${interpreter##*/}"
  {
    echo "The files in $CRIU_PREFIX are those of these Debian packages; each line has package, version and source package."
    echo "Their sources are in Debian's archive under these names and versions (apt-get source PACKAGE=VERSION), and for good"
    echo 'in its archive of snapshots. Nothing but the loader and library path of the program criu was changed.'
    echo
    for deb in "$CRIU_DEBS"/*.deb; do
      name=$(dpkg-deb -f "$deb" Package)
      # shellcheck disable=SC2016  # dpkg-deb's own variables
      dpkg-deb -W --showformat='${Package} ${Version} ${source:Package} ${source:Version}\n' "$deb"
      [ ! -e "$unpacked/usr/share/doc/$name/copyright" ] || cp "$unpacked/usr/share/doc/$name/copyright" "$doc/licenses/$name"
    done
  } >"$doc/sources"
  # shellcheck disable=SC2034  # for the description, in deb.sh
  CRIU_VERSION=$(sed -n 's/^criu \([0-9.]*\).*/\1/p' "$doc/sources")
  cp "$STASIS_SRC/packaging/debian/copyright.stasis-criu" "$doc/copyright"
  rm -rf "$unpacked"
}

# Keeps those libraries that the program, or a library that it needs, names.
prune_libraries() { # PREFIX PROGRAM LOADER
  local dir=$1/lib needed todo=("$2") file name seen=" $3 "
  while [ ${#todo[@]} -gt 0 ]; do
    file=${todo[0]}
    todo=("${todo[@]:1}")
    while read -r name; do
      case $seen in *" $name "*) continue ;; esac
      [ -e "$dir/$name" ] || die "CRIU needs $name, and none of its packages has it: report this as a bug"
      seen+="$name "
      todo+=("$dir/$name")
    done < <(patchelf --print-needed "$file")
  done
  # A name and the file that it links to become one file of that name.
  for name in $seen; do
    needed=$(readlink -f "$dir/$name")
    cp "$needed" "$dir/$name.new"
  done
  find "$dir" -mindepth 1 -not -name '*.new' -delete
  for name in $seen; do
    mv "$dir/$name.new" "$dir/$name"
    chmod 644 "$dir/$name"
  done
  chmod 755 "$dir/$3"
}
