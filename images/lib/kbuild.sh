# shellcheck shell=bash
# Compiler and headers for out-of-tree modules of Debian's newest kernel, as a file tree of its own: the host's compiler
# may be older than the kernel's, and the programs of the headers need the libc of their release.
#
# Layout: $CACHE/kbuild links to $CACHE/kbuild-KEY, with root/ and release; images/build-module uses it.

KBUILD_RECIPE=1
# make, and the programs that kbuild's recipes run.
KBUILD_PACKAGES=(make binutils dash bash coreutils sed grep mawk findutils diffutils kmod)

kbuild_release() { sed -n 's/^linux-image-\([^ ]*\) .*/\1/p' "$STOCK_DIR/7.x.resolved"; }
kbuild_dir() {
  echo "$CACHE/kbuild-$({ cat "$STOCK_DIR/7.x.resolved"; echo "${KBUILD_PACKAGES[*]} $KBUILD_RECIPE"; } | key_of)"
}
kbuild_done() { [[ -s $STOCK_DIR/7.x.resolved && -e $(kbuild_dir)/release ]]; }

kbuild_stage() {
  local root d
  apt_ready
  partial_begin "$(kbuild_dir)"
  root=$PARTIAL/root
  apt_closure "$root" -t trixie-backports "linux-headers-$(kbuild_release)" "${KBUILD_PACKAGES[@]}"
  for d in bin sbin lib lib64; do
    [[ -e $root/$d || -L $root/$d ]] || ln -s "usr/$d" "$root/$d"
  done
  [[ -e $root/usr/bin/sh ]] || ln -s dash "$root/usr/bin/sh"
  ln -sf mawk "$root/usr/bin/awk"
  # Where the module, the devices and temporary files of the host appear.
  mkdir -p "$root"/{module,dev,proc,tmp}
  rm -rf "$root"/usr/share/{doc,man,locale,info,lintian}
  kbuild_release >"$PARTIAL/release"
  partial_commit "$(kbuild_dir)"
}
