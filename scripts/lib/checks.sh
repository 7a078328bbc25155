# shellcheck shell=bash
# The checks that need no guest and no test run, for scripts/check and scripts/test: each is one command.

# Results of all checks and suites of a run.
PASSED=0
FAILED=()

# Tools that Debian does not have: pinned, since a newer one finds more.
TYPOS_VERSION=1.52.0
CARGO_DENY_VERSION=0.20.2
# shellcheck disable=SC2034 # for scripts/test
NEXTEST_VERSION=0.9.143

# check NAME COMMAND...: one check, with its seconds.
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

# cargo_tool NAME VERSION: builds a cargo subcommand into the cache where it is missing.
cargo_tool() {
  local name=$1 version=$2
  have "$name" && return
  # A build in the target directory would be lost with it.
  run_job "$name" "$(prepare_cache)/logs/$name.log" cargo_words \
    env -u CARGO_TARGET_DIR cargo install --locked --root "$(prepare_cache)/tools" --version "$version" "$name"
}

# Everything the checks need beyond a Rust toolchain.
prepare_checks() {
  local venv missing=()
  venv=$(prepare_cache)/tools/typos-$TYPOS_VERSION
  PATH=$(prepare_cache)/tools/bin:$venv/bin:$PATH
  have shellcheck || missing+=(shellcheck)
  python3 -c 'import ensurepip' 2>/dev/null || missing+=(python3-venv)
  if ((${#missing[@]})); then
    run_job "${missing[*]}" "$(prepare_cache)/logs/check-tools.log" "" \
      env DEBIAN_FRONTEND=noninteractive sh -c 'apt-get -q update && apt-get -qy install "$@"' sh "${missing[@]}"
  fi
  if [[ ! -x $venv/bin/typos ]]; then
    run_job typos "$(prepare_cache)/logs/typos.log" "" \
      sh -c 'python3 -m venv "$1" && "$1/bin/pip" install -q "typos==$2"' sh "$venv" "$TYPOS_VERSION"
  fi
  cargo_tool cargo-deny "$CARGO_DENY_VERSION"
}

# Lines of code, comments and prose end at column 120; rows of tables and what a program printed may not.
check_width() {
  local wide
  wide=$(git ls-files '*.rs' '*.c' '*.h' '*.sh' '*.py' '*.md' '*.toml' 'scripts/*' 'images/build' ':!*/golden/*' |
    sort -u | LC_ALL=C.UTF-8 xargs grep -nE '^.{121,}$' -- | grep -vE '^[^:]+\.md:[0-9]+:(\||    )') || true
  [[ -z $wide ]] || { printf '%s\n' "$wide" && return 1; }
}

check_shell() {
  # All that begin with a shell's name. An ash script is read as a dash script (SC2187): that is what it is checked as.
  git grep -lE '^#!.*(bash|sh)( |$)|^# shellcheck shell=' -- ':!*.md' ':!*.rs' | xargs shellcheck -x -e SC2187
}

# The database of advisories is on the network: `cargo deny check` alone looks there, too.
check_dependencies() { cargo deny --locked --offline check bans licenses sources; }

check_clippy() { cargo clippy "$@" --locked --workspace --all-targets -- -D warnings; }
check_doc() { RUSTDOCFLAGS="-D warnings" cargo doc "$@" --locked --workspace --no-deps; }
check_doctests() { cargo test "$@" --locked --workspace --doc; }
check_floors() { cargo test "$@" --locked --package vhost-daemon --test floors; }

# run_checks [CARGO-PROFILE-OPTION]: all of them, the fastest first.
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

# summary: what failed, and the line that counts; the status of the run.
summary() {
  local name
  for name in "${FAILED[@]}"; do note "FAILED $name"; done
  printf '%d passed, %d failed\n' "$PASSED" "${#FAILED[@]}"
  ((!${#FAILED[@]}))
}
