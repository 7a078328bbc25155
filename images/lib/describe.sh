# shellcheck shell=bash
# image.json, which the tests read, and the manifest of its contents.

# describe FLAVOUR: the debug flavour has the suffix "-debug" in file names. Paths are relative to
# the directory of the JSON file, so that the cache can be moved.
describe() {
  local flavour=$1 suffix="" kernel qemu rootfs accel
  [[ $flavour == debug ]] && suffix=-debug
  kernel=$(kernel_dir "$flavour") qemu=$(qemu_dir) rootfs=$(rootfs_dir)
  kernel_relocate "$flavour"
  accel=$(accel_detect)
  manifest "$flavour" "$kernel" "$qemu" "$rootfs" | replace "$CACHE/manifest$suffix.json"
  replace "$CACHE/image$suffix.json" <<JSON
{
  "qemu": "${qemu#"$CACHE/"}/bin/qemu-system-x86_64",
  "qemu_version": "$(cat "$qemu/version")",
  "kernel": "${kernel#"$CACHE/"}/out/bzImage",
  "kernel_release": "$(cat "$kernel/out/release")",
  "kernel_build": "${kernel#"$CACHE/"}/build",
  "modules": "${kernel#"$CACHE/"}/out/modules.ext4",
  "rootfs": "${rootfs#"$CACHE/"}/rootfs.ext4",
  "accel": "$accel",
  "manifest": "manifest$suffix.json"
}
JSON
  step "$CACHE/image$suffix.json: kernel $(cat "$kernel/out/release"), QEMU $(cat "$qemu/version"), $accel"
}

# package_array FILE: prints "name version sha256" lines as a JSON array.
package_array() {
  awk 'BEGIN { printf "[" }
    { printf "%s\n      {\"name\": \"%s\", \"version\": \"%s\", \"sha256\": \"%s\"}", sep, $1, $2, $3; sep = "," }
    END { print "]" }' "$1"
}

manifest() {
  local flavour=$1 kernel=$2 qemu=$3 rootfs=$4
  cat <<JSON
{
  "kernel": {
    "release": "$(cat "$kernel/out/release")",
    "fragment_sha256": "$(kernel_fragment "$flavour" | sha256sum | cut -d ' ' -f 1)",
    "compiler": "$(kernel_toolchain | sed -n 1p)",
    "linker": "$(kernel_toolchain | sed -n 2p)",
    "packages": $(package_array "$KERNEL_DIR/source")
  },
  "qemu": {
    "version": "$(cat "$qemu/version")",
    "packages": $(package_array "$qemu/root.packages")
  },
  "rootfs": {
    "init_sha256": "$(sha256sum "$IMAGES_DIR/rootfs/init" | cut -d ' ' -f 1)",
    "packages": $(package_array "$rootfs/root.packages")
  }
}
JSON
}
