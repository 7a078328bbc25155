# shellcheck shell=bash
# The guests' root file system: Debian packages, unpacked without their maintainer scripts, packed
# as one read-only ext4 image. The same for all kernels.

ROOTFS_RECIPE=1

# The packages of the list, and those of --packages.
rootfs_packages() {
  sed 's/#.*//' "$IMAGES_DIR/rootfs/packages" | xargs -n 1
  [[ -z ${GUEST_PACKAGES:-} ]] || package_names "$GUEST_PACKAGES"
}
# package_names NAME,...: prints the names, sorted.
package_names() { tr , '\n' <<<"$1" | sed '/^$/d' | sort -u; }
# rootfs_link NAME,...: the link to the root file system with these packages, by which scripts/in-guest finds it.
rootfs_link() { echo "$CACHE/rootfs+$(package_names "$1" | paste -sd +)"; }
rootfs_key() {
  { rootfs_packages; cat "$IMAGES_DIR/rootfs/init"; echo "recipe $ROOTFS_RECIPE"; } | key_of
}
rootfs_dir() { echo "$CACHE/rootfs-$(rootfs_key)"; }
rootfs_done() { [[ -e $(rootfs_dir)/rootfs.ext4 ]]; }

# Removes what no guest uses: documentation, except rdma-core's test suite, and more.
rootfs_trim() {
  local r=$1
  find "$r/usr/share/doc" -mindepth 1 -maxdepth 1 ! -name rdma-core -exec rm -rf {} +
  find "$r/usr/share/doc/rdma-core" -mindepth 1 -maxdepth 1 ! -name tests -exec rm -rf {} +
  rm -rf "$r"/usr/share/{man,locale,info,lintian,bug,perl,perl5,bash-completion} \
    "$r"/usr/lib/x86_64-linux-gnu/{gconv,perl,perl5} \
    "$r"/usr/lib/{udev/hwdb.d,systemd/system,apt} "$r"/var/lib/{dpkg,apt}
}

rootfs_accounts() {
  local etc=$1/etc
  cat >"$etc/passwd" <<'PASSWD'
root::0:0:root:/root:/bin/bash
www-data:x:33:33:www-data:/var/www:/usr/sbin/nologin
nobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin
PASSWD
  cat >"$etc/group" <<'GROUP'
root:x:0:
tty:x:5:
www-data:x:33:
nogroup:x:65534:
GROUP
  printf '127.0.0.1 localhost\n::1 localhost\n' >"$etc/hosts"
  printf 'passwd: files\ngroup: files\nhosts: files\nservices: files\n' >"$etc/nsswitch.conf"
  printf 'include /etc/ld.so.conf.d/*.conf\n' >"$etc/ld.so.conf"
  # The prompt shows the name of the guest.
  printf "PS1='\\\\h:\\\\w# '\n" >"$etc/profile"
  ln -sfn /proc/self/mounts "$etc/mtab"
}

# Does what maintainer scripts would have done.
rootfs_fixups() {
  local r=$1 d applet
  for d in bin sbin lib lib64; do
    [[ -e $r/$d || -L $r/$d ]] || ln -s "usr/$d" "$r/$d"
  done
  mkdir -p "$r"/{proc,sys,dev,run,tmp,root,mnt,host,etc,usr/lib/modules,usr/local/{bin,sbin}}
  mkdir -p "$r"/var/{log/nginx,lib/nginx,tmp,www}
  chmod 1777 "$r"/tmp "$r"/var/tmp
  [[ -L $r/var/run ]] || ln -sfn /run "$r/var/run"
  rootfs_accounts "$r"
  # Alternatives, then busybox for every command that no package provides.
  [[ -e $r/usr/bin/nc.openbsd ]] && ln -sf nc.openbsd "$r/usr/bin/nc"
  [[ -e $r/usr/bin/gawk ]] && ln -sf gawk "$r/usr/bin/awk"
  for applet in $("$r/usr/bin/busybox" --list); do
    [[ -e $r/usr/bin/$applet || -e $r/usr/sbin/$applet ]] || ln -sf busybox "$r/usr/bin/$applet"
  done
  gunzip -r "$r/usr/share/doc/rdma-core/tests"
  rootfs_bytecode "$r"
  ldconfig -r "$r"
  install -m 755 "$IMAGES_DIR/rootfs/init" "$r/init"
}

# Compiles Python byte code, or every guest would do it again. Hash-based, as packing changes the
# time stamps of the sources.
rootfs_bytecode() {
  local r=$1 d dirs=(/usr/share/doc/rdma-core/tests)
  for d in "$r"/usr/lib/python3*; do dirs+=("${d#"$r"}"); done
  chroot "$r" /usr/bin/python3 -m compileall -q --invalidation-mode unchecked-hash "${dirs[@]}" ||
    die "compiling the python modules failed"
}

rootfs_stage() {
  local packages
  mapfile -t packages < <(rootfs_packages)
  apt_ready
  partial_begin "$(rootfs_dir)"
  apt_closure "$PARTIAL/root" "${packages[@]}"
  marker "finishing the file tree"
  rootfs_trim "$PARTIAL/root"
  rootfs_fixups "$PARTIAL/root"
  marker "packing"
  pack_ext4 "$PARTIAL/root" "$PARTIAL/rootfs.ext4" 16 || die "mke2fs failed"
  rm -rf "$PARTIAL/root"
  partial_commit "$(rootfs_dir)"
}
