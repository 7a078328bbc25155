# shellcheck shell=bash
# Requirements of the build on the host.

HOST_PACKAGES=(
  kmod cpio zstd xz-utils
  e2fsprogs # mke2fs -d
  ca-certificates debian-archive-keyring
)
# Not for `images/build nic`, which builds no kernel.
[[ -n ${GUEST_NIC_ONLY:-} ]] || HOST_PACKAGES+=(
  gcc libc6-dev make bc # the kernel's own build
  flex bison m4         # kconfig
  libelf-dev zlib1g-dev # objtool, always on for x86-64
  perl python3 patch
)

KEYRING_DIR=/usr/share/keyrings

# The keyring must have the keys that sign trixie, which old keyrings of bookworm lack.
keyring_ok() {
  compgen -G "$KEYRING_DIR/debian-archive-trixie-automatic.*" >/dev/null &&
    [[ -n $(keyring_path) ]]
}
keyring_path() {
  local f
  for f in "$KEYRING_DIR"/debian-archive-keyring.{gpg,pgp}; do
    if [[ -e $f ]]; then
      echo "$f"
      return
    fi
  done
}

host_missing() {
  # A multi-arch package has more than one line.
  dpkg-query -W -f='${Package} ${db:Status-Abbrev}\n' "${HOST_PACKAGES[@]}" 2>/dev/null |
    awk '$2 == "ii" { print $1 }' | sort -u |
    comm -13 - <(printf '%s\n' "${HOST_PACKAGES[@]}" | sort -u)
  keyring_ok || echo debian-archive-keyring
}
host_done() { [[ -z $(host_missing) ]]; }

host_checks() {
  [[ $(uname -sm) == "Linux x86_64" ]] ||
    die "this is $(uname -sm), the image build needs Linux x86_64"
  if ! have apt-get || ! have dpkg-query; then
    die "apt-get not found" "the image build needs a Debian 12 or 13 system"
  fi
  [[ $CACHE != *[[:space:]:]* ]] ||
    die "the kernel's make does not take a space or colon in $CACHE" "set GUEST_CACHE to another directory"
  ((EUID == 0)) || die "not running as root" "run it as root (it unpacks packages with their owners)"
}

# disk_check GIB: checks the free space before a build.
disk_check() {
  local need=$1 free
  free=$(($(df --output=avail -B 1M "$CACHE" | tail -n 1) / 1024))
  ((free >= need)) ||
    die "only $free GiB free under $CACHE, this build needs $need GiB" \
      "free some space or set GUEST_CACHE to a directory on another disk"
}

# net_check WHAT: checks that the Debian mirror is reachable. Behind a proxy, only apt can find out.
net_check() {
  local host port=80
  [[ -z ${http_proxy:-} && -z $(host_proxy) ]] || return 0
  host=${MIRROR#*://}
  host=${host%%/*}
  [[ $MIRROR == https:* ]] && port=443
  [[ $host == *:* ]] && port=${host##*:}
  # shellcheck disable=SC2016 # the inner shell's arguments
  timeout 10 bash -c 'exec 3<>"/dev/tcp/$1/$2"' - "${host%:*}" "$port" 2>/dev/null ||
    die "cannot reach ${host%:*} port $port, needed to download $1" \
      "check the network or set http_proxy, or GUEST_MIRROR to a reachable mirror"
}

install_host_packages() {
  local missing
  mapfile -t missing < <(host_missing)
  marker "installing ${missing[*]}"
  export DEBIAN_FRONTEND=noninteractive
  # Unrelated sources of the host may fail to update; only the installation of the packages
  # matters.
  apt-get update || true
  apt-get install -y --no-install-recommends "${missing[@]}" ||
    die "cannot install the build tools (${missing[*]})" \
      "check the network and the apt sources of this machine, or install them by hand"
}
