# shellcheck shell=bash
# The User Mode Linux kernel: the source of the guest kernel, built to run as a process of the host.
# Its guests use the same root file system; the initramfs only mounts it.
#
# Layout: $CACHE/kernel/uml-KEY/{build,out}, as for the other kernels; out/ has linux, initrd.cpio,
# initrd.packages, release.

UML_RECIPE=1
# Number of objects of a full build, for the percentage.
UML_OBJECTS=1150

uml_dir() {
  local key
  key=$({
    kernel_key uml
    cat "$IMAGES_DIR"/uml/{Kconfig.mlx5_ib,init,patches/*.patch}
    echo "recipe $UML_RECIPE"
  } | key_of)
  echo "$KERNEL_DIR/uml-$key"
}
uml_done() {
  [[ -e $KERNEL_DIR/source && -e $(kernel_source_dir)/Makefile && -e $(uml_dir)/out/release ]]
}

uml_make() {
  mortal make -C "$(kernel_source_dir)" O="$KBUILD" ARCH=um KBUILD_KCONFIG="$KBUILD/Kconfig.uml" "$@"
}

# Applies the patches to copies in the O= tree, as the source is shared with the other kernels: make
# prefers a .c file in the O= tree to the one in the source tree (VPATH).
uml_patch() {
  local patch file
  sed -n 's,^+++ b/,,p' "$IMAGES_DIR"/uml/patches/*.patch | sort -u | while read -r file; do
    mkdir -p "$(dirname "$KBUILD/$file")"
    cp "$(kernel_source_dir)/$file" "$KBUILD/$file"
  done
  for patch in "$IMAGES_DIR"/uml/patches/*.patch; do
    patch -d "$KBUILD" -p1 --no-backup-if-mismatch <"$patch" ||
      die "${patch##*/} does not apply to this kernel" "adapt images/uml/patches, or drop the patch if it is upstream"
  done
}

# uml_initrd CPIO: packs busybox and the init that mounts the disk.
uml_initrd() {
  local tree=$PARTIAL/tree
  apt_ready
  apt_closure "$PARTIAL/initrd" busybox-static
  mkdir -p "$tree/bin"
  cp "$PARTIAL/initrd/usr/bin/busybox" "$tree/bin/busybox"
  install -m 755 "$IMAGES_DIR/uml/init" "$tree/init"
  find "$tree" -exec touch -h -d "@$SOURCE_DATE_EPOCH" {} +
  (cd "$tree" && find . | sort | cpio --quiet -o -H newc -R 0:0 --reproducible) >"$1"
  rm -rf "$tree" "$PARTIAL/initrd"
}

uml_stage() {
  local dir
  kernel_resolve
  uml_done && return
  dir=$(uml_dir)
  KBUILD=$dir/build
  mkdir -p "$KBUILD"
  export KBUILD_BUILD_TIMESTAMP="@$SOURCE_DATE_EPOCH" KBUILD_BUILD_USER=build KBUILD_BUILD_HOST=guest

  marker "configuring"
  cat "$(kernel_source_dir)/Kconfig" "$IMAGES_DIR/uml/Kconfig.mlx5_ib" >"$KBUILD/Kconfig.uml"
  kernel_fragment uml | sed 's/^\(CONFIG_[^=]*\)=n$/# \1 is not set/' >"$dir/fragment"
  uml_make KCONFIG_ALLCONFIG="$dir/fragment" allnoconfig || die "configuring the User Mode Linux kernel failed"
  kernel_check uml "$KBUILD/.config"

  uml_patch

  marker "compiling, had $(find "$KBUILD" -name '*.o' | wc -l)"
  uml_make -j"$(nproc)" linux || die "compiling the User Mode Linux kernel failed"

  marker "packing"
  partial_begin "$dir/out"
  uml_initrd "$PARTIAL/initrd.cpio"
  strip -o "$PARTIAL/linux" "$KBUILD/linux" || die "stripping the User Mode Linux kernel failed"
  uml_make -s kernelrelease | tail -n 1 >"$PARTIAL/release"
  partial_commit "$dir/out"
}

uml_probe() { KERNEL_OBJECTS=$UML_OBJECTS kernel_probe "$@"; }

# Paths are relative to the directory of the JSON file, as in image.json.
uml_describe() {
  local kernel rootfs
  kernel=$(uml_dir)/out rootfs=$(rootfs_dir)
  replace "$CACHE/manifest-uml.json" <<JSON
{
  "kernel": {
    "release": "$(cat "$kernel/release")",
    "fragment_sha256": "$(kernel_fragment uml | sha256sum | cut -d ' ' -f 1)",
    "compiler": "$(kernel_toolchain | sed -n 1p)",
    "linker": "$(kernel_toolchain | sed -n 2p)",
    "packages": $(package_array "$KERNEL_DIR/source")
  },
  "initrd": {
    "init_sha256": "$(sha256sum "$IMAGES_DIR/uml/init" | cut -d ' ' -f 1)",
    "packages": $(package_array "$kernel/initrd.packages")
  }
}
JSON
  replace "$CACHE/image-uml.json" <<JSON
{
  "kernel": "${kernel#"$CACHE/"}/linux",
  "kernel_release": "$(cat "$kernel/release")",
  "initrd": "${kernel#"$CACHE/"}/initrd.cpio",
  "rootfs": "${rootfs#"$CACHE/"}/rootfs.ext4",
  "virtio_pci_id": $(kernel_fragment uml | sed -n 's/^CONFIG_UML_PCI_OVER_VIRTIO_DEVICE_ID=//p'),
  "manifest": "manifest-uml.json"
}
JSON
  step "$CACHE/image-uml.json: kernel $(cat "$kernel/release")"
}
