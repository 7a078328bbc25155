# shellcheck shell=bash
# Messages, and background jobs with progress, for the scripts of this repository.
# To be sourced: only defines functions and variables.

COMMON_TTY=0
[[ -t 2 && ${TERM:-dumb} != dumb ]] && COMMON_TTY=1

# Job table, indexed by job number. JOB_PIDS has running jobs only.
JOB_COUNT=0
JOB_NAMES=() JOB_PIDS=() JOB_LOGS=() JOB_PROBES=() JOB_STARTS=()

# Messages go to stderr, as stdout is for data.
_say() {
  if ((COMMON_TTY)); then printf '\r\e[K%s\n' "$*" >&2; else printf '%s\n' "$*" >&2; fi
}

step() { _say "==> $*"; }
note() { _say "    $*"; }
warn() { _say "warning: $*"; }

# die WHAT [HINT]: prints one line and exits. The line always starts with "error: ", which
# jobs_wait looks for in the log of a failed job.
die() {
  _say "error: $1${2:+; $2}"
  exit 1
}

have() { command -v "$1" >/dev/null 2>&1; }

# mortal COMMAND...: runs COMMAND so that it gets SIGTERM when this shell dies, even by SIGKILL.
# Otherwise it would keep writing to a directory that the next run cleans. Applies to COMMAND
# itself, not to its children.
mortal() { setpriv --pdeathsig TERM -- "$@"; }

# job_start NAME LOG PROBE COMMAND...: runs COMMAND in the background with its output in LOG.
# PROBE is "" or a function that gets LOG and prints a short progress text.
job_start() {
  local name=$1 log=$2 probe=$3
  shift 3
  mkdir -p "$(dirname "$log")"
  # exec: the recorded pid is that of the command, not of a shell.
  (exec setpriv --pdeathsig TERM -- "$@") >"$log" 2>&1 </dev/null &
  JOB_PIDS[JOB_COUNT]=$!
  JOB_NAMES[JOB_COUNT]=$name
  JOB_LOGS[JOB_COUNT]=$log
  JOB_PROBES[JOB_COUNT]=$probe
  JOB_STARTS[JOB_COUNT]=$SECONDS
  JOB_COUNT=$((JOB_COUNT + 1))
}

# Progress text of job number $1.
_job_words() {
  local i=$1 words=""
  [[ -n ${JOB_PROBES[i]} ]] && words=$("${JOB_PROBES[i]}" "${JOB_LOGS[i]}" || true)
  printf '%s %ds%s' "${JOB_NAMES[i]}" $((SECONDS - JOB_STARTS[i])) "${words:+ ($words)}"
}

# jobs_stop: stops all running jobs.
jobs_stop() {
  local i
  for i in "${!JOB_PIDS[@]}"; do
    kill -TERM "${JOB_PIDS[i]}" 2>/dev/null || true
  done
  for i in "${!JOB_PIDS[@]}"; do
    wait "${JOB_PIDS[i]}" 2>/dev/null || true
    unset "JOB_PIDS[i]"
  done
}

# jobs_wait: waits for all jobs and shows progress. The first failure stops the others and ends
# the script with one line.
jobs_wait() {
  local every=15 last=$SECONDS i line sep rc why
  while ((${#JOB_PIDS[@]})); do
    for i in "${!JOB_PIDS[@]}"; do
      kill -0 "${JOB_PIDS[i]}" 2>/dev/null && continue
      rc=0
      wait "${JOB_PIDS[i]}" || rc=$?
      unset "JOB_PIDS[i]"
      if ((rc == 0)); then
        step "${JOB_NAMES[i]}: done in $((SECONDS - JOB_STARTS[i])) s"
        continue
      fi
      jobs_stop
      why=$(grep -a '^error: ' "${JOB_LOGS[i]}" | tail -n 1) || true
      why=${why#error: }
      die "${JOB_NAMES[i]}: ${why:-ended with status $rc}" "full log: ${JOB_LOGS[i]}"
    done
    if ((${#JOB_PIDS[@]})) && ((COMMON_TTY || SECONDS - last >= every)); then
      line="" sep=""
      for i in "${!JOB_PIDS[@]}"; do
        line+=$sep$(_job_words "$i")
        sep=" | "
      done
      if ((COMMON_TTY)); then
        printf '\r\e[K    %.*s' $((${COLUMNS:-80} - 6)) "$line" >&2
      else
        note "$line"
        last=$SECONDS
      fi
    fi
    sleep 0.5
  done
}

# run_job NAME LOG PROBE COMMAND...: runs one job and waits for it.
run_job() {
  job_start "$@"
  jobs_wait
}
