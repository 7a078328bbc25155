# shellcheck shell=bash
# Image cache: paths, keys, atomically created directories.

IMAGES_DIR=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
REPO_DIR=$(dirname "$IMAGES_DIR")
# GUEST_CACHE lets several checkouts share one cache.
CACHE=${GUEST_CACHE:-$REPO_DIR/.cache}
[[ $CACHE == /* ]] || CACHE=$PWD/$CACHE
# shellcheck disable=SC2034 # for the sourcing script
LOGS=$CACHE/logs

# A fixed time stamp makes file systems and kernels reproducible.
export SOURCE_DATE_EPOCH=1767225600 # 2026-01-01

# key_of: prints a short hash of stdin.
key_of() { sha256sum | cut -c 1-16; }

# version_at_least VERSION OLDEST
version_at_least() {
  [[ -n $1 && $(printf '%s\n' "$1" "$2" | sort -V | sed -n 1p) == "$2" ]]
}

# marker TEXT: records a stage's current activity, shown on the progress line.
marker() { printf '== %s\n' "$*"; }
last_marker() { grep -a '^== ' "$1" 2>/dev/null | tail -n 1 | cut -c 4-; }

# replace FILE: replaces FILE with stdin atomically; readers see the old or the new content.
replace() {
  cat >"$1.partial.$$"
  mv "$1.partial.$$" "$1"
}

# A directory is built as X.partial.PID and renamed to X when complete, so X is either absent or
# complete.
partial_begin() {
  PARTIAL=$1.partial.$$
  rm -rf "$PARTIAL"
  mkdir -p "$PARTIAL"
}
partial_commit() {
  rm -rf "$1"
  mv -T "$PARTIAL" "$1"
}

# Removes partial directories of killed runs. Only called with the lock held, so no live run owns
# one.
clean_partials() {
  find "$CACHE" -maxdepth 3 -name '*.partial.*' -exec rm -rf {} +
}

# take_lock: allows one run at a time per cache. Children inherit the descriptor, so the lock is
# free only when the last orphan of a killed run has ended.
take_lock() {
  mkdir -p "$CACHE"
  exec 9>>"$CACHE/lock"
  if ! flock -n 9; then
    step "another run is using $CACHE; waiting for it"
    flock 9
  fi
}

# pack_ext4 DIR IMAGE SLACK_MIB: packs DIR into a reproducible ext4 image without journal.
pack_ext4() {
  local dir=$1 image=$2 slack=$3 mib
  # Plus an eighth for directories and inode tables.
  mib=$(($(du -s -B 4096 "$dir" | cut -f 1) * 9 / 2048 + slack))
  find "$dir" -exec touch -h -d "@$SOURCE_DATE_EPOCH" {} +
  E2FSPROGS_FAKE_TIME=$SOURCE_DATE_EPOCH mke2fs -q -t ext4 -b 4096 -m 0 \
    -O '^has_journal,^resize_inode' \
    -U 6f6d2e76-686f-4873-8469-736d00000001 \
    -E "hash_seed=6f6d2e76-686f-4873-8469-736d00000002,root_owner=0:0,lazy_itable_init=0" \
    -d "$dir" "$image" "${mib}M"
}
