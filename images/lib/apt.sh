# shellcheck shell=bash
# A private apt with its own sources, lists and (empty) package status. The host's apt
# configuration and packages are neither used nor changed.

MIRROR=${GUEST_MIRROR:-http://deb.debian.org/debian}
APT_DIR=$CACHE/apt

# The proxy is the only apt setting taken from the host.
host_proxy() {
  local proxy=""
  eval "$(env -u APT_CONFIG apt-config shell proxy Acquire::http::Proxy)"
  echo "$proxy"
}

# Atomic replacement: stages run in parallel, and the apt of another may be reading.
apt_setup() {
  mkdir -p "$APT_DIR"/{etc/preferences.d,state/lists/partial,cache}
  : >"$APT_DIR/state/status"
  replace "$APT_DIR/etc/guest.sources" <<SOURCES
Types: deb
URIs: $MIRROR
Suites: trixie trixie-updates trixie-backports
Components: main
Architectures: amd64
Signed-By: $(keyring_path)
SOURCES
  local proxy
  proxy=$(host_proxy)
  replace "$APT_DIR/apt.conf" <<CONF
Dir::Etc "$APT_DIR/etc";
Dir::Etc::Parts "/dev/null";
Dir::Etc::Main "/dev/null";
Dir::Etc::SourceList "$APT_DIR/etc/guest.sources";
Dir::Etc::SourceParts "/dev/null";
Dir::Etc::Preferences "/dev/null";
Dir::Etc::PreferencesParts "/dev/null";
Dir::State "$APT_DIR/state";
Dir::State::status "$APT_DIR/state/status";
Dir::Cache "$APT_DIR/cache";
APT::Architecture "amd64";
APT::Architectures { "amd64"; };
APT::Default-Release "trixie";
APT::Install-Recommends "false";
// The cache need not be readable for the _apt user.
APT::Sandbox::User "root";
APT::Update::Error-Mode "any";
Acquire::Languages "none";
Acquire::Retries "3";
Acquire::http::Timeout "20";
${proxy:+Acquire::http::Proxy \"$proxy\";}
CONF
  export APT_CONFIG=$APT_DIR/apt.conf
}

# Downloads the package lists once per cache; images/build --update removes lists.ok.
apt_lists() {
  # A second stage waits here and then finds the lists.
  exec 8>>"$APT_DIR/lists.lock"
  flock 8
  if [[ ! -e $APT_DIR/lists.ok ]]; then
    marker "reading package lists"
    apt-get -q update ||
      die "cannot read the Debian package lists from $MIRROR" \
        "check the network or proxy, or set GUEST_MIRROR to a reachable mirror"
    touch "$APT_DIR/lists.ok"
  fi
  exec 8>&-
}

apt_ready() {
  apt_setup
  apt_lists
}

# apt_closure DIR OPTIONS-AND-PACKAGES...: downloads packages and all dependencies (the status file
# is empty, so that includes libc), unpacks them below DIR without maintainer scripts and lists them
# in DIR.packages.
apt_closure() {
  local dir=$1 deb
  shift
  local debs=$dir.debs why
  mkdir -p "$debs/partial" "$dir"
  marker "resolving packages"
  why=$(apt-get -qq -s install "$@" 2>&1 >/dev/null) ||
    die "apt cannot resolve the package list: $(sed -n '/^E: /{s///p;q}' <<<"$why")"
  marker "downloading packages"
  # Stages run in parallel, and apt does not wait for its own lock.
  flock "$APT_DIR/lock" apt-get -q -y -d -o Dir::Cache::Archives="$debs" install "$@" ||
    die "package download failed" "check the network and run it again"
  marker "unpacking packages"
  for deb in "$debs"/*.deb; do
    dpkg -x "$deb" "$dir" || die "cannot unpack ${deb##*/}"
    deb_line "$deb"
  done >"$dir.packages"
  rm -rf "$debs"
}

# deb_line FILE: prints "name version sha256" of a package file, for the manifest.
deb_line() {
  # shellcheck disable=SC2016 # the dollar signs are dpkg's
  printf '%s %s\n' "$(dpkg-deb -W --showformat='${Package} ${Version}' "$1")" \
    "$(sha256sum "$1" | cut -d ' ' -f 1)"
}
