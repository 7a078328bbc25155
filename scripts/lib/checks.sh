# shellcheck shell=bash
# The checks that need neither a guest nor a test run, for scripts/check and scripts/test. Each is one command.

# Results of all checks and suites of a run.
PASSED=0
FAILED=()

# Tools that Debian does not package; pinned, because a newer version may report more.
TYPOS_VERSION=1.52.0
CARGO_DENY_VERSION=0.20.2
# shellcheck disable=SC2034 # for scripts/test
NEXTEST_VERSION=0.9.143

# check NAME COMMAND...: runs one check and reports its result and duration.
check() {
  local name=$1 log start=$EPOCHREALTIME seconds
  shift
  log=$(prepare_cache)/logs/check-$name.log
  mkdir -p "$(dirname "$log")"
  if "$@" >"$log" 2>&1; then
    seconds=$(awk -v a="$start" -v b="$EPOCHREALTIME" 'BEGIN { printf "%.1f", b - a }')
    note "PASS $name ($seconds s)"
    PASSED=$((PASSED + 1))
  else
    note "FAIL $name"
    sed 's/^/      /' "$log" | tail -n 40 >&2
    FAILED+=("$name (log: $log)")
  fi
}

# Installs everything the checks need beyond a Rust toolchain.
prepare_checks() {
  PATH=$(prepare_cache)/tools/bin:$(prepare_cache)/tools/typos-$TYPOS_VERSION/bin:$PATH
  if ! have shellcheck; then
    run_job shellcheck "$(prepare_cache)/logs/shellcheck.log" "" \
      env DEBIAN_FRONTEND=noninteractive bash -c "apt-get -q update && apt-get -qy install shellcheck"
  fi
  python_package typos "$TYPOS_VERSION"
  cargo_tool cargo-deny "$CARGO_DENY_VERSION"
  # The checks of dependencies read the crates, and are offline.
  run_job crates "$(prepare_cache)/logs/cargo-fetch.log" "" cargo fetch --locked
}

# Limits code, comments and prose to 120 columns. Table rows of Markdown are exempt.
check_width() {
  local wide LC_ALL=C.UTF-8
  export LC_ALL
  wide=$(git ls-files '*.rs' '*.c' '*.h' '*.sh' '*.py' '*.md' '*.toml' 'scripts/*' 'images/build' ':!*/golden/*' |
    sort -u | xargs grep -nE '^.{121,}$' -- | grep -vE '^[^:]+\.md:[0-9]+:[|│┌╞└]') || true
  [[ -z $wide ]] || { printf '%s\n' "$wide" && return 1; }
}

check_shell() {
  # Every file that names a shell in its first line. SC2187: scripts for ash are checked as scripts for dash.
  git grep -lE '^#!.*(bash|sh)( |$)|^# shellcheck shell=' -- ':!*.md' ':!*.rs' | xargs shellcheck -x -e SC2187
}

# Without advisories, whose database is on the network: `cargo deny check` checks them as well.
check_dependencies() { cargo deny --locked --offline check bans licenses sources; }

check_clippy() { cargo clippy "$@" --locked --workspace --all-targets -- -D warnings; }
check_doc() { RUSTDOCFLAGS="-D warnings" cargo doc "$@" --locked --workspace --no-deps; }

# Of the crates whose documentation has examples: the libraries of the others would be built for nothing.
check_doctests() {
  cargo test "$@" --locked --doc --package guest-harness --package mlx5-test-driver --package pci-function \
    --package vhost-daemon
}

check_floors() { cargo test "$@" --locked --package vhost-daemon --test floors; }

# run_checks [CARGO-PROFILE-OPTION]: runs all checks, the fastest first.
run_checks() {
  step "checks"
  check format cargo fmt --all --check
  check width check_width
  check spelling typos
  check shell check_shell
  check dependencies check_dependencies
  check floors check_floors "$@"
  check clippy check_clippy "$@"
  check doc check_doc "$@"
  check doctests check_doctests "$@"
}

# summary: lists the failures and prints the counts; fails if there were failures.
summary() {
  local name
  for name in "${FAILED[@]}"; do note "FAILED $name"; done
  printf '%d passed, %d failed\n' "$PASSED" "${#FAILED[@]}"
  ((!${#FAILED[@]}))
}
