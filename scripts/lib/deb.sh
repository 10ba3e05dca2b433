# shellcheck shell=bash
# How a folder becomes a Debian package, the same bytes each time. Needs common.sh, SOURCE_DATE_EPOCH, and PACKAGE_VERSION.

export LC_ALL=C

# GNU's triplet, for binutils of another processor.
triplet() { # ARCH
  case $1 in amd64) echo x86_64-linux-gnu ;; arm64) echo aarch64-linux-gnu ;; esac
}

node_arch() { # ARCH
  case $1 in amd64) echo x64 ;; arm64) echo arm64 ;; esac
}

strip_program() { # ARCH FILE
  local program
  program=$(triplet "$1")-strip
  [ "$1" != "$(machine_arch)" ] || program="strip"
  "$program" --strip-unneeded --remove-section=.comment --remove-section=.note "$2"
}

# Debian's own form of the changelog, from CHANGELOG.md: newest first, every paragraph and list item an entry.
debian_changelog() { # PACKAGE
  awk -v package="$1" -v version="$PACKAGE_VERSION" \
    -v signature=" -- Stasis developers <stasis@localhost.localdomain>  $(date -u -R -d "@$SOURCE_DATE_EPOCH")" '
    function flush(   n, i, words, line) {
      n = split(item, words, " ")
      line = "  *"
      for (i = 1; i <= n; i++) {
        if (length(line) + length(words[i]) > 78) { print line; line = "   " }
        line = line " " words[i]
      }
      if (n) print line
      item = ""
    }
    function close_version() { flush(); if (open) print "\n" signature "\n" }
    { gsub(/`/, "") }
    /^## / { close_version(); print package " (" (open ? $2 : version) ") unstable; urgency=medium\n"; open = 1; next }
    !open { next }
    /^$/ { flush(); next }
    /^- / { flush(); sub(/^- /, "") }
    { item = item " " $0 }
    END { close_version() }' "$STASIS_SRC/CHANGELOG.md"
}

# Compressed without name and time in it.
install_gz() { # FROM TO
  install -d "$(dirname "$2")"
  gzip -9n <"$1" >"$2"
  chmod 644 "$2"
}

# Control files, sums and the archive of what lies in FOLDER.
make_deb() { # PACKAGE ARCH FOLDER OUT
  local package=$1 arch=$2 folder=$3 out=$4 script size from=$STASIS_SRC/packaging/debian
  install -d "$folder/DEBIAN"
  debian_changelog "$package" >"$folder/changelog"
  install_gz "$folder/changelog" "$folder/usr/share/doc/$package/changelog.gz"
  rm "$folder/changelog"
  install -D -m 644 "$from/lintian-overrides.$package" "$folder/usr/share/lintian/overrides/$package"
  for script in preinst postinst prerm postrm; do
    [ ! -e "$from/$script.$package" ] || install -m 755 "$from/$script.$package" "$folder/DEBIAN/$script"
  done
  [ ! -d "$folder/etc" ] || (cd "$folder" && find etc -type f -printf "/%p\n" | sort >DEBIAN/conffiles)
  (cd "$folder" && find . -path ./DEBIAN -prune -o -type f -printf '%P\n' | sort | xargs -d '\n' md5sum >DEBIAN/md5sums)
  size=$(cd "$folder" && find . -path ./DEBIAN -prune -o -type f -printf '%s\n' | awk '{ n += int(($1 + 1023) / 1024) } END { print n }')
  sed -e "s/@VERSION@/$PACKAGE_VERSION/" -e "s/@ARCH@/$arch/" -e "s/@SIZE@/$size/" -e "s/@CRIU@/${CRIU_VERSION:-}/" \
    "$from/control.$package" >"$folder/DEBIAN/control"
  # Nothing depends on who builds, when, or under which umask.
  find "$folder" -type d -exec chmod 755 {} +
  find "$folder" -type f -exec chmod u=rwX,go=rX {} +
  find "$folder" -exec touch --no-dereference -d "@$SOURCE_DATE_EPOCH" {} +
  # Level 1: a fifth larger than level 6, in a quarter of the time, for those who build and for those who install.
  dpkg-deb --root-owner-group -Zxz -z1 --threads-max=1 --build "$folder" "$out/${package}_${PACKAGE_VERSION}_$arch.deb" >/dev/null
}
