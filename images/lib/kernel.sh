# shellcheck shell=bash
# The guest kernel: Debian's kernel source, allnoconfig plus fragments.
#
# Layout below $CACHE/kernel:
#   source              file with the resolved "PACKAGE VERSION SHA256"
#   src-VERSION/        unpacked source, complete or absent
#   FLAVOUR-KEY/build/  O= tree, kept for building out-of-tree modules
#   FLAVOUR-KEY/out/    bzImage, modules.ext4, release; complete or absent
#
# The O= tree is not renamed when complete, as it contains its own path. kbuild resumes it after a
# kill; only out/ marks it as complete.

KERNEL_DIR=$CACHE/kernel
KERNEL_RECIPE=1
KERNEL_OLDEST=6.18 # the first with drivers/dibs
# Number of objects of a full build, for the percentage.
KERNEL_OBJECTS=1800

# kernel_source_dir [VERSION]: prints the source directory; make does not accept every character in a
# path.
kernel_source_dir() {
  local version=${1:-}
  [[ -n $version ]] || read -r _ version _ <"$KERNEL_DIR/source"
  echo "$KERNEL_DIR/src-${version//[^0-9A-Za-z.+-]/_}"
}

# kernel_fragment FLAVOUR: prints all symbols; the last value of each wins.
kernel_fragment() {
  local files=("$IMAGES_DIR/kernel/config.fragment")
  [[ $1 == debug ]] && files+=("$IMAGES_DIR/kernel/debug.fragment")
  [[ $1 == uml ]] && files=("$IMAGES_DIR/uml/config.fragment")
  awk -F= '/^CONFIG_/ { if (!($1 in v)) n[++c] = $1; v[$1] = substr($0, length($1) + 2) }
    END { for (i = 1; i <= c; i++) print n[i] "=" v[n[i]] }' "${files[@]}"
}

kernel_toolchain() {
  gcc --version | sed -n 1p
  ld --version | sed -n 1p
}

# The key covers everything that affects the result.
kernel_key() {
  {
    kernel_fragment "$1"
    cut -d ' ' -f 1,2 "$KERNEL_DIR/source"
    kernel_toolchain
    echo "recipe $KERNEL_RECIPE"
  } | key_of
}
kernel_dir() { echo "$KERNEL_DIR/$1-$(kernel_key "$1")"; }
kernel_done() {
  [[ -e $KERNEL_DIR/source && -e $(kernel_source_dir)/Makefile &&
    -e $(kernel_dir "$1")/out/release ]]
}

# Resolves the newest kernel source of the suites, once.
kernel_resolve() {
  [[ -e $KERNEL_DIR/source && -z ${GUEST_UPDATE:-} ]] && return
  apt_ready
  local newest version
  newest=$(apt-cache pkgnames linux-source- | sed -n 's/^linux-source-\([0-9.]*\)$/\1/p' | sort -V | tail -n 1)
  version_at_least "$newest" "$KERNEL_OLDEST" ||
    die "the newest kernel source in $MIRROR is ${newest:-none}, need $KERNEL_OLDEST or later" \
      "check that the mirror carries trixie-backports"
  # After --update, the version is usually unchanged.
  version=$(apt-cache show "linux-source-$newest" | awk '/^Version: / && !n++ { print $2 }')
  grep -qsF "linux-source-$newest $version " "$KERNEL_DIR/source" || kernel_unpack "linux-source-$newest"
}

kernel_unpack() {
  local version src
  partial_begin "$KERNEL_DIR/download"
  marker "downloading $1"
  (cd "$PARTIAL" && apt-get -q download "$1") ||
    die "cannot download $1" "check the network and run it again"
  deb_line "$PARTIAL"/*.deb >"$PARTIAL/source"
  read -r _ version _ <"$PARTIAL/source"
  src=$(kernel_source_dir "$version")
  if [[ ! -e $src/Makefile ]]; then
    marker "unpacking $1"
    dpkg-deb --fsys-tarfile "$PARTIAL"/*.deb |
      tar -xf - -C "$PARTIAL" --wildcards './usr/src/*.tar.xz'
    mkdir "$PARTIAL/tree"
    tar -xJf "$PARTIAL"/usr/src/*.tar.xz -C "$PARTIAL/tree" --strip-components=1
    mv -T "$PARTIAL/tree" "$src"
  fi
  mv "$PARTIAL/source" "$KERNEL_DIR/source"
  rm -rf "$PARTIAL"
}

# kernel_check FLAVOUR CONFIG: fails if Kconfig dropped symbols with unmet dependencies, which it
# does silently.
kernel_check() {
  local lost
  lost=$(kernel_fragment "$1" | awk -F= -v config="$2" '
    BEGIN { while ((getline line < config) > 0)
              if (line ~ /^CONFIG_/) { i = index(line, "="); have[substr(line, 1, i - 1)] = substr(line, i + 1) } }
    { want = substr($0, length($1) + 2); got = ($1 in have) ? have[$1] : "n"
      if (got != want) printf "%s%s=%s (is %s)", sep, $1, want, got; sep = ", " }')
  [[ -z $lost ]] ||
    die "the kernel configuration lost: ${lost#, }" \
      "see the symbol's \"depends on\" in the kernel's Kconfig files and add what it needs to the fragment in images/"
}

# With ccache where there is one: the same result, sooner after a change of the configuration.
kernel_make() {
  local compiler=()
  ! have ccache || compiler=(CC="ccache gcc")
  mortal make -C "$(kernel_source_dir)" O="$KBUILD" ARCH=x86_64 "${compiler[@]}" "$@"
}

# The stage, run as a job by images/build.
kernel_stage() {
  local flavour=$1 dir
  kernel_resolve
  kernel_done "$flavour" && return
  dir=$(kernel_dir "$flavour")
  KBUILD=$dir/build
  mkdir -p "$KBUILD"
  # Reproducible: keeps host and time out of the result.
  export KBUILD_BUILD_TIMESTAMP="@$SOURCE_DATE_EPOCH" KBUILD_BUILD_USER=build KBUILD_BUILD_HOST=guest

  marker "configuring"
  kernel_fragment "$flavour" | sed 's/^\(CONFIG_[^=]*\)=n$/# \1 is not set/' >"$dir/fragment"
  kernel_make KCONFIG_ALLCONFIG="$dir/fragment" allnoconfig || die "configuring the kernel failed"
  kernel_check "$flavour" "$KBUILD/.config"

  # A killed build resumes: existing objects count as progress.
  marker "compiling, had $(find "$KBUILD" -name '*.o' | wc -l)"
  kernel_make -j"$(nproc)" bzImage modules || die "compiling the kernel failed"

  marker "packing modules"
  partial_begin "$dir/out"
  kernel_make -s kernelrelease >"$PARTIAL/release.tmp"
  local release
  release=$(tail -n 1 "$PARTIAL/release.tmp")
  kernel_make INSTALL_MOD_PATH="$PARTIAL/root" INSTALL_MOD_STRIP=1 modules_install ||
    die "installing the kernel modules failed"
  rm -f "$PARTIAL/root/lib/modules/$release"/{build,source} "$PARTIAL/release.tmp"
  pack_ext4 "$PARTIAL/root/lib/modules" "$PARTIAL/modules.ext4" 4
  rm -rf "$PARTIAL/root"
  cp "$KBUILD/arch/x86/boot/bzImage" "$PARTIAL/bzImage"
  echo "$release" >"$PARTIAL/release"
  partial_commit "$dir/out"
}

# The O= tree contains its own path and that of its source; this updates them if the cache moved.
# Compiled files stay valid for building modules.
kernel_relocate() {
  local src build
  src=$(kernel_source_dir)
  build=$(kernel_dir "$1")/build
  grep -qsF "include $src/" "$build/Makefile" && return
  ln -sfn "$src" "$build/source"
  printf 'export KBUILD_OUTPUT = %s\ninclude %s/Makefile\n' "$build" "$src" >"$build/Makefile"
}

# Progress text: activity, and progress of the compilation.
kernel_probe() {
  local words n
  words=$(last_marker "$1")
  if [[ $words == compiling* ]]; then
    n=$(grep -acE '^  (CC|AS)( \[M\])? ' "$1") || true
    n=$((n + ${words##* }))
    ((n > KERNEL_OBJECTS)) && n=$KERNEL_OBJECTS
    words="compiled $n of about $KERNEL_OBJECTS, $((n * 100 / KERNEL_OBJECTS)) %"
  fi
  echo "$words"
}
