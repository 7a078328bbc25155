# shellcheck shell=bash
# Prerequisites of demonstrations, benchmarks and tests: image, guest driver, programs.

PERFETTO_VERSION=0.59.1

# The cache directory, chosen as in images/lib.sh.
prepare_cache() { printf '%s\n' "${GUEST_CACHE:-$REPO/.cache}"; }

# image_field FILE FIELD: prints a field of an image description.
image_field() { sed -n 's/^ *"'"$2"'": *"\([^"]*\)".*/\1/p' "$1"; }

# The Rust toolchain is the only prerequisite that is not installed automatically.
prepare_toolchain() {
  if ! have cargo && [[ -x $HOME/.cargo/bin/cargo ]]; then PATH=$HOME/.cargo/bin:$PATH; fi
  have cargo || die "no Rust toolchain found" "install one with rustup, or put cargo in PATH"
}

# Kernel, root file system, QEMU.
prepare_image() {
  "$REPO/images/build" || exit 1
}

# The same, plus the kernel with KASAN and lockdep.
prepare_debug_image() {
  "$REPO/images/build" --debug || exit 1
}

# Unmodified Debian kernels, which the tests of the NIC boot as well.
prepare_stock() {
  "$REPO/images/build" stock || exit 1
}

# prepare_driver IMAGE-DESCRIPTION: builds the guest driver for that kernel, where the harness expects it.
prepare_driver() {
  local cache release build
  cache=$(prepare_cache)
  release=$(image_field "$1" kernel_release)
  build=$(image_field "$1" kernel_build)
  "$REPO/guest-tests/driver/build" "$cache/$build" "$cache/driver/$release" ||
    die "the guest driver does not build for $release" "see the lines above"
}

# Progress of a cargo build, from its log.
cargo_words() {
  grep -aE '^ *(Compiling|Downloading|Finished)' "$1" 2>/dev/null | tail -n 1 | sed 's/^ *//' | cut -c 1-50
}

# Daemons, guest agent, smc-tool, demonstrations.
prepare_programs() {
  run_job "programs" "$(prepare_cache)/logs/cargo-build.log" cargo_words \
    cargo build --release --locked --workspace --manifest-path "$REPO/Cargo.toml"
}

# python_package NAME VERSION: installs a Python package into an environment of its own in the cache.
python_package() {
  local name=$1 version=$2 venv
  venv=$(prepare_cache)/tools/$name-$version
  [[ ! -e $venv/installed ]] || return 0
  if ! python3 -c 'import ensurepip' 2>/dev/null; then
    run_job python3-venv "$(prepare_cache)/logs/python3-venv.log" "" \
      env DEBIAN_FRONTEND=noninteractive bash -c "apt-get -q update && apt-get -qy install python3-venv"
  fi
  run_job "$name" "$(prepare_cache)/logs/$name.log" "" bash -c \
    "python3 -m venv --clear '$venv' && '$venv/bin/pip' install -q '$name==$version' && touch '$venv/installed'"
}

# Perfetto's descriptors, with which a test reads the traces.
prepare_perfetto() {
  python_package perfetto "$PERFETTO_VERSION"
  export VHOST_TEST_PERFETTO
  VHOST_TEST_PERFETTO=$(prepare_cache)/tools/perfetto-$PERFETTO_VERSION/bin/python
}

# Wireshark's dissectors, with which a test reads captures.
prepare_tshark() {
  if ! have tshark; then
    run_job tshark "$(prepare_cache)/logs/tshark.log" "" env DEBIAN_FRONTEND=noninteractive bash -c \
      "apt-get -q update && apt-get -qy install --no-install-recommends tshark"
  fi
  export VHOST_TEST_TSHARK
  VHOST_TEST_TSHARK=$(command -v tshark)
}

# Everything needed to run guests with the normal kernel.
prepare_all() {
  cd "$REPO" || exit 1
  prepare_toolchain
  prepare_image
  prepare_driver "$(prepare_cache)/image.json"
  prepare_programs
}
