# shellcheck shell=bash
# Unmodified Debian kernels, which boot the guests' root file system as well.
#
# Layout below $CACHE/stock:
#   SERIES.resolved   lines "PACKAGE VERSION": the packages that linux-image-amd64 resolves to
#   SERIES-KEY/       bzImage, initrd, modules.ext4, release, packages; complete or absent

STOCK_DIR=$CACHE/stock
STOCK_RECIPE=1

# The series used by the tests, and the suite that carries each. `images/build nic` wants the newest only.
STOCK_SERIES=(6.1 6.12 7.x)
[[ -z ${GUEST_NIC_ONLY:-} ]] || STOCK_SERIES=(7.x)
stock_suite() {
  case $1 in
    6.1) echo bookworm ;;
    6.12) echo trixie ;;
    7.x) echo trixie-backports ;;
  esac
}

# Built into our own guest kernel (kernel.sh), but modules here; the order does not matter.
STOCK_BOOT_MODULES=(
  virtio_pci virtio_blk ext4 overlay virtio_console virtio_rng
  9p 9pnet_virtio virtio_net configfs unix_diag inet_diag tcp_diag udp_diag
)
# Modules that guests load later; dependencies are added. A directory means all modules below it.
STOCK_MODULES=(
  kernel/drivers/net/ethernet/mellanox/mlx5
  kernel/drivers/infiniband/core
  kernel/drivers/infiniband/hw/mlx5
  kernel/drivers/infiniband/sw
  kernel/drivers/infiniband/ulp
  kernel/drivers/nvme
  kernel/net/8021q
  kernel/net/sched
  kernel/net/rds
  kernel/net/sunrpc
  kernel/fs/nfs
  kernel/fs/nfsd
  kernel/drivers/net/{dummy,macvlan,tun,veth}.ko
  kernel/net/bridge/bridge.ko
)

stock_key() {
  {
    cat "$STOCK_DIR/$1.resolved"
    declare -p STOCK_BOOT_MODULES STOCK_MODULES
    stock_init
    echo "recipe $STOCK_RECIPE"
  } | key_of
}
stock_dir() { echo "$STOCK_DIR/$1-$(stock_key "$1")"; }
stock_done() {
  local series
  for series in "${STOCK_SERIES[@]}"; do
    [[ -s $STOCK_DIR/$series.resolved && -e $(stock_dir "$series")/release ]] || return 1
  done
}

# A separate apt configuration, as the other stages must not see the older suite. The newest series does without it.
stock_apt() {
  if [[ ${STOCK_SERIES[*]} == 7.x ]]; then
    apt_ready
    return
  fi
  APT_DIR=$CACHE/apt-stock
  apt_setup
  sed -i 's/^Suites: .*/Suites: bookworm bookworm-updates trixie trixie-updates trixie-backports/' \
    "$APT_DIR/etc/guest.sources"
  [[ -z ${GUEST_UPDATE:-} ]] || rm -f "$APT_DIR/lists.ok"
  apt_lists
}

stock_resolve() {
  local series=$1 suite
  [[ -s $STOCK_DIR/$series.resolved && -z ${GUEST_UPDATE:-} ]] && return
  suite=$(stock_suite "$series")
  marker "resolving the kernel of $suite"
  apt-get -qq -s install -t "$suite" "linux-image-amd64/$suite" |
    sed -nE 's/^Inst (linux-(image|binary|modules|base)-[0-9][^ ]*) \(([^ ]*) .*/\1 \3/p' | sort |
    replace "$STOCK_DIR/$series.resolved"
  grep -q '^linux-image-' "$STOCK_DIR/$series.resolved" ||
    die "$suite has no kernel" "check that the mirror carries $suite"
}

# /init of the initramfs: loads the modules for the root file system, then starts its init. Part of the key.
stock_init() {
  cat <<'INIT'
#!/busybox sh
/busybox mkdir -p /dev /proc /root
/busybox mount -t devtmpfs devtmpfs /dev
exec </dev/console >/dev/console 2>&1
# Numbered in the order of their dependencies.
for module in /modules/*; do /busybox insmod "$module" || echo "initrd: no $module"; done
until /busybox mount -t ext4 -o ro /dev/vda /root 2>/dev/null; do /busybox sleep 0.1; done
/busybox mount -o move /dev /root/dev
exec /busybox switch_root /root /init
INIT
}

# stock_modules ROOT RELEASE: keeps the modules that guests load, uncompressed, as decompression is slow under
# emulation.
stock_modules() {
  local tree=$1/lib/modules/$2 module wanted=()
  marker "choosing modules of $2"
  find "$tree" -name '*.ko.xz' -print0 | xargs -0 -r -n 64 -P "$(nproc)" xz -d
  depmod -b "$1" "$2"
  for module in "${STOCK_MODULES[@]}"; do
    [[ -e $tree/$module ]] || continue # not in every series
    mapfile -t -O "${#wanted[@]}" wanted < <(find "$tree/$module" -name '*.ko' -printf '%f\n' | sed 's/\.ko$//')
  done
  # "insmod PATH" lines, dependencies first; "builtin NAME" for the rest.
  modprobe -C /dev/null -d "$1" -S "$2" -a --show-depends "${wanted[@]}" "${STOCK_BOOT_MODULES[@]}" |
    sed -n 's/^insmod //p' | awk '{ print $1 }' | sort -u >"$1/keep"
  modprobe -C /dev/null -d "$1" -S "$2" -a --show-depends "${STOCK_BOOT_MODULES[@]}" |
    sed -n 's/^insmod //p' | awk '!seen[$1]++ { print $1 }' >"$1/boot.modules"
  find "$tree" -name '*.ko' | grep -vxFf "$1/keep" | xargs -r rm -f
  find "$tree" -type d -empty -delete
  depmod -b "$1" "$2"
}

# stock_initrd DIR MODULES: builds the initramfs, uncompressed for the same reason.
stock_initrd() {
  local root=$1/initrd.root number=100 module
  mkdir -p "$root/modules" "$root/dev"
  # Only root may; the file system in every kernel has the node as well (usr/default_cpio_list).
  ((EUID)) || mknod "$root/dev/console" c 5 1
  cp "$1/busybox/usr/bin/busybox" "$root/busybox"
  stock_init >"$root/init"
  chmod 755 "$root/init"
  while read -r module; do
    cp "$module" "$root/modules/$((number++))-${module##*/}"
  done <"$2"
  find "$root" -exec touch -h -d "@$SOURCE_DATE_EPOCH" {} +
  (cd "$root" && find . | LC_ALL=C sort | cpio -o -H newc --reproducible --quiet) >"$1/initrd"
  rm -rf "$root"
}

# stock_download DIR SPEC...: downloads packages without dependencies and unpacks them below DIR.
stock_download() {
  local dir=$1 deb
  shift
  mkdir -p "$dir/debs"
  (cd "$dir/debs" && apt-get -q download "$@") ||
    die "cannot download ${*}" "check the network and run it again"
  for deb in "$dir"/debs/*.deb; do
    marker "unpacking ${deb##*/}"
    dpkg -x "$deb" "$dir"
    deb_line "$deb"
  done >>"$PARTIAL/packages"
  rm -rf "$dir/debs"
}

stock_build() {
  local series=$1 release specs
  mapfile -t specs < <(tr ' ' '=' <"$STOCK_DIR/$series.resolved")
  release=$(sed -n 's/^linux-image-\([^ ]*\) .*/\1/p' "$STOCK_DIR/$series.resolved")
  partial_begin "$(stock_dir "$series")"
  marker "downloading ${specs[*]}"
  stock_download "$PARTIAL/root" "${specs[@]}"
  stock_download "$PARTIAL/busybox" busybox-static/trixie
  # Packages may use either path, as /usr is merged.
  if [[ ! -e $PARTIAL/root/lib && -e $PARTIAL/root/usr/lib ]]; then ln -s usr/lib "$PARTIAL/root/lib"; fi
  # In /boot; since 7.2, in the directory of the modules.
  find "$PARTIAL/root" \( -name "vmlinuz-$release" -o -path "*/lib/modules/$release/vmlinuz" \) \
    -exec mv {} "$PARTIAL/bzImage" \;
  [[ -s $PARTIAL/bzImage ]] || die "there is no kernel in ${specs[*]}"
  stock_modules "$PARTIAL/root" "$release"
  marker "packing $release"
  stock_initrd "$PARTIAL" "$PARTIAL/root/boot.modules"
  mkdir "$PARTIAL/modules"
  mv "$PARTIAL/root/lib/modules/$release" "$PARTIAL/modules/"
  pack_ext4 "$PARTIAL/modules" "$PARTIAL/modules.ext4" 4
  rm -rf "$PARTIAL"/{root,busybox,modules}
  echo "$release" >"$PARTIAL/release"
  partial_commit "$(stock_dir "$series")"
}

# The stage, run as a job by images/build.
stock_stage() {
  local series
  mkdir -p "$STOCK_DIR"
  stock_apt
  for series in "${STOCK_SERIES[@]}"; do
    stock_resolve "$series"
    [[ -e $(stock_dir "$series")/release ]] || stock_build "$series"
  done
}

# Descriptions like image.json, with an additional initrd. QEMU and the root file system are the same.
describe_stock() {
  local series dir qemu rootfs file accel
  qemu=$(qemu_dir) rootfs=$(rootfs_dir)
  accel=$(accel_detect)
  for series in "${STOCK_SERIES[@]}"; do
    dir=$(stock_dir "$series")
    file=stock-$series.json
    replace "$CACHE/manifest-$file" <<JSON
{
  "kernel": {
    "release": "$(cat "$dir/release")",
    "packages": $(package_array "$dir/packages")
  }
}
JSON
    replace "$CACHE/image-$file" <<JSON
{
  "qemu": "${qemu#"$CACHE/"}/bin/qemu-system-x86_64",
  "qemu_version": "$(cat "$qemu/version")",
  "kernel": "${dir#"$CACHE/"}/bzImage",
  "kernel_release": "$(cat "$dir/release")",
  "initrd": "${dir#"$CACHE/"}/initrd",
  "modules": "${dir#"$CACHE/"}/modules.ext4",
  "rootfs": "${rootfs#"$CACHE/"}/rootfs.ext4",
  "accel": "$accel",
  "manifest": "manifest-$file"
}
JSON
    step "$CACHE/image-$file: kernel $(cat "$dir/release")"
  done
}
