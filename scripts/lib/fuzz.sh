# shellcheck shell=bash
# Fuzz targets: building, running, keeping seeds. To be sourced after common.sh and prepare.sh: only defines functions
# and variables.

FUZZ_TARGET=x86_64-unknown-linux-gnu
# Coverage needs no -Zsanitizer, which is for an unstable compiler: the passes are those of LLVM.
FUZZ_FLAGS="--cfg fuzzing -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
-Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
-Cllvm-args=-sanitizer-coverage-trace-compares -Cdebug-assertions=on -Coverflow-checks=on"
FUZZ_CRATES=(vhost-nic vhost-ism)
# Limits: seconds for an input, seconds after which it counts as endless, MiB of an allocation, MiB of the process with
# the memory of its guests.
FUZZ_SLOW=1
FUZZ_TIMEOUT=20
FUZZ_MALLOC=256
FUZZ_RSS=2048
# Bytes of an input, more than any target uses; number and bytes of the seeds of a target in the tree.
FUZZ_INPUT=16384
FUZZ_SEEDS=40
FUZZ_SEED_BYTES=65536
# Lines of the table, and number of targets with a finding.
FUZZ_ROWS=()
FUZZ_FAILED=0

# fuzz_targets: prints the names of all targets.
fuzz_targets() {
  local crate
  for crate in "${FUZZ_CRATES[@]}"; do
    sed -n '/^\[\[bin\]\]/,/^$/s/^name = "\(.*\)"/\1/p' "$REPO/$crate/fuzz/Cargo.toml"
  done | sort
}

# fuzz_crate TARGET: prints its crate.
fuzz_crate() {
  local crate
  for crate in "${FUZZ_CRATES[@]}"; do
    if [[ -e $REPO/$crate/fuzz/fuzz_targets/$1.rs ]]; then
      printf '%s\n' "$crate"
      return
    fi
  done
  die "there is no fuzz target $1" "scripts/fuzz --list names them"
}

fuzz_corpus() { printf '%s/fuzz/%s\n' "$(prepare_cache)" "$1"; }

# fuzz_seeds TARGET: prints the directory of its seeds in the tree.
fuzz_seeds() {
  local crate
  crate=$(fuzz_crate "$1")
  case $1 in
    *records) printf '%s/%s/tests/records\n' "$REPO" "$crate" ;;
    *) printf '%s/%s/fuzz/corpus/%s\n' "$REPO" "$crate" "$1" ;;
  esac
}

# fuzz_build TARGET...: builds the targets, crate by crate.
fuzz_build() {
  local crate target wanted
  have g++ || run_job compiler "$(prepare_cache)/logs/compiler.log" "" apt-get install --yes g++
  for target; do fuzz_crate "$target" >/dev/null; done
  for crate in "${FUZZ_CRATES[@]}"; do
    wanted=()
    for target; do
      [[ $(fuzz_crate "$target") != "$crate" ]] || wanted+=(--bin "$target")
    done
    ((${#wanted[@]})) || continue
    RUSTFLAGS=$FUZZ_FLAGS run_job "fuzz targets of $crate" "$(prepare_cache)/logs/fuzz-$crate.log" cargo_words \
      cargo build --release --locked --target "$FUZZ_TARGET" --target-dir "$REPO/target/fuzz" \
      --manifest-path "$REPO/$crate/fuzz/Cargo.toml" "${wanted[@]}"
  done
}

fuzz_program() { printf '%s/target/fuzz/%s/release/%s\n' "$REPO" "$FUZZ_TARGET" "$1"; }

# Progress of a target, from its log.
fuzz_words() {
  grep -a '^#' "$1" 2>/dev/null | tail -n 1 | sed -n 's/^#\([0-9]*\).*cov: \([0-9]*\).*/\1 inputs, \2 edges/p'
}

# fuzz_once TARGET SECONDS LOG: fuzzes a target, and shows progress.
fuzz_once() {
  local corpus seeds pid every=15 shown=$SECONDS
  corpus=$(fuzz_corpus "$1")
  seeds=$(fuzz_seeds "$1")
  mkdir -p "$corpus" "$(prepare_cache)/fuzz/findings"
  [[ -d $seeds ]] || seeds=""
  # Programs of a length that mutation alone takes long to reach.
  [[ -n $(ls -A "$corpus") ]] || head -c 2048 /dev/urandom >"$corpus/first"
  # libFuzzer may wait for ever when it interrupts an allocation.
  mortal timeout --signal=KILL $(($2 + 2 * FUZZ_TIMEOUT)) "$(fuzz_program "$1")" -max_total_time="$2" \
    -max_len="$FUZZ_INPUT" -len_control=0 -report_slow_units="$FUZZ_SLOW" -timeout="$FUZZ_TIMEOUT" \
    -malloc_limit_mb="$FUZZ_MALLOC" -rss_limit_mb="$FUZZ_RSS" -print_final_stats=1 \
    -artifact_prefix="$(prepare_cache)/fuzz/findings/$1-" "$corpus" ${seeds:+"$seeds"} >"$3" 2>&1 </dev/null &
  pid=$!
  while kill -0 "$pid" 2>/dev/null; do
    sleep 1
    # The script itself, which may have been killed.
    kill -0 $$ 2>/dev/null || kill "$pid"
    if ((SECONDS - shown >= every)); then
      note "$1: $(fuzz_words "$3")"
      shown=$SECONDS
    fi
  done
  wait "$pid"
}

# fuzz_is_slow TARGET INPUT: whether an input takes too long each time. Once may have been the machine.
fuzz_is_slow() {
  local _
  for _ in 1 2 3; do
    ! timeout --signal=KILL "$FUZZ_SLOW" "$(fuzz_program "$1")" "$2" >/dev/null 2>&1 </dev/null || return 1
  done
}

# fuzz_finding TARGET: prints the first input that is a finding; removes those that were slow on a busy machine.
fuzz_finding() {
  local input
  for input in "$(prepare_cache)/fuzz/findings/$1"-*; do
    case ${input##*/"$1"-} in
      slow-unit-* | timeout-*)
        if ! fuzz_is_slow "$1" "$input"; then
          rm -f "$input"
          continue
        fi
        ;;
    esac
    if [[ -e $input ]]; then
      printf '%s\n' "$input"
      return
    fi
  done
}

# fuzz_one TARGET SECONDS ROW: fuzzes a target, and writes its line of the table to the file ROW; fails if there is a
# finding.
fuzz_one() {
  local target=$1 log input result="no finding" ended=0
  log=$(prepare_cache)/logs/fuzz-$target.log
  step "$target, $2 s"
  rm -f "$(prepare_cache)/fuzz/findings/$target"-*
  fuzz_once "$target" "$2" "$log" || ended=$?
  input=$(fuzz_finding "$target")
  # A process that was slow, or killed as it was, has no finding.
  if [[ -n $input ]] || { ((ended && ended != 137)) && ! grep -q "ERROR: libFuzzer: timeout" "$log"; }; then
    result="finding: ${input:-see $log}"
    note "$target: $result"
    grep -m 3 -E "panicked|ERROR: libFuzzer" "$log" >&2 || true
  fi
  fuzz_row "$target" "$log" "$result" >"$3"
  [[ $result == "no finding" ]]
}

# fuzz_run SECONDS JOBS TARGET...: fuzzes the targets, JOBS at a time.
fuzz_run() {
  local seconds=$1 jobs=$2 rows target running=0
  shift 2
  rows=$(mktemp -d)
  for target; do
    if ((running == jobs)); then
      wait -n || FUZZ_FAILED=$((FUZZ_FAILED + 1))
      running=$((running - 1))
    fi
    fuzz_one "$target" "$seconds" "$rows/$target" &
    running=$((running + 1))
  done
  for ((; running; running--)); do
    wait -n || FUZZ_FAILED=$((FUZZ_FAILED + 1))
  done
  for target; do
    FUZZ_ROWS+=("$(<"$rows/$target")")
  done
  rm -r "$rows"
}

# fuzz_row TARGET LOG RESULT: prints a line of the table.
fuzz_row() {
  local last last_number executions rate
  last=$(tr '\r' '\n' <"$2" | grep -E '^#[0-9]+' | tail -n 1)
  last_number=${last%%[!#0-9]*}
  last_number=${last_number#\#}
  executions=$(sed -n 's/^stat::number_of_executed_units: *//p' "$2")
  rate=$(sed -n 's/^stat::average_exec_per_sec: *//p' "$2")
  printf '%-20s %12s %8s %8s %10s  %s\n' "$1" "${executions:-$last_number}" "${rate:--}" \
    "$(sed -n 's/.*cov: \([0-9]*\).*/\1/p' <<<"$last")" "$(sed -n 's/.*corp: \([0-9]*\).*/\1/p' <<<"$last")" "$3"
}

# fuzz_keep TARGET...: replaces the seeds in the tree by the fewest inputs that together reach all that is reached.
fuzz_keep() {
  local target merged seeds size bytes count file
  for target; do
    [[ $target != *records ]] || continue
    seeds=$(fuzz_seeds "$target")
    merged=$(mktemp -d)
    mkdir -p "$seeds"
    "$(fuzz_program "$target")" -set_cover_merge=1 -max_len="$FUZZ_INPUT" \
      -artifact_prefix="$(prepare_cache)/fuzz/findings/$target-" "$merged" "$seeds" "$(fuzz_corpus "$target")" \
      >"$(prepare_cache)/logs/fuzz-$target-merge.log" 2>&1 </dev/null || true
    rm -f "$seeds"/*
    bytes=0 count=0
    # The longest first, as these reach most.
    while read -r size file; do
      ((count < FUZZ_SEEDS && bytes + size <= FUZZ_SEED_BYTES)) || continue
      bytes=$((bytes + size)) count=$((count + 1))
      cp "$merged/$file" "$seeds/"
    done < <(find "$merged" -type f -printf '%s %f\n' | sort -rn)
    rm -rf "$merged"
    note "$target: $count seeds, $bytes bytes"
  done
}

# fuzz_table: prints the results; fails if there was a finding.
fuzz_table() {
  printf '%-20s %12s %8s %8s %10s  %s\n' target inputs "per s" edges corpus result
  printf '%s\n' "${FUZZ_ROWS[@]}"
  ((!FUZZ_FAILED))
}
