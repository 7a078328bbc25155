# shellcheck shell=bash
# QEMU: the host's if recent enough, else Debian's in a private prefix.
#
# $CACHE/qemu-KEY/bin/qemu-system-x86_64 is a wrapper in both cases.

QEMU_OLDEST=11.1 # the first version with what the vhost-user devices here need
QEMU_RECIPE=1

# qemu_version PROGRAM: prints a version such as "11.1.3", or nothing if PROGRAM does not start.
qemu_version() {
  { "$1" --version 2>/dev/null || true; } | sed -n 's/^QEMU emulator version \([0-9.]*\).*/\1/p'
}
host_qemu_version() { qemu_version qemu-system-x86_64; }

# Hash of "host VERSION PATH" or "debian VERSION", and the recipe.
qemu_key() {
  local version
  version=$(host_qemu_version)
  if version_at_least "$version" "$QEMU_OLDEST"; then
    echo "host $version $(command -v qemu-system-x86_64) $QEMU_RECIPE" | key_of
  else
    echo "debian $QEMU_OLDEST $QEMU_RECIPE" | key_of
  fi
}
qemu_dir() { echo "$CACHE/qemu-$(qemu_key)"; }
qemu_done() { [[ -e $(qemu_dir)/version ]]; }

qemu_wrapper() {
  mkdir -p "$PARTIAL/bin"
  cat >"$PARTIAL/bin/qemu-system-x86_64"
  chmod 755 "$PARTIAL/bin/qemu-system-x86_64"
}

qemu_from_host() {
  marker "using the installed QEMU $1"
  qemu_wrapper <<WRAPPER
#!/bin/sh
exec $(command -v qemu-system-x86_64) "\$@"
WRAPPER
  : >"$PARTIAL/root.packages"
}

# Debian's QEMU needs a newer libc than the host may have, so its libc is unpacked as well and QEMU
# is started by its own loader. The firmware is in two packages, hence two -L. exec, so that process
# id and signals are QEMU's.
qemu_from_debian() {
  apt_ready
  apt_closure "$PARTIAL/root" -t trixie-backports qemu-system-x86 seabios
  # Only the program, its libraries and its firmware are needed.
  rm -rf "$PARTIAL"/root/usr/share/{doc,man,locale,info,lintian,bug} "$PARTIAL"/root/{etc,var}
  qemu_wrapper <<'WRAPPER'
#!/bin/sh
r=$(readlink -f "$0")
r=${r%/bin/*}/root
lib=$r/usr/lib/x86_64-linux-gnu
export QEMU_MODULE_DIR="$lib/qemu"
exec "$r/usr/lib64/ld-linux-x86-64.so.2" --argv0 qemu-system-x86_64 \
  --library-path "$lib:$r/usr/lib:$lib/pulseaudio" \
  "$r/usr/bin/qemu-system-x86_64" -L "$r/usr/share/qemu" -L "$r/usr/share/seabios" "$@"
WRAPPER
}

qemu_stage() {
  local version
  partial_begin "$(qemu_dir)"
  version=$(host_qemu_version)
  if version_at_least "$version" "$QEMU_OLDEST"; then
    qemu_from_host "$version"
  else
    qemu_from_debian
  fi
  marker "checking"
  version=$(qemu_version "$PARTIAL/bin/qemu-system-x86_64")
  version_at_least "$version" "$QEMU_OLDEST" ||
    die "got QEMU ${version:-that does not start}, need $QEMU_OLDEST or later" \
      "check that the mirror carries trixie-backports"
  echo "$version" >"$PARTIAL/version"
  partial_commit "$(qemu_dir)"
}
